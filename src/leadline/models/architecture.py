"""What defines a model: the Architecture a user asks for, and the Blueprint with nothing left open.

Every choice is free: depth, width, norm, activation, initialisation, the residual path and where
its activation sits. A choice left at None is the family's own default. A choice that the family
cannot honour is an error that names it; nothing is ignored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn

from leadline.core.config import check, in_range
from leadline.core.errors import ModelError
from leadline.nn.activations import ActivationName
from leadline.nn.initialisation import InitName
from leadline.nn.norms import NormName


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model's name and the choices made for it; None leaves a choice to the family.

    Raises ConfigError with every value that is out of range.

    >>> Architecture(model="resnet20", norm="group").norm
    'group'
    """

    model: str = "convnet"
    """its name: mlp, convnet, resnet20 … (see leadline list)"""
    depth: int | None = None
    """how deep, in the model's own unit (see leadline list)"""
    width: int | None = None
    """how wide, in the model's own unit (see leadline list)"""
    norm: NormName | None = None
    """normalisation; 'none' is a network without"""
    activation: ActivationName | None = None
    """the nonlinearity"""
    init: InitName | None = None
    """how the weights begin; 'default' is torch's own"""
    residual: bool | None = None
    """whether paths lead around the layers"""
    preactivation: bool | None = None
    """whether norm and activation come before the weights (ResNet v2)"""
    dropout: float = 0.0
    """probability to zero a feature before the head; in the MLP after every hidden layer"""
    drop_path_rate: float = 0.0
    """probability to leave out the last residual branch in training; earlier ones less"""

    def __post_init__(self) -> None:
        check(
            self,
            in_range("depth", self.depth, 1),
            in_range("width", self.width, 1),
            in_range("dropout", self.dropout, 0, 1, open_high=True),
            in_range("drop_path_rate", self.drop_path_rate, 0, 1, open_high=True),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """The shape of the data: how many classes, how many channels, the side of the square image."""

    num_classes: int
    in_chans: int
    image_size: int

    def __post_init__(self) -> None:
        check(
            self,
            in_range("num_classes", self.num_classes, 1),
            in_range("in_chans", self.in_chans, 1),
            in_range("image_size", self.image_size, 1),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blueprint:
    """An Architecture with every choice made: what the families' classes are built from."""

    depth: int
    width: int
    norm: NormName
    activation: ActivationName
    init: InitName
    residual: bool
    preactivation: bool = False
    dropout: float = 0.0
    drop_path_rate: float = 0.0

    @property
    def bias(self) -> bool:
        """Whether layers carry a bias of their own: only where no norm's shift does its work."""
        return self.norm == "none"

    @property
    def fixup(self) -> bool:
        return self.init == "fixup"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One entry of the list of models: its caption, its class and what it can be asked for.

    `residual_from` is the depth from which the residual path is on when nothing is said (None for
    never), `preactivation` whether there is such a form. `problems` lists what the family itself
    finds wrong with a blueprint. `final_size` is the side of the last map (None: no maps).
    """

    caption: str
    build: Callable[[Blueprint, Images], nn.Module]
    defaults: Blueprint
    problems: Callable[[Blueprint], list[str]]
    final_size: Callable[[Images], int] | None
    residual_from: int | None
    preactivation: bool


def fill_in(architecture: Architecture, *, family: Family) -> Blueprint:
    """Make the choices that `architecture` leaves open; ConfigError lists what does not go."""
    asked = {
        field.name: getattr(architecture, field.name)
        for field in dataclasses.fields(architecture)
        if field.name != "model" and getattr(architecture, field.name) is not None
    }
    blueprint = dataclasses.replace(family.defaults, **asked)
    if architecture.residual is None:
        on = family.residual_from is not None and blueprint.depth >= family.residual_from
        blueprint = dataclasses.replace(blueprint, residual=on)
    if blueprint.fixup and architecture.norm is None:
        blueprint = dataclasses.replace(blueprint, norm="none")
    problems = [*_shared_problems(blueprint), *family.problems(blueprint)]
    if blueprint.preactivation and not family.preactivation:
        problems.append(
            f"preactivation: {architecture.model} has no pre-activation form; leave it out"
        )
    check(architecture, *problems)
    return blueprint


def _shared_problems(blueprint: Blueprint) -> list[str]:
    problems = []
    if not blueprint.residual:
        why = "needs a residual path, and this model has none: add residual=True"
        if blueprint.init in ("fixup", "zero_last"):
            problems.append(f"init: {blueprint.init!r} {why}, or use init='he'")
        if blueprint.drop_path_rate > 0:
            problems.append(f"drop_path_rate: {blueprint.drop_path_rate} {why}, or set it to 0")
    if blueprint.fixup and blueprint.norm != "none":
        problems.append(
            f"init: 'fixup' takes the place of a norm, received norm={blueprint.norm!r}: "
            "use norm='none', or init='zero_last'"
        )
    return problems


def check_images(images: Tensor, *, in_chans: int) -> None:
    """Raise ModelError unless `images` is a batch of float maps with `in_chans` channels."""
    if not images.is_floating_point():
        raise ModelError(
            expected="images of a floating-point type, normalised",
            received=f"{images.dtype}",
            remedy="convert them with images.float() / 255 and normalise them as in training",
        )
    if images.ndim != 4 or images.shape[1] != in_chans:
        raise ModelError(
            expected=f"images of shape (batch, {in_chans}, height, width)",
            received=f"shape {tuple(images.shape)}",
            remedy=f"convert the images to {in_chans} channels, or build the model with "
            "in_chans as the data have it",
        )
