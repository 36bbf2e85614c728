"""Trace: the sum of all eigenvalues of the curvature, from a few products with random vectors.

With entries of +1 and -1 at random, E[v^T A v] = trace A (Hutchinson 1989), with a variance of
2 (|A|^2 - sum of a_ii^2) per vector, norms over all entries: entries off the diagonal are what
disturbs. Hutch++ (Meyer et al. 2021, arXiv:2010.09649) spends a third of the products on finding
the space Q in which A is large, takes the trace there exactly, and estimates only the rest:

    trace A = trace Q^T A Q + E[v^T (I - QQ^T) A (I - QQ^T) v]

The standard error of curvature with a few large eigenvalues, which is what networks have, falls
like 1/n instead of 1/sqrt(n).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.taps import Taps
from leadline.measure.batch import Loss
from leadline.measure.curvature.curvature import CurvatureMatrix, MatrixName, curvature_matrix

Method = Literal["hutch++", "hutchinson", "exact"]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """An estimate with its standard error, which is 0 where the method was exact."""

    matrix: MatrixName
    method: Method
    value: float
    standard_error: float
    products: int
    dimension: int

    @property
    def mean_eigenvalue(self) -> float:
        """The trace divided by the number of trainable parameters."""
        return self.value / self.dimension


def trace(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    products: int = 60,
    method: Literal["hutch++", "hutchinson"] = "hutch++",
    matrix: MatrixName = "hessian",
    samples: int = 1,
    seed: int = 0,
) -> Trace:
    """The trace of the curvature, with its standard error.

    `products` is the number of products to spend, a multiple of 3 for Hutch++ (what is left over is
    not used). With as many as there are trainable parameters, or more, the trace is taken exactly,
    entry by entry. For Hutch++ the standard error is that of its random part, the space Q given; it
    does not know what the space has missed by chance. `matrix`, `batch` and `samples` are those of
    `curvature_matrix`, whose errors apply.

    Unit: loss per squared unit of parameter. Memory: Hutch++ holds products / 3 vectors as long as
    all trainable parameters, Hutchinson one.

    Cost: 1 forward-backward pass and `products` products.

    How to read: the trace is the mean curvature times the number of parameters; among networks of
    equal size and equal loss the flatter has the smaller one. It lies within two standard errors of
    the value in 19 of 20 cases.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> loss = lambda outputs, targets: outputs.square().sum() / 2  # H = X^T X = diag(1, 9)
    >>> trace(model, torch.diag(torch.tensor([1.0, 3.0])), loss=loss).value
    10.0
    """
    if products < 6 or method not in ("hutch++", "hutchinson"):
        raise MeasurementError(
            expected="at least 6 products, by 'hutch++' or 'hutchinson'",
            received=f"products={products}, method={method!r}",
            remedy="60 products by 'hutch++' are the default",
        )
    with Taps(model):
        curvature = curvature_matrix(
            model, batch, loss=loss, matrix=matrix, samples=samples, seed=seed
        )
        draw = _Signs(curvature, torch.Generator().manual_seed(seed))
        used: Method = method
        if curvature.dimension <= products:
            used, value, error = "exact", _exact(curvature), 0.0
        elif method == "hutch++":
            value, error = _hutch_plus_plus(curvature, draw, products // 3)
        else:
            value, error = _mean([float(v @ curvature.product(v)) for v in draw.many(products)])
    return Trace(
        matrix=matrix,
        method=used,
        value=value,
        standard_error=error,
        products=curvature.products,
        dimension=curvature.dimension,
    )


class _Signs:
    """Random vectors of +1 and -1."""

    def __init__(self, curvature: CurvatureMatrix, generator: torch.Generator) -> None:
        self._curvature, self._generator = curvature, generator

    def one(self) -> Tensor:
        size = (self._curvature.dimension,)
        drawn = torch.randint(0, 2, size, generator=self._generator) * 2 - 1
        return drawn.to(self._curvature.device, self._curvature.dtype)

    def many(self, count: int) -> Any:
        return (self.one() for _ in range(count))


def _exact(curvature: CurvatureMatrix) -> float:
    return float(curvature.dense(limit=curvature.dimension).double().diagonal().sum())


def _hutch_plus_plus(curvature: CurvatureMatrix, draw: _Signs, count: int) -> tuple[float, float]:
    sketch = torch.stack([curvature.product(v) for v in draw.many(count)], dim=1)
    space = torch.linalg.qr(sketch).Q  # P x count
    inside = sum(float(column @ curvature.product(column)) for column in space.T)
    rest = []
    for vector in draw.many(count):
        outside = vector - space @ (space.T @ vector)
        rest.append(float(outside @ curvature.product(outside)))
    mean, error = _mean(rest)
    return inside + mean, error


def _mean(values: list[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
