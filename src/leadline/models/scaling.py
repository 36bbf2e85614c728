"""Depth against width: the width at which a model of some depth has as many parameters as asked.

For a given budget a network can be deep and narrow or shallow and wide. Every family counts both in
its own unit, and parameters grow with the width in all of them, so the width for a budget is found
by bisection, on the meta device, where a network costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from leadline.core.config import check, in_range
from leadline.core.errors import ConfigError, ModelError
from leadline.models.architecture import Architecture, own_choices
from leadline.models.create import FAMILIES, create_model, resolve
from leadline.models.image_model import ImageModel

WIDEST = 1 << 14  # units of width up to which is looked
SMALL = 96  # pixels a side below which patches are made smaller
PATCHES = 8  # a side, on small images

Cost = Callable[[ImageModel], float]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A width for a budget: the architecture, what it costs, and what was asked."""

    architecture: Architecture
    width: int
    cost: float
    asked: float

    @property
    def share(self) -> float:
        """What it costs in units of what was asked."""
        return self.cost / self.asked


def fit_width(
    architecture: Architecture,
    *,
    num_classes: int,
    in_chans: int,
    image_size: int,
    parameters: float,
    cost: Cost | None = None,
) -> Fit:
    """The largest width whose model costs at most `parameters`, or another `cost` of a model.

    Raises ModelError where even the narrowest costs more, and what `create_model` raises.

    >>> fit = fit_width(
    ...     Architecture(model="mlp"), num_classes=10, in_chans=1, image_size=8, parameters=1e4
    ... )
    >>> fit.width, fit.cost
    (68, 9938)
    """
    check(architecture, in_range("parameters", parameters, 1))
    measure = count_parameters if cost is None else cost

    @functools.cache
    def of(width: int) -> float:
        with torch.device("meta"):
            model = create_model(
                architecture,
                num_classes=num_classes,
                in_chans=in_chans,
                image_size=image_size,
                width=width,
            )
        return measure(model)

    step = _step(architecture)
    if of(step) > parameters:
        raise ModelError(
            expected=f"a {architecture.model} that costs at most {parameters:,.0f}",
            received=f"{of(step):,.0f} at its narrowest, width {step}",
            remedy="allow more, or take a family that can be smaller, such as convnet",
        )
    low, high = 1, 2
    while high * step < WIDEST and of(high * step) <= parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if of(middle * step) <= parameters else (low, middle)
    width = low * step
    return Fit(architecture=architecture, width=width, cost=of(width), asked=parameters)


def count_parameters(model: ImageModel) -> int:
    """How many numbers are learned.

    >>> count_parameters(create_model("convnet", num_classes=10, width=1, image_size=8))
    394
    """
    return sum(parameter.numel() for parameter in model.parameters())


def for_small_images(name: str, *, image_size: int) -> tuple[str, ...]:
    """The options with which a family made for large images reads small ones.

    >>> for_small_images("vit_ti_16", image_size=32), for_small_images("resnet20", image_size=32)
    (('patch_size=4',), ())
    """
    own = own_choices(FAMILIES[name])
    options = []
    if "patch_size" in own and image_size < SMALL:
        options.append(f"patch_size={max(2, image_size // PATCHES)}")
    if "aux_logits" in own:
        options.append("aux_logits=False")
    return tuple(options)


def depths(name: str, *, factors: tuple[float, ...] = (0.5, 1.0, 2.0)) -> tuple[int, ...]:
    """Depths that the model can have, near the factors of its own.

    >>> depths("resnet20"), depths("vgg16")
    ((8, 20, 38), (11, 16, 19))
    """
    usual = resolve(name).depth
    found = []
    for factor in factors:
        wanted = max(1, round(usual * factor))
        near = sorted(range(1, 2 * wanted + 20), key=lambda depth: (abs(depth - wanted), depth))
        allowed = (depth for depth in near if _can_be(name, depth))
        found.append(next(allowed, usual))
    return tuple(sorted(set(found)))


def _can_be(name: str, depth: int) -> bool:
    try:
        resolve(Architecture(model=name, depth=depth))
    except ConfigError:
        return False
    return True


def _step(architecture: Architecture) -> int:
    """The smallest change of the width that the family allows: heads have to divide it."""
    own = own_choices(FAMILIES[architecture.model])
    return 4 if "heads" in own else 1
