"""A Setup tells what is wrong with it, all at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError
from leadline.training.setup import Setup


def test_impossible_numbers_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Setup(
            model=lambda: nn.Linear(1, 1),
            batches=[],
            loss=nn.functional.mse_loss,
            optimizer=lambda model: torch.optim.SGD(model.parameters()),
            epochs=0,
            accumulate=0,
            ema_decay=1.0,
        )
    assert len(caught.value.problems) == 3
