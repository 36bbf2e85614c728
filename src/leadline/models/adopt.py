"""From a stranger's file of weights to a model of ours with them: shapes say what is not said.

The number of classes is that of the head, the number of channels that of the first kernel, the
image size that of the positions or the mixed tokens, else the family's own; auxiliary heads are
left out where the file has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.errors import ModelError, UnsafeFileError
from leadline.core.names import look_up
from leadline.models.architecture import Architecture, own_choices
from leadline.models.create import FAMILIES, create_model, resolve
from leadline.models.foreign import key_tables, translate
from leadline.models.image_model import ImageModel
from leadline.models.recognise import recognise
from leadline.models.unpickle import read_checkpoint
from leadline.models.weights import load_weights, read_safetensors, strip_prefix


@dataclass(frozen=True, kw_only=True, eq=False)
class Adopted:
    """A model with the weights of a file, and what was found out on the way."""

    model: ImageModel
    architecture: Architecture
    num_classes: int
    in_chans: int
    image_size: int


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a file of torch.save read in a limited process."""
    try:
        return read_safetensors(path).tensors
    except UnsafeFileError:
        return read_checkpoint(path)


def adopt(state: Mapping[str, Tensor], name: str, *, options: tuple[str, ...] = ()) -> Adopted:
    """The model called `name` with these weights, whosever names they have.

    `options` are the family's own choices. Raises UnknownNameError for an unknown model, and
    ModelError where the weights are of another: it says which keys and shapes differ, and names
    the model that they are likest to.

    >>> from leadline.models.create import create_model
    >>> state = create_model("resnet20", num_classes=7, in_chans=1).state_dict()
    >>> adopted = adopt(state, "resnet20")
    >>> adopted.num_classes, adopted.in_chans, adopted.image_size
    (7, 1, 32)
    """
    family = look_up(name, FAMILIES, kind="model")
    state = strip_prefix(state)
    if "aux_logits" in own_choices(family) and not any("aux" in key.lower() for key in state):
        options = (*options, "aux_logits=False")
    architecture = Architecture(model=name, options=options)
    with torch.device("meta"):
        model = create_model(architecture)
    tables = key_tables(name, resolve(architecture))
    named = translate(_on_meta(state), model.state_dict(), tables)
    num_classes, in_chans = _num_classes(model, named), _in_chans(model, named)
    image_size = _image_size(model, named, family.image_size)
    try:
        built = create_model(
            architecture, num_classes=num_classes, in_chans=in_chans, image_size=image_size
        )
        load_weights(built, translate(state, built.state_dict(), tables))
    except ModelError as error:
        raise _of_another(error, name, state) from error
    return Adopted(
        model=built,
        architecture=architecture,
        num_classes=num_classes,
        in_chans=in_chans,
        image_size=image_size,
    )


def _of_another(error: ModelError, name: str, state: Mapping[str, Tensor]) -> ModelError:
    found = [likeness for likeness in recognise(state) if likeness.name != name]
    if found:
        remedy = (
            f"they look like those of {', or '.join(map(str, found[:2]))}: --as {found[0].name}"
        )
    else:
        remedy = "they are like those of no model here; see leadline list for what there is"
    return ModelError(expected=f"weights of {name}", received=error.received, remedy=f"{remedy}")


def _on_meta(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same shapes without numbers, so that renaming and joining cost nothing."""
    return {key: torch.empty_like(value, device="meta") for key, value in state.items()}


def _num_classes(model: ImageModel, state: Mapping[str, Tensor]) -> int:
    head = state.get(f"{model.heads[0]}.weight")
    return head.shape[0] if head is not None and head.ndim == 2 else model.num_classes


def _in_chans(model: ImageModel, state: Mapping[str, Tensor]) -> int:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            kernel = state.get(f"{name}.weight")
            return kernel.shape[1] if kernel is not None and kernel.ndim == 4 else model.in_chans
    return model.in_chans


def _image_size(model: Any, state: Mapping[str, Tensor], usual: int) -> int:
    """Pixels a side, where the weights say it: a position, or a mixing weight, for each patch."""
    patches = None
    if "pos_embed" in state and hasattr(model, "patch_embed"):
        patches = state["pos_embed"].shape[1] - model.others
        patch_size = model.patch_embed.patch_size
    elif "blocks.0.mlp_tokens.fc1.weight" in state and hasattr(model, "stem"):
        patches = state["blocks.0.mlp_tokens.fc1.weight"].shape[1]
        patch_size = model.stem.patch_size
    if patches is None:
        return usual
    side = round(max(0, patches) ** 0.5)
    return side * int(patch_size) if side and side**2 == patches else usual
