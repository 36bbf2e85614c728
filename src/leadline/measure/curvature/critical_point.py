"""Critical point: minimum, maximum or saddle, and the way down where there is one.

Where the gradient vanishes, the signs of the Hessian's extreme eigenvalues decide: all positive, a
minimum; all negative, a maximum; both signs, a saddle, whose most negative eigenvector leads down
to both sides. Saddles, not poor minima, are what high losses are made of in many dimensions
(Dauphin et al. 2014, arXiv:1406.2572).

The surprising choice: a fifth answer, 'degenerate'. An eigenvalue of zero leaves the matter to
higher derivatives: the origin of a deep linear network of three layers is a saddle although its
Hessian is zero (Kawaguchi 2016, arXiv:1605.07110), and a network with more parameters than data has
flat directions at every minimum.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.taps import Taps
from leadline.measure.batch import Loss
from leadline.measure.curvature.curvature import CurvatureMatrix, curvature_matrix
from leadline.measure.curvature.lanczos import EigenPairs, Search, eigenpairs

Kind = Literal["minimum", "maximum", "saddle", "degenerate", "not critical", "undecided"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CriticalPoint:
    """What kind of point the parameters are at, with the numbers it was decided by.

    `smallest` and `largest` are the extreme eigenvalues of the Hessian, within `uncertainty` at
    most and as a rule far nearer. `descent` is the unit eigenvector of `smallest` where that is
    negative, else None; the loss falls along it to both sides where the gradient vanishes.
    `profile` tells for each parameter the gradient's norm and the share of `descent`'s squared
    length in it.
    """

    kind: Kind
    loss: float
    gradient_norm: float
    smallest: float
    largest: float
    uncertainty: float
    products: int
    converged: bool
    profile: Profile
    descent: Tensor | None = field(repr=False)


def critical_point(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    gradient_tolerance: float = 1e-3,
    curvature_tolerance: float = 1e-3,
    max_products: int = 300,
    seed: int = 0,
) -> CriticalPoint:
    """Whether the parameters are at a minimum, a maximum, a saddle, or not at a critical point.

    `not critical` while the norm of the gradient is above `gradient_tolerance` (in units of loss
    per unit of parameter; training by mini-batches hardly ever gets there). An eigenvalue counts as
    zero when it is below `curvature_tolerance` times the largest in magnitude. With one of the ends
    zero and none negative the answer is `degenerate`: the second derivative does not decide between
    a flat minimum and a saddle of higher order; so is a Hessian of zeros. The extremes are told for
    every kind. A search that ends before it has converged leaves the kind `undecided`, but for a
    saddle: what it has seen of both signs lies within the spectrum. They are of this batch's loss,
    or of the mean over a list of batches, as for `curvature_matrix`, whose errors apply.

    Cost: 1 forward-backward pass and one product for each step of the search, some 10 to 60.

    How to read: a saddle can be left along `descent`; a loss that stands still where the point is
    `not critical` has another cause, such as a step too small or too large.

    >>> class Saddle(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.point = nn.Parameter(torch.zeros(2))
    ...     def forward(self, signs):
    ...         return (signs * self.point.square()).sum()
    >>> found = critical_point(Saddle(), torch.tensor([1.0, -1.0]), loss=lambda value, _: value)
    >>> found.kind, round(found.smallest, 6), round(found.largest, 6)
    ('saddle', -2.0, 2.0)
    >>> found.descent.abs().round(decimals=6)
    tensor([0., 1.])
    """
    _check(gradient=gradient_tolerance, curvature=curvature_tolerance)
    with Taps(model):
        curvature = curvature_matrix(model, batch, loss=loss)
        value, gradient = curvature.loss_and_gradient()
        plain = _search(curvature.dimension, curvature_tolerance)
        search = replace(plain, max_products=max_products, seed=seed)
        pairs = eigenpairs(curvature.product, _distance_from_middle, search, like=gradient)
    return _judged(curvature, value, gradient, pairs, gradient_tolerance, curvature_tolerance)


def _judged(
    curvature: CurvatureMatrix,
    value: float,
    gradient: Tensor,
    pairs: EigenPairs,
    gradient_tolerance: float,
    curvature_tolerance: float,
) -> CriticalPoint:
    smallest, largest = float(pairs.values.min()), float(pairs.values.max())
    norm = float(gradient.norm())
    zero = curvature_tolerance * max(abs(smallest), abs(largest))
    kind = _kind(smallest, largest, zero) if norm <= gradient_tolerance else "not critical"
    if not pairs.converged and kind not in ("saddle", "not critical"):
        kind = "undecided"
    down = pairs.vectors[int(pairs.values.argmin())] if smallest < -zero else None
    return CriticalPoint(
        kind=kind,
        loss=value,
        gradient_norm=norm,
        smallest=smallest,
        largest=largest,
        uncertainty=float(pairs.residuals.max()),
        products=pairs.products,
        converged=pairs.converged,
        profile=_profile(curvature.split(gradient), down, curvature.names),
        descent=down,
    )


def _check(**tolerances: float) -> None:
    for name, tolerance in tolerances.items():
        if not 0 < tolerance < 1:
            raise MeasurementError(
                expected=f"a {name}_tolerance between 0 and 1",
                received=f"{tolerance}",
                remedy="1e-3 is the default",
            )


def _search(dimension: int, curvature_tolerance: float) -> Search:
    return Search(
        count=min(2, dimension),
        # A tenth: the error must be small beside the threshold that decides.
        tolerance=curvature_tolerance / 10,
        floor=1.0,
        look_again=False,  # of a repeated eigenvalue one is enough
    )


def _distance_from_middle(values: Tensor) -> Tensor:
    """Both ends of the spectrum first."""
    return (values - (values.max() + values.min()) / 2).abs()


def _kind(smallest: float, largest: float, zero: float) -> Kind:
    if smallest < -zero and largest > zero:
        return "saddle"
    if smallest > zero:
        return "minimum"
    if largest < -zero:
        return "maximum"
    return "degenerate"


def _profile(
    gradients: dict[str, Tensor],
    down: Tensor | None,
    names: tuple[str, ...],
) -> Profile:
    sizes = [part.numel() for part in gradients.values()]
    shares = (0.0,) * len(names)
    if down is not None:
        shares = tuple(float(part.double().square().sum()) for part in down.split(sizes))
    return Profile(
        name="gradient and way down at a critical point",
        unit="gradient: loss per unit of parameter; way down: share of the squared length",
        reading="the gradient should be near 0 everywhere for the kind of point to mean something; "
        "the way down lies in the parameters with the largest shares",
        layers=names,
        values={
            "gradient": tuple(float(torch.linalg.vector_norm(g)) for g in gradients.values()),
            "way down": shares,
        },
    )
