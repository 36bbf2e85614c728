"""What defines a model: the Architecture a user asks for, and the Blueprint with nothing left open.

Every choice is free: depth, width, norm, activation, initialisation, the residual path and where
its activation sits. A choice left at None is the family's own default. A choice that the family
cannot honour is an error that names it; nothing is ignored.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any, get_type_hints

from leadline.core.config import check, in_range, read_text
from leadline.core.names import did_you_mean
from leadline.nn.activations import ActivationName
from leadline.nn.initialisation import InitName
from leadline.nn.norms import NormName

_NAMED = re.compile(r"[a-z_]+=.")


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
    dropout: float | None = None
    """probability to zero a feature before the head; in the MLP after every hidden layer"""
    drop_path_rate: float | None = None
    """probability to leave out the last residual branch in training; earlier ones less"""
    options: tuple[str, ...] = ()
    """the family's own choices, each as name=value (see leadline list NAME)"""

    def __post_init__(self) -> None:
        check(
            self,
            in_range("depth", self.depth, 1),
            in_range("width", self.width, 1),
            in_range("dropout", self.dropout, 0, 1, open_high=True),
            in_range("drop_path_rate", self.drop_path_rate, 0, 1, open_high=True),
            *(
                f"options: {option!r} is not of the form name=value"
                for option in self.options
                if not _NAMED.match(option)
            ),
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

    `image_size` is the side that the original is trained on. `final_size` is the side of the last
    map (None: no maps); where it is below 1 the images are too small, and `smaller`
    is a choice that lets them be smaller. `fixed` are the choices of
    which there is only the default. `residual_from` is the depth from which the residual path is
    on when nothing is said (None: as the defaults say). `problems` lists what the family itself
    finds wrong with a blueprint.
    """

    caption: str
    build: Callable[[Any, Images], Any]
    defaults: Blueprint
    image_size: int
    final_size: Callable[[Any, int], int] | None = None
    smaller: str = ""
    fixed: frozenset[str] = frozenset()
    residual_from: int | None = None
    problems: Callable[[Any], list[str]] = lambda blueprint: []


def depth_problems(kind: str, depth: int, allowed: Iterable[int]) -> list[str]:
    """What is wrong with a depth of which a family has a few alone; it names the nearest.

    >>> depth_problems("a VGG", 15, (11, 13, 16, 19))
    ['depth: a VGG has 11, 13, 16, 19 layers, received 15; the nearest is 16']
    >>> depth_problems("a VGG", 16, (11, 13, 16, 19))
    []
    """
    depths = sorted(allowed)
    if depth in depths:
        return []
    nearest = min(reversed(depths), key=lambda other: abs(other - depth))
    return [
        f"depth: {kind} has {', '.join(map(str, depths))} layers, received {depth}; "
        f"the nearest is {nearest}"
    ]


def fill_in(architecture: Architecture, *, family: Family) -> Blueprint:
    """Make the choices that `architecture` leaves open; ConfigError lists what does not go."""
    asked = {
        field.name: getattr(architecture, field.name)
        for field in dataclasses.fields(architecture)
        if field.name not in ("model", "options") and getattr(architecture, field.name) is not None
    }
    own, problems = _own_choices(architecture, family)
    check(architecture, *problems)
    blueprint = dataclasses.replace(family.defaults, **asked, **own)
    if architecture.residual is None and family.residual_from is not None:
        blueprint = dataclasses.replace(blueprint, residual=blueprint.depth >= family.residual_from)
    if blueprint.fixup and architecture.norm is None and "norm" not in family.fixed:
        blueprint = dataclasses.replace(blueprint, norm="none")
    problems = [
        f"{name}: {architecture.model} has {getattr(family.defaults, name)!r} alone, received "
        f"{getattr(blueprint, name)!r}; leave it out"
        for name in sorted(family.fixed)
        if getattr(blueprint, name) != getattr(family.defaults, name)
    ]
    check(architecture, *_shared_problems(blueprint), *family.problems(blueprint), *problems)
    return blueprint


def own_choices(family: Family) -> dict[str, Any]:
    """The choices that only this family has, with their defaults."""
    shared = {field.name for field in dataclasses.fields(Blueprint)}
    return {
        field.name: getattr(family.defaults, field.name)
        for field in dataclasses.fields(family.defaults)
        if field.name not in shared
    }


def _own_choices(architecture: Architecture, family: Family) -> tuple[dict[str, Any], list[str]]:
    """What `options` says of the family's own choices, and what is wrong with that."""
    hints = get_type_hints(type(family.defaults))
    known = own_choices(family)
    chosen: dict[str, Any] = {}
    problems: list[str] = []
    for option in architecture.options:
        name, _, text = option.partition("=")
        if name not in known:
            which = ", ".join(known) or "none"
            problems.append(
                f"options: {architecture.model} has no choice {name!r}"
                f"{did_you_mean(name, known)}; its own are: {which}"
            )
            continue
        chosen[name] = read_text(hints[name], text, place=f"options: {name}", problems=problems)
    return chosen, problems


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
