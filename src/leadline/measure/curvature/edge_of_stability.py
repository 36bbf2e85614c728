"""Edge of stability: the sharpness of the loss against the largest step that it allows.

On a quadratic of curvature s gradient descent multiplies the distance from the minimum by
1 - lr s at each step and diverges once s > 2 / lr. Full-batch training of networks drives the
sharpness, the Hessian's largest eigenvalue, up to just that bound and stays there, the loss falling
unevenly (Cohen et al. 2021, arXiv:2103.00065). Momentum b moves the bound:

    plain    2 / lr
    heavy ball (torch's momentum)    (2 + 2 b) / lr
    Nesterov    (2 + 2 b) / (lr (1 + 2 b))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from leadline.core.errors import MeasurementError
from leadline.measure.batch import Loss
from leadline.measure.curvature.eigenvalues import eigenvalues


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """The largest eigenvalue of the Hessian, and the bound that the step sets it."""

    value: float
    bound: float
    lr: float
    products: int
    reading: str = (
        "a ratio below 1 is stable; about 1 is the edge of stability, where full-batch training "
        "settles by itself; well above 1 the loss is about to jump"
    )

    @property
    def ratio(self) -> float:
        """Sharpness divided by its bound."""
        return self.value / self.bound

    @property
    def stable(self) -> bool:
        """Whether gradient descent with this step converges on a quadratic of this curvature."""
        return self.value < self.bound


def sharpness(
    model: nn.Module,
    batch: Any,
    *,
    lr: float,
    loss: Loss | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Sharpness:
    """The sharpness of the loss, and how near it is to the edge of stability at step `lr`.

    The bound is for SGD without damping and without weight decay, which adds itself to the
    curvature. Adam divides by its own scale, for which this bound says nothing (Cohen et al. 2022,
    arXiv:2207.14484). Small batches settle below the edge. Errors: those of `curvature_matrix`; an
    `lr` that is not above 0 and a momentum outside 0 to 1.

    Unit: loss per squared unit of parameter. Cost: 1 forward-backward pass and about 10 products.

    How to read: `.reading`.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> loss = lambda outputs, targets: 5 * outputs.square().sum()  # curvature 10
    >>> import torch
    >>> found = sharpness(model, torch.ones(1, 1), loss=loss, lr=0.1)
    >>> round(found.value, 4), found.bound, round(found.ratio, 4), found.stable
    (10.0, 20.0, 0.5, True)
    """
    if not lr > 0 or not 0 <= momentum < 1:
        raise MeasurementError(
            expected="lr above 0 and momentum from 0 to below 1",
            received=f"lr={lr}, momentum={momentum}",
            remedy="pass those of the optimizer",
        )
    found = eigenvalues(
        model, batch, loss=loss, count=1, which="largest", tolerance=tolerance, seed=seed
    )
    bound = (2 + 2 * momentum) / lr
    if nesterov:
        bound /= 1 + 2 * momentum
    return Sharpness(value=found.values[0], bound=bound, lr=lr, products=found.products)
