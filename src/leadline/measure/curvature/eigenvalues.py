"""Eigenvalues: the sharpest, flattest or most negative directions of the loss, and where they lie.

The largest eigenvalue of the Hessian bounds the step that gradient descent can take; the most
negative one is the way out of a saddle; a few large ones above a bulk near zero are what trained
classifiers show, about as many as classes (Sagun et al. 2017, arXiv:1706.04454). Found by Lanczos
(measure.lanczos), in as many products as there are clearly separated eigenvalues and a few more.
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
from leadline.measure.curvature.curvature import CurvatureMatrix, MatrixName, curvature_matrix
from leadline.measure.curvature.lanczos import EigenPairs, Order, Search, eigenpairs

Which = Literal["magnitude", "largest", "smallest"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Eigenvalues:
    """Eigenvalues in the order asked for, with what is known of their error.

    `residuals` are |A v - value v|: an eigenvalue of the matrix lies within that of each value.
    `vectors` has one unit eigenvector per row, its entries in the order of `profile`'s parameters.
    `profile` tells for each parameter which share of each eigenvector lies in it.
    """

    matrix: MatrixName
    which: Which
    values: tuple[float, ...]
    residuals: tuple[float, ...]
    products: int
    converged: bool
    profile: Profile
    vectors: Tensor = field(repr=False)


def eigenvalues(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    count: int = 5,
    which: Which = "magnitude",
    matrix: MatrixName = "hessian",
    tolerance: float = 1e-4,
    max_products: int = 1000,
    basis: int | None = None,
    samples: int = 1,
    seed: int = 0,
) -> Eigenvalues:
    """The `count` outermost eigenvalues of the curvature, with their directions.

    `which` are those of largest `magnitude`, the `largest` or the `smallest`, that is the most
    negative. `tolerance` is the relative error of each eigenvalue at which the search stops (for
    those below a hundredth of the largest in magnitude, relative to that hundredth); a direction
    is then right to about the tolerance's square root. Not `converged` means that `max_products`
    came first. Eigenvalues that are repeated are looked for by a few more products from a second
    random start, and given as often as they are there. `matrix` and `samples` are those of
    `curvature_matrix`, whose errors apply; so does a `count` above the number of parameters.

    Units: loss per squared unit of parameter. Memory: `basis` vectors as long as all trainable
    parameters (by default at most 3 x count + 60, fewer above 2 GiB), and one gradient's graph.

    Cost: 1 forward-backward pass and one product for each step, some 15 to 40 for five eigenvalues
    that stand out, more in a dense spectrum.

    How to read: gradient descent with step lr is stable below 2 / lr; a negative eigenvalue where
    the gradient vanishes tells a saddle; the profile names the parameters that the sharp directions
    lie in.

    >>> model = nn.Linear(3, 1, bias=False)
    >>> inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    >>> loss = lambda outputs, targets: outputs.square().sum() / 2  # H = X^T X
    >>> found = eigenvalues(model, inputs, loss=loss, count=2)
    >>> [round(value, 4) for value in found.values]
    [9.0, 4.0]
    """
    with Taps(model):
        curvature = curvature_matrix(
            model, batch, loss=loss, matrix=matrix, samples=samples, seed=seed
        )
        check_search(curvature, count=count, which=which, tolerance=tolerance)
        search = Search(count=count, tolerance=tolerance, seed=seed)
        search = replace(search, max_products=max(max_products, count), basis=basis)
        start = torch.zeros(curvature.dimension, dtype=curvature.dtype, device=curvature.device)
        pairs = eigenpairs(curvature.product, ORDERS[which], search, like=start)
    return Eigenvalues(
        matrix=matrix,
        which=which,
        values=tuple(pairs.values.tolist()),
        residuals=tuple(pairs.residuals.tolist()),
        products=pairs.products,
        converged=pairs.converged,
        profile=_profile(curvature, pairs),
        vectors=pairs.vectors,
    )


ORDERS: dict[str, Order] = {"magnitude": torch.abs, "largest": torch.clone, "smallest": torch.neg}


def check_search(
    curvature: CurvatureMatrix, *, count: int, which: str = "magnitude", tolerance: float = 1e-4
) -> None:
    """Raise a MeasurementError for a search that cannot be made."""
    problem = None
    if not 1 <= count <= curvature.dimension:
        problem = f"count={count}"
    elif which not in ORDERS:
        problem = f"which={which!r}"
    elif not 0 < tolerance < 1:
        problem = f"tolerance={tolerance}"
    if problem is not None:
        raise MeasurementError(
            expected=f"1 to {curvature.dimension:,} eigenvalues, as many as there are trainable "
            f"parameters, by {', '.join(ORDERS)}, to a tolerance between 0 and 1",
            received=problem,
            remedy="change it; five eigenvalues tell most",
        )


def _profile(curvature: CurvatureMatrix, pairs: EigenPairs) -> Profile:
    shares = {
        f"eigenvector {number}": tuple(
            float(part.double().square().sum()) for part in curvature.split(vector).values()
        )
        for number, vector in enumerate(pairs.vectors, start=1)
    }
    return Profile(
        name="where the eigenvectors of the curvature lie",
        unit="share of the squared length",
        reading="a column sums to 1; the parameter with the largest share is the one that the "
        "direction mostly moves",
        layers=curvature.names,
        values=shares,
    )
