"""Expectations of an activation over Gaussian inputs, to ten digits, kinks included.

    E[f(sqrt(q) z)],  z ~ N(0, 1)                      one unit
    E[f(u) f(v)],  u, v ~ N(0, q) with correlation c   the same unit for two inputs

Everything the mean-field theory of deep networks says is made of these two integrals. Gauss and
Hermite's nodes, the usual choice, converge slowly for ReLU, whose kink they step over. Here the
line is split at 0 and the plane, in polar coordinates, along the rays on which u or v is 0: on
each piece an activation with its kink at 0 is smooth, and Gauss and Legendre's nodes are exact to
rounding. The pieces shrink geometrically towards 0, so that a saturating unit with inputs a
thousand times its width is resolved too. An activation with kinks elsewhere (ReLU6) keeps some
four digits.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Function = Callable[[Tensor], Tensor]
"""Takes and returns a tensor of any shape, entry by entry."""

FARTHEST = 13.0  # standard deviations; the density beyond is below 1e-36
NODES = 16  # per piece


def gaussian_mean(
    function: Function, variance: float | Float[Tensor, "Q"] = 1.0
) -> Float[Tensor, "..."]:
    """E[f(sqrt(q) z)] for z ~ N(0, 1) in float64: a number for one variance q, [Q] for a vector.

    Exact to 1e-10 where f is smooth but for a kink at 0; a kink elsewhere (ReLU6's) leaves 1e-3.

    >>> round(float(gaussian_mean(torch.relu, 4.0)) * math.sqrt(2 * math.pi), 10)
    2.0
    """
    places, weights = _line()
    root = torch.as_tensor(variance, dtype=torch.float64).sqrt()
    return function(root[..., None] * places) @ weights


def gaussian_pair_mean(function: Function, *, variance: float, correlation: float) -> float:
    """E[f(u) f(v)] for u, v ~ N(0, q) whose correlation is c, from -1 to 1.

    >>> round(gaussian_pair_mean(lambda u: u, variance=2.0, correlation=0.3), 10)
    0.6
    >>> round(gaussian_pair_mean(torch.relu, variance=1.0, correlation=0.0) * 2 * math.pi, 10)
    1.0
    """
    angle = math.acos(max(-1.0, min(1.0, correlation)))
    turns, turn_weights = _circle(angle)
    radii, radius_weights = _radius()
    size = math.sqrt(variance) * radii[:, None]
    first = function(size * torch.cos(turns))
    second = function(size * torch.cos(turns - angle))
    return float(radius_weights @ (first * second) @ turn_weights)


def derivative(function: Function) -> Function:
    """The derivative of an activation, by automatic differentiation.

    >>> derivative(torch.tanh)(torch.zeros(1, dtype=torch.float64)).item()
    1.0
    """

    def slope(places: Tensor) -> Tensor:
        with torch.enable_grad():
            free = places.detach().requires_grad_()
            values = function(free)
            if not values.requires_grad:  # a constant
                return torch.zeros_like(places)
            return torch.autograd.grad(values.sum(), free)[0]

    return slope


@functools.cache
def _legendre() -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]."""
    places, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy((places + 1) / 2), torch.from_numpy(weights / 2)


def _pieces(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on each interval between neighbouring edges."""
    places, weights = _legendre()
    width = edges.diff()[:, None]
    return (edges[:-1, None] + width * places).flatten(), (width * weights).flatten()


def _shrinking(largest: float, *, count: int, factor: float) -> Tensor:
    """0, then edges up to `largest` that grow by `factor`."""
    powers = torch.arange(count - 1, -1, -1, dtype=torch.float64)
    return torch.cat([torch.zeros(1, dtype=torch.float64), largest * factor**-powers])


@functools.cache
def _line() -> tuple[Tensor, Tensor]:
    places, weights = _pieces(_shrinking(FARTHEST, count=14, factor=2.0))
    density = torch.exp(-places.square() / 2) / math.sqrt(2 * math.pi)
    return torch.cat([-places, places]), torch.cat([weights * density] * 2)


@functools.cache
def _radius() -> tuple[Tensor, Tensor]:
    places, weights = _pieces(_shrinking(FARTHEST, count=6, factor=2.0))
    return places, weights * places * torch.exp(-places.square() / 2)


def _circle(angle: float) -> tuple[Tensor, Tensor]:
    """Nodes on [0, 2 pi], fine towards the four rays on which cos t or cos(t - angle) is 0."""
    half = math.pi / 2
    rays = [-half, angle - half, half, angle + half, 3 * half]
    fine = _shrinking(0.5, count=3, factor=6.0)
    edges = torch.cat([fine, (1 - fine[:-1]).flip(0)])
    sectors = [_pieces(low + (high - low) * edges) for low, high in itertools.pairwise(rays)]
    turns = torch.cat([places for places, _ in sectors])
    return turns, torch.cat([weights for _, weights in sectors]) / (2 * math.pi)
