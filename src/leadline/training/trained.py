"""A trained model as one safetensors file that says how to use it.

`model.safetensors` holds the weights, and in its header, as JSON, everything needed to predict:
the architecture, the class names, the size and the normalisation of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn

from leadline.core.config import check, from_json, in_range, to_json
from leadline.core.errors import ConfigError, CorruptFileError, DataError
from leadline.core.files import write_atomic
from leadline.data.examples import Dataset
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.models.weights import Weights, load_weights, read_safetensors

HEADER = "leadline"
"""The key of the description in the safetensors header."""

LARGEST = 4096
"""Side in pixels of the largest image a model is described for, as in `DataOptions`."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a model takes and what its outputs mean."""

    architecture: Architecture
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        channels, height, width = self.shape
        square = None if height == width else f"shape must be square, received {self.shape}"
        counts = [
            f"{name} must have {channels} entries, one a channel, received {len(values)}"
            for name, values in (("mean", self.mean), ("std", self.std))
            if len(values) != channels
        ]
        check(
            self,
            square,
            *counts,
            in_range("shape[1]", height, 1, LARGEST),
            in_range("len(class_names)", len(self.class_names), 2),
            *(
                in_range(f"mean[{i}]", value, float("-inf"), open_low=True, open_high=True)
                for i, value in enumerate(self.mean)
            ),
            *(
                in_range(f"std[{i}]", value, 0, open_low=True, open_high=True)
                for i, value in enumerate(self.std)
            ),
        )

    @classmethod
    def of(cls, architecture: Architecture, dataset: Dataset) -> Description:
        """The description of a model trained on `dataset`."""
        return cls(
            architecture=architecture,
            shape=dataset.shape,
            mean=dataset.mean,
            std=dataset.std,
            class_names=dataset.class_names,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A model with its description; `probabilities` takes images as they are stored."""

    model: nn.Module
    description: Description

    def probabilities(self, images: Tensor) -> Float[Tensor, "B K"]:
        """Class probabilities of images in memory, stored as those of the training were.

        [B, C, H, W] of the described size: whole numbers 0 to 255, or floats in the training's
        own units (0 to 1 where it had bytes).
        """
        description = self.description
        if images.ndim != 4 or tuple(images.shape[1:]) != description.shape:
            raise DataError(
                expected=f"images of shape [B, {', '.join(map(str, description.shape))}]",
                received=f"shape {list(images.shape)}",
                remedy="resize them to that size; `leadline predict` reads files of any size",
            )
        mean = torch.tensor(description.mean).view(1, -1, 1, 1)
        std = torch.tensor(description.std).view(1, -1, 1, 1)
        scaled = images.float() if images.is_floating_point() else images.float() / 255
        self.model.eval()
        with torch.inference_mode():
            parts = [self.model((part - mean) / std) for part in scaled.split(256)]
        return torch.cat(parts).float().softmax(dim=1)


def save_model(path: Path, model: nn.Module, description: Description) -> None:
    """Write the weights and the description in one file, whole or not at all."""
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    tensors = {name: value.contiguous() for name, value in weights.items()}
    write_atomic(path, save(tensors, metadata={HEADER: to_json(description), "format": "pt"}))


def load_model(path: Path) -> TrainedModel:
    """Read a model written by `save_model`; refuses pickles and files that lie."""
    contents = read_safetensors(path)
    if HEADER not in contents.metadata:
        raise CorruptFileError(
            expected=f"a model written by Leadline in {path}",
            received="a safetensors file without a Leadline description in its header",
            remedy="give the model.safetensors of a run folder",
        )
    description = read_description(path, contents)
    try:
        _refuse_larger(path, description, contents)
        model = _build(description)
    except ConfigError as error:
        raise _lies(path, "; ".join(error.problems)) from error
    except (RuntimeError, OverflowError, RecursionError) as error:
        raise _lies(path, str(error).splitlines()[0]) from error
    load_weights(model, contents.tensors)
    return TrainedModel(model=model.eval(), description=description)


def read_description(path: Path, contents: Weights) -> Description:
    """What the header of a model file says; CorruptFileError where it cannot be meant."""
    try:
        return from_json(Description, contents.metadata[HEADER], source=str(path))
    except ConfigError as error:
        raise _lies(path, "; ".join(error.problems)) from error
    except (OverflowError, RecursionError) as error:
        raise _lies(path, str(error).splitlines()[0]) from error


def _build(description: Description) -> nn.Module:
    channels, size, _ = description.shape
    return create_model(
        description.architecture,
        num_classes=len(description.class_names),
        in_chans=channels,
        image_size=size,
    )


def _refuse_larger(path: Path, description: Description, contents: Weights) -> None:
    """Before memory is taken for it: a header may ask for more weights than the file holds."""
    with torch.device("meta"):
        asked = sum(value.numel() for value in _build(description).state_dict().values())
    held = sum(value.numel() for value in contents.tensors.values())
    if asked > held:
        raise _lies(path, f"a model of {asked:,} numbers, where the file holds {held:,}")


def _lies(path: Path, problem: str) -> CorruptFileError:
    return CorruptFileError(
        expected=f"a description in the header of {path} that fits its weights",
        received=problem,
        remedy="copy the file anew from the run that made it; the header was altered",
    )
