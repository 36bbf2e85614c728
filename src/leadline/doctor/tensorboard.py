"""TensorBoard: what a watch saw, as event files, for those who look at their trainings there."""

from __future__ import annotations

import math
from pathlib import Path

from leadline.core.extras import import_extra
from leadline.core.profile import Profile


class EventFiles:
    """Writes Profiles over the steps into a folder that `tensorboard --logdir` reads.

    Each column is a group and each layer a curve in it: `update_ratio/layer1.0.conv1`. Needs the
    extra 'tensorboard'.
    """

    def __init__(self, folder: Path | str) -> None:
        module = import_extra("torch.utils.tensorboard", extra="tensorboard")
        self._writer = module.SummaryWriter(log_dir=str(folder))

    def write(self, step: int, profile: Profile, *, loss: float | None = None) -> None:
        """Add the numbers of one step; what a layer does not have is left out."""
        if loss is not None:
            self._writer.add_scalar("loss", loss, step)
        for column, row in profile.values.items():
            for layer, value in zip(profile.layers, row, strict=True):
                if not math.isnan(value):
                    self._writer.add_scalar(f"{column}/{layer}", value, step)

    def close(self) -> None:
        """Bring everything to the disk."""
        self._writer.close()
