"""Transfer: a training begins from what another one learned.

The weights come from a run, its model.safetensors, or a file of `leadline import`; the network is
then the one that they were trained in. The head is taken over only where the file names the same
classes as the data have: a head of as many other classes would be wrong with confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from leadline.core.errors import FileError, ModelError
from leadline.models.architecture import Architecture
from leadline.models.image_model import ImageModel
from leadline.models.pretrained import Taken, load_pretrained
from leadline.models.weights import read_safetensors
from leadline.training.trained import HEADER, Description, read_description


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Weights to begin from, with what their file says of them; None where it says nothing."""

    place: str
    tensors: Mapping[str, Tensor]
    description: Description | None

    @property
    def architecture(self) -> Architecture:
        """The network that the weights were trained in; ModelError where the file does not say."""
        if self.description is None:
            raise ModelError(
                expected="a file that says which model its weights are of",
                received=f"{self.place}, a safetensors file without a Leadline description",
                remedy=f"name the model: leadline import {self.place} --as NAME",
            )
        return self.description.architecture

    def load_into(self, model: nn.Module, *, class_names: tuple[str, ...]) -> Taken:
        """Copy the weights into a model for these classes; ModelError where they do not fit."""
        if not isinstance(model, ImageModel):
            raise ModelError(
                expected="a model of Leadline's families to load weights into",
                received=f"a {type(model).__name__}",
                remedy="load its state dict where it is built",
            )
        known = self.description.class_names if self.description else None
        return load_pretrained(model, self.tensors, keep_head=known == class_names)


def read_start(place: str) -> Start:
    """The weights of a run folder or a safetensors file; an error where there are none."""
    path = Path(place)
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            raise FileError(
                expected=f"a finished run in {place}",
                received="a folder without model.safetensors",
                remedy=f"give a run that has ended; end this one: leadline train --resume {place}",
            )
    contents = read_safetensors(path)
    described = read_description(path, contents) if HEADER in contents.metadata else None
    return Start(place=place, tensors=contents.tensors, description=described)
