"""Where an activation passes no gradient, and where it is linear: its zones.

An activation f is here read by its slope, as a share of the slope it is made for (1 for the ReLU
family, 1/4 for the sigmoid): *flat* where |f'| is at most 5 % of it, *dead* at most 0.1 %, *linear*
within 5 % of it. Every common activation has its flat zone on one side of a value or on both sides
of a centre, so that two comparisons place an entry. The edges below are the solutions of
f'(x) = share; most are stated for the output y, from which the slope follows (tanh: 1 - y^2), so
that an activation in place, which has overwritten its input, is read all the same. GELU, SiLU,
Mish and Hardswish are not monotone and are read from their input; the bottom of their dip, where
the slope passes through 0 without staying there, is no zone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

FLAT_SHARE = 0.05  # of the slope the activation is made for
DEAD_SHARE = 0.001


@dataclass(frozen=True, kw_only=True)
class Zones:
    """The zones of one activation.

    Without a `centre`, a value is flat at or below `flat`, dead at or below `dead`, linear above
    `linear`. With one, the same holds of the distance from it, the other way round: flat from
    `flat` on, dead from `dead` on, linear below `linear`.
    """

    flat: float
    dead: float
    linear: float
    centre: float | None = None
    of_input: bool = False  # the edges are stated for the input, not for the output
    rests_at_zero: bool = False  # flat means off: the output there is 0
    leaks: bool = False  # below the edge of `linear` it is linear as well, with another slope
    ceiling: float = math.inf  # flat from here on too, at an output that is not 0
    rest: float = 0.0  # the output at the edge `dead`, where the edges are of the input


_FLAT, _DEAD = FLAT_SHARE, DEAD_SHARE
_RECTIFIER = Zones(flat=0.0, dead=0.0, linear=0.0, rests_at_zero=True)
_LEAKY = Zones(flat=-math.inf, dead=-math.inf, linear=0.0, leaks=True)
# Solved from f'(x) = share in 64-bit arithmetic. GELU's and SiLU's slopes add up to 1 at x and -x.
_GELU = Zones(
    flat=-2.348, dead=-3.81, linear=2.348, of_input=True, rests_at_zero=True, rest=-2.65e-4
)
_SILU = Zones(
    flat=-4.082, dead=-8.985, linear=4.082, of_input=True, rests_at_zero=True, rest=-1.13e-3
)
_MISH = Zones(
    flat=-4.111, dead=-8.985, linear=2.332, of_input=True, rests_at_zero=True, rest=-1.13e-3
)
_QUICK = 1.702  # x sigmoid(1.702 x)

_FIXED: dict[str, Zones] = {
    "relu": _RECTIFIER,
    "relu6": Zones(flat=0.0, dead=0.0, linear=0.0, rests_at_zero=True, ceiling=6.0),
    "squaredrelu": Zones(flat=0.0, dead=0.0, linear=math.inf, rests_at_zero=True),
    "leakyrelu": _LEAKY,
    "prelu": _LEAKY,
    "rrelu": _LEAKY,
    # y = s a (exp(x) - 1) below 0 and s x above: the slope y + s a against s
    "selu": Zones(
        flat=1.0507010 * _FLAT - 1.7580993, dead=1.0507010 * _DEAD - 1.7580993, linear=0.0
    ),
    "gelu": _GELU,
    "quickgelu": Zones(
        flat=_SILU.flat / _QUICK,
        dead=_SILU.dead / _QUICK,
        linear=_SILU.linear / _QUICK,
        of_input=True,
        rests_at_zero=True,
        rest=_SILU.rest / _QUICK,
    ),
    "silu": _SILU,
    "mish": _MISH,
    "hardswish": Zones(flat=-3.0, dead=-3.0, linear=3.0, of_input=True, rests_at_zero=True),
    # slope y (1 - y) against 1/4
    "sigmoid": Zones(
        centre=0.5,
        flat=math.sqrt(1 - _FLAT) / 2,
        dead=math.sqrt(1 - _DEAD) / 2,
        linear=math.sqrt(_FLAT) / 2,
    ),
    # slope 1 - y^2
    "tanh": Zones(
        centre=0.0, flat=math.sqrt(1 - _FLAT), dead=math.sqrt(1 - _DEAD), linear=math.sqrt(_FLAT)
    ),
    # slope (1 - |y|)^2
    "softsign": Zones(
        centre=0.0,
        flat=1 - math.sqrt(_FLAT),
        dead=1 - math.sqrt(_DEAD),
        linear=1 - math.sqrt(1 - _FLAT),
    ),
    "hardsigmoid": Zones(centre=0.5, flat=0.5, dead=0.5, linear=0.5),
}

_OTHER_NAMES = {
    "newgelu": "gelu",
    "fastgelu": "gelu",
    "gelutanh": "gelu",
    "pytorchgelutanh": "gelu",
    "accurategelu": "gelu",
    "gelupython": "gelu",
    "swish": "silu",
    "hardswishme": "hardswish",
    "swishme": "silu",
    "mishme": "mish",
    "relusquared": "squaredrelu",
    "relu2": "squaredrelu",
    "hardtanh": "hardtanh",
}


def zones_of_module(module: nn.Module) -> Zones | None:
    """The zones of an activation module, by its class and its parameters; None if it is none.

    Activations of other libraries are known by the name of their class (`NewGELUActivation`).

    >>> zones_of_module(nn.ReLU6()).ceiling, zones_of_module(nn.Linear(1, 1))
    (6.0, None)
    """
    for kind in type(module).__mro__:
        zones = _named(kind.__name__, _parameters(module))
        if zones is not None:
            return zones
    return None


def zones_of_function(function: str, inputs: tuple[Any, ...]) -> Zones | None:
    """The zones of a function of torch that is an activation, from its name and arguments."""
    bounds = [value for value in inputs[1:3] if isinstance(value, int | float)]
    given = {"lowest": bounds[0], "highest": bounds[1]} if len(bounds) == 2 else {}
    return _named(function, given)


def _parameters(module: nn.Module) -> dict[str, float]:
    names = {"min_val": "lowest", "max_val": "highest", "alpha": "alpha", "beta": "beta"}
    found = {new: getattr(module, old, None) for old, new in names.items()}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _named(name: str, parameters: dict[str, float]) -> Zones | None:
    name = name.lower().replace("_", "").removesuffix("activation")
    name = _OTHER_NAMES.get(name, name)
    if name in _FIXED:
        return _FIXED[name]
    if name == "hardtanh":
        lowest, highest = parameters.get("lowest", -1.0), parameters.get("highest", 1.0)
        centre = (lowest + highest) / 2
        half = (highest - centre) * (1 - 1e-6)  # less the rounding of the distance, in 32 bits
        return Zones(centre=centre, flat=half, dead=half, linear=half)
    if name in ("elu", "celu"):  # slope y + alpha below 0; celu's is y / alpha + 1
        alpha = parameters.get("alpha", 1.0)
        unit = alpha if name == "celu" else 1.0
        smooth = abs(alpha / unit - 1) <= _FLAT  # else the slope jumps at 0
        return Zones(
            flat=unit * _FLAT - alpha,
            dead=unit * _DEAD - alpha,
            linear=unit * (1 - _FLAT) - alpha if smooth else 0.0,
        )
    if name == "softplus":  # slope 1 - exp(-beta y)
        beta = parameters.get("beta", 1.0)
        return Zones(
            flat=-math.log(1 - _FLAT) / beta,
            dead=-math.log(1 - _DEAD) / beta,
            linear=-math.log(_FLAT) / beta,
            rests_at_zero=True,
        )
    return None
