"""Models by name: the list of all, their captions, and one function that builds any of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from leadline.core.errors import ConfigError, ModelError
from leadline.core.names import did_you_mean, look_up
from leadline.models import (
    alexnet,
    convnet,
    convnext,
    densenet,
    efficientnet,
    googlenet,
    inception_v3,
    mlp,
    mlp_mixer,
    mobilenet_v2,
    resnet_cifar,
    resnet_imagenet,
    vgg,
    vit,
)
from leadline.models.architecture import (
    Architecture,
    Blueprint,
    Family,
    Images,
    fill_in,
    own_choices,
)
from leadline.models.image_model import ImageModel
from leadline.models.pretrained import load_pretrained
from leadline.nn.initialisation import initialise

FAMILIES: dict[str, Family] = {
    **mlp.MODELS,
    **convnet.MODELS,
    **alexnet.MODELS,
    **vgg.MODELS,
    **googlenet.MODELS,
    **inception_v3.MODELS,
    **resnet_cifar.MODELS,
    **resnet_imagenet.MODELS,
    **densenet.MODELS,
    **mobilenet_v2.MODELS,
    **efficientnet.MODELS,
    **convnext.MODELS,
    **vit.MODELS,
    **mlp_mixer.MODELS,
}
"""Every model by its name."""

LARGEST = 1024
"""Pixels: the side up to which a smallest picture is looked for."""


def create_model(
    architecture: Architecture | str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    image_size: int | None = None,
    pretrained: Path | str | Mapping[str, Tensor] | None = None,
    **choices: Any,
) -> ImageModel:
    """Build and initialise a model; its weights follow from the global random state alone.

    It maps images (batch, `in_chans`, height, width) to logits (batch, `num_classes`).
    `image_size` is the side of the square images, that of the original unless given; an MLP
    accepts no other, the convolutional families accept any. `choices` are those of Architecture
    and the family's own (see leadline list NAME). `pretrained` is a safetensors file or a state
    dict that fits key by key; the head of another number of classes is left out, and the first
    layer adapted to another number of channels.

    Raises UnknownNameError for an unknown model, ConfigError with every choice that the family
    cannot honour, ModelError where the images are too small for the choices or weights do not fit.

    >>> model = create_model("resnet20", num_classes=10, width=8)
    >>> sum(parameter.numel() for parameter in model.parameters())
    68050
    """
    architecture = _with_choices(architecture, choices)
    family = look_up(architecture.model, FAMILIES, kind="model")
    blueprint = fill_in(architecture, family=family)
    images = Images(
        num_classes=num_classes,
        in_chans=in_chans,
        image_size=family.image_size if image_size is None else image_size,
    )
    smallest = _smallest(architecture.model, family=family, blueprint=blueprint, images=images)
    model: ImageModel = family.build(blueprint, images)
    model.smallest = smallest
    initialise(model, scheme=blueprint.init, activation=blueprint.activation)
    if pretrained is not None:
        load_pretrained(model, pretrained)
    return model


def resolve(architecture: Architecture | str) -> Blueprint:
    """The choices with which `architecture` will be built; raises what `create_model` would.

    >>> resolve("resnet56").depth
    56
    """
    if isinstance(architecture, str):
        architecture = Architecture(model=architecture)
    return fill_in(architecture, family=look_up(architecture.model, FAMILIES, kind="model"))


def list_models() -> tuple[str, ...]:
    """The names of all models, each family from its smallest to its largest."""
    return tuple(FAMILIES)


def describe_model(name: str) -> str:
    """One line on the model called `name`, with the units of its depth and width.

    >>> describe_model("mlp")
    'multilayer perceptron: depth = hidden layers, width = units in each'
    """
    return look_up(name, FAMILIES, kind="model").caption


def _with_choices(architecture: Architecture | str, choices: dict[str, Any]) -> Architecture:
    """The architecture with the choices of a call: the shared ones, and the family's own."""
    if isinstance(architecture, str):
        architecture = Architecture(model=architecture)
    if not choices:
        return architecture
    shared = {field.name for field in dataclasses.fields(Architecture)}
    own = own_choices(look_up(architecture.model, FAMILIES, kind="model"))
    unknown = [name for name in choices if name not in shared and name not in own]
    if unknown:
        known = sorted({*shared, *own} - {"model", "options"})
        raise ConfigError(
            expected=f"choices of {architecture.model}: {', '.join(known)}",
            received=", ".join(f"{name!r}{did_you_mean(name, known)}" for name in unknown),
            remedy=f"leave it out, or see leadline list {architecture.model}",
        )
    options = tuple(f"{name}={_text(choices[name])}" for name in choices if name in own)
    changed: dict[str, Any] = {name: choices[name] for name in choices if name in shared}
    if options:
        changed["options"] = (*architecture.options, *options)
    return dataclasses.replace(architecture, **changed)


def _text(value: Any) -> str:
    """A choice as a word of the command line.

    >>> _text((3, 4)), _text(True)
    ('3,4', 'True')
    """
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _smallest(name: str, *, family: Family, blueprint: Blueprint, images: Images) -> int:
    """The smallest side of a picture; ModelError where the images of the data are smaller."""
    size_of = family.final_size
    if size_of is None:
        return 1
    needed = 2 if blueprint.norm == "instance" else 1
    fitting = (side for side in range(1, LARGEST) if size_of(blueprint, side) >= needed)
    smallest = next(fitting, LARGEST)
    if images.image_size >= smallest:
        return smallest
    choice = ", choose another norm" * (needed == 2)
    choice += f", say {family.smaller}" if family.smaller else ""
    left = "maps larger than one pixel, over which instance norm can average" * (needed == 2)
    raise ModelError(
        expected=f"{left or 'at least one pixel left of the image behind the last layer'}, in "
        f"{name}: images of at least {smallest} x {smallest} pixels",
        received=f"images of {images.image_size} x {images.image_size} pixels",
        remedy=f"enlarge them (image_size={smallest} or more)"
        f"{choice}, or take convnet, which halves them less",
    )
