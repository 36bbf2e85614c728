"""Spectral density: how the eigenvalues of the curvature are spread, without finding them all.

The share of eigenvalues near t is the average over random unit vectors v of what v has in the
eigenvectors there. m steps of Lanczos from v give m nodes theta and weights w, the squared first
entries of the eigenvectors of the small matrix, whose moments equal those of v exactly up to degree
2m - 1 (Golub and Welsch 1969):

    sum_i w_i f(theta_i) = v^T f(A) v,   averaged over v: trace f(A) / P

This is stochastic Lanczos quadrature (Ubaru et al. 2017; for networks Ghorbani et al. 2019,
arXiv:1901.10159). The nodes are a comb of spikes; `at` smooths each to a bell of a given width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.taps import Taps
from leadline.measure.batch import Loss
from leadline.measure.curvature.curvature import MatrixName, curvature_matrix
from leadline.measure.curvature.lanczos import Krylov


@dataclass(frozen=True, kw_only=True)
class SpectralDensity:
    """Nodes and weights for each random vector; the weights of one vector sum to 1.

    `dimension` is the number of eigenvalues that the density stands for.
    """

    matrix: MatrixName
    nodes: tuple[tuple[float, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    dimension: int
    products: int
    reading: str = (
        "the area between two values is the share of eigenvalues there; a spike at 0 is directions "
        "that do not matter, mass below 0 is curvature that leads down, single bumps far to the "
        "right are the sharp directions"
    )

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest node: close to the extreme eigenvalues after enough steps."""
        every = [node for row in self.nodes for node in row]
        return min(every), max(every)

    def moment(self, power: int) -> float:
        """The mean of eigenvalue ** power; times `dimension`, power 1 estimates the trace."""
        sums = [
            sum(w * t**power for t, w in zip(*row, strict=True))
            for row in zip(self.nodes, self.weights, strict=True)
        ]
        return sum(sums) / len(sums)

    def share_below(self, value: float) -> float:
        """The share of eigenvalues below a value, such as 0."""
        sums = [
            sum(w for t, w in zip(*row, strict=True) if t < value)
            for row in zip(self.nodes, self.weights, strict=True)
        ]
        return sum(sums) / len(sums)

    def at(self, points: Sequence[float], *, width: float | None = None) -> tuple[float, ...]:
        """The density at each point, each node smoothed to a Gaussian of standard deviation width.

        `width` is by default a hundredth of the range. The unit is one over the eigenvalue's.
        """
        low, high = self.range
        width = width if width is not None else max((high - low) / 100, abs(high) * 1e-6, 1e-12)
        if not width > 0:
            raise MeasurementError(
                expected="a width above 0", received=f"{width}", remedy="leave it out or raise it"
            )
        grid = torch.tensor(points, dtype=torch.float64)[:, None]
        total = torch.zeros(len(points), dtype=torch.float64)
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            distance = (grid - torch.tensor(nodes, dtype=torch.float64)) / width
            bells = torch.exp(-distance.square() / 2) / (width * math.sqrt(2 * math.pi))
            total += bells @ torch.tensor(weights, dtype=torch.float64)
        return tuple((total / len(self.nodes)).tolist())


def spectral_density(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    steps: int = 40,
    vectors: int = 1,
    matrix: MatrixName = "hessian",
    samples: int = 1,
    seed: int = 0,
) -> SpectralDensity:
    """The density of the eigenvalues of the curvature by stochastic Lanczos quadrature.

    `steps` products for each of `vectors` random vectors. More steps resolve finer structure at the
    ends of the spectrum; more vectors lower the noise, whose standard deviation falls like
    1 / square root of (vectors x parameters): for a large network one vector is enough. `matrix`,
    `batch` and `samples` are those of `curvature_matrix`, whose errors apply.

    Units: eigenvalues in loss per squared unit of parameter. Memory: `steps` vectors as long as all
    trainable parameters.

    Cost: 1 forward-backward pass and steps x vectors products.

    How to read: `.reading`. Where the density has a gap, the eigenvalues above it are the sharp
    directions; `.share_below(0)` is the share that leads down.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> loss = lambda outputs, targets: outputs.square().sum() / 2  # H = X^T X = diag(1, 9)
    >>> density = spectral_density(model, torch.diag(torch.tensor([1.0, 3.0])), loss=loss)
    >>> [round(node, 4) for node in density.nodes[0]]
    [1.0, 9.0]
    >>> round(density.dimension * density.moment(1), 4)  # the trace
    10.0
    """
    if steps < 1 or vectors < 1:
        raise MeasurementError(
            expected="at least one step and one random vector",
            received=f"steps={steps}, vectors={vectors}",
            remedy="40 steps and 1 vector are the default",
        )
    with Taps(model):
        curvature = curvature_matrix(
            model, batch, loss=loss, matrix=matrix, samples=samples, seed=seed
        )
        generator = torch.Generator().manual_seed(seed)
        nodes, weights = [], []
        for _ in range(vectors):
            sign = torch.randint(0, 2, (curvature.dimension,), generator=generator) * 2 - 1
            start = sign.to(curvature.device, curvature.dtype)
            values, row = _quadrature(curvature.product, start, steps, generator)
            nodes.append(tuple(values.tolist()))
            weights.append(tuple(row.tolist()))
    return SpectralDensity(
        matrix=matrix,
        nodes=tuple(nodes),
        weights=tuple(weights),
        dimension=curvature.dimension,
        products=curvature.products,
    )


def _quadrature(
    product: Any, start: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    krylov = Krylov(product, start, size=steps, generator=generator)
    while not krylov.full:
        krylov.grow()
        if krylov.residual == 0:  # all that the vector has is found; the quadrature is exact
            break
    pairs = krylov.pairs()
    return pairs.values, pairs.columns[0].square()
