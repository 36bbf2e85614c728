"""Jacobian: the singular values of what lies between two places, and how far from isometry it is.

A perturbation of the input of length 1 comes out with a length between the smallest and the largest
singular value of J = d output / d input; a gradient passes through J^T with the same factors. With
n = min(outputs, inputs) singular values s,

    mean of squares      m = 1/n sum s^2          what a random perturbation's square becomes
    their variance       v = 1/n sum s^4 - m^2    0 when all directions fare alike
    distance             sqrt(v + (m - 1)^2)      0 exactly for an isometry
    condition number     largest / smallest

Dynamical isometry, all s near 1, is what lets very deep networks learn (Saxe et al. 2013,
arXiv:1312.6120; Pennington et al. 2017, arXiv:1711.04735).

Small Jacobians are written out and decomposed. Of large ones the leading values come from a
randomised SVD with power iterations (Halko et al. 2011, arXiv:0909.4061) that keeps the vectors of
all rounds (arXiv:1007.5510), which serves spectra that fall slowly; the moments come from random
probes of what it leaves over (Hutch++, Meyer et al. 2021, arXiv:2010.09649). The surprising
choice: the error given with them is no bound that holds with some probability; it is the residual
|J v - s u|, within which a true singular value lies for certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.names import look_up
from leadline.measure.jacobians.jacobian_map import INPUT, OUTPUT, JacobianMap, jacobian_map

METHODS = {"auto": None, "exact": True, "randomised": False}
"""The ways to singular values, and whether each writes the matrix out; `auto` decides by size."""

EXACT_NUMBERS = 2**24
"""The largest matrix that `auto` writes out, in numbers: 64 MiB in single precision."""

EXACT_PRODUCTS = 1024
"""The most backward passes that `auto` spends on writing a matrix out."""

OVERSAMPLING = 10
"""Vectors beyond the rank asked for, as Halko et al. (2011) advise (section 4.2)."""

PROBES = 32
"""Random vectors that estimate the moments of what a randomised SVD leaves over."""


@dataclass(frozen=True, kw_only=True)
class JacobianSpectrum:
    """The singular values of the Jacobian from `start` to `end`, of one example after the other.

    `shape` is (outputs, inputs) of one example. `singular_values` holds all min(outputs, inputs) of
    them when the `method` is exact, else the leading ones; largest first. `error` is 0 when exact,
    else the largest residual |J v - s u|, relative to the largest singular value. `mean_squared`
    and `variance_squared` are those of the squared singular values, all of them, and estimates
    when randomised. `condition` is NaN when the smallest is not known, infinite when it is 0.
    """

    start: str
    end: str
    shape: tuple[int, int]
    method: Literal["exact", "randomised"]
    singular_values: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    mean_squared: tuple[float, ...]
    variance_squared: tuple[float, ...]
    condition: tuple[float, ...]

    @property
    def distance(self) -> tuple[float, ...]:
        """The distance from isometry, sqrt(variance + (mean - 1)^2) of the squared values.

        That is the root mean square of s^2 - 1: |J J^T - 1| / sqrt(n) in the Frobenius norm.
        """
        moments = zip(self.mean_squared, self.variance_squared, strict=True)
        return tuple(math.sqrt(variance + (mean - 1) ** 2) for mean, variance in moments)


def jacobian_matrix(
    model: nn.Module,
    inputs: Any,
    *,
    start: str = INPUT,
    end: str = OUTPUT,
    examples: int = 1,
    double: bool = False,
) -> Float[Tensor, "E M N"]:
    """The Jacobian matrix itself of each of the first `examples`, shapes flattened.

    `start` and `end` are names of modules, whose outputs are meant, or the model's own input and
    output; `name (call 2)` is the second call of one. Row m, column n is the derivative of number
    m at the end by number n at the start. In double precision on request; the model is not
    touched. Cost: 1 forward and min(M, N) + 2 backward passes, batched; under a batch norm in
    training mode, which ties the examples together, that many for each example. Raises
    MeasurementError for inputs that are integers (set `start` to the embedding), for places that
    do not depend on one another, and for shapes without a row per example.

    >>> layer = nn.Linear(2, 3)
    >>> bool((jacobian_matrix(layer, torch.ones(1, 2))[0] == layer.weight).all())
    True
    """
    with jacobian_map(
        model, inputs, start=start, end=end, examples=examples, double=double
    ) as jacobian:
        return jacobian.dense().detach()


def jacobian_spectrum(
    model: nn.Module,
    inputs: Any,
    *,
    start: str = INPUT,
    end: str = OUTPUT,
    examples: int = 4,
    method: str = "auto",
    rank: int = 16,
    power_iterations: int = 3,
    double: bool = False,
    seed: int = 0,
) -> JacobianSpectrum:
    """Measure the singular values of the Jacobian from `start` to `end` for a few examples.

    Places, errors and precision as for `jacobian_matrix`. `method` is `exact`, `randomised` or
    `auto`, which is exact up to 2^24 numbers and 1024 passes. Randomised, the `rank` leading values
    are computed with `power_iterations` rounds of J J^T: take more where `error` is too large. The
    same `seed` gives the same numbers.

    Cost: 1 forward pass, and backward passes, batched: min(M, N) + 2 when exact; otherwise about
    (6 power_iterations + 5) (rank + 10) + 100, as a product with J costs two of them. Unit: that of
    the end over that of the start.

    Read it: the largest value is what the network can make of a small perturbation, the mean of the
    squares what a random one or a gradient keeps. All values at 1 is an isometry, which no depth
    can hurt; a condition number that grows with depth says that most directions are lost.

    >>> scale = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(scale.weight).data.mul_(0.9)
    >>> ten = nn.Sequential(*[scale] * 10)
    >>> found = jacobian_spectrum(ten, torch.ones(1, 2))
    >>> [[round(value, 4) for value in row] for row in found.singular_values]  # 0.9 ** 10
    [[0.3487, 0.3487]]
    """
    with jacobian_map(
        model, inputs, start=start, end=end, examples=examples, double=double
    ) as jacobian:
        return spectrum_of(
            jacobian, method=method, rank=rank, power_iterations=power_iterations, seed=seed
        )


def spectrum_of(
    jacobian: JacobianMap, *, method: str, rank: int, power_iterations: int, seed: int
) -> JacobianSpectrum:
    """The singular values of a Jacobian that is open."""
    outputs, inputs = jacobian.shape
    smaller = min(outputs, inputs)
    small = smaller <= EXACT_PRODUCTS and outputs * inputs <= EXACT_NUMBERS
    if rank < 1 or power_iterations < 0:
        raise MeasurementError(
            expected="a rank of 1 or more and power iterations of 0 or more",
            received=f"rank={rank}, power_iterations={power_iterations}",
            remedy="leave them out: rank 16 with 3 power iterations is a good beginning",
        )
    exact = look_up(method, METHODS, kind="method")
    if exact or (exact is None and small):
        return _exact(jacobian)
    return _Randomised(jacobian, rank, seed).spectrum(power_iterations)


def _exact(jacobian: JacobianMap) -> JacobianSpectrum:
    values = torch.linalg.svdvals(_finite(_wide(jacobian.dense())))  # [E, n]
    squares = values.square().double()
    largest, smallest = values[:, 0].double(), values[:, -1].double()
    # Below the rounding of the largest value, the smallest is 0 for all that can be known.
    rounding = torch.finfo(values.dtype).eps * max(jacobian.shape) * largest
    condition = torch.where(smallest > rounding, largest / smallest, math.inf)
    return JacobianSpectrum(
        start=jacobian.start,
        end=jacobian.end,
        shape=jacobian.shape,
        method="exact",
        singular_values=tuple(tuple(row) for row in values.tolist()),
        error=(0.0,) * len(values),
        mean_squared=tuple(squares.mean(dim=1).tolist()),
        variance_squared=tuple(squares.var(dim=1, correction=0).tolist()),
        condition=tuple(condition.tolist()),
    )


class _Randomised:
    """A randomised SVD in the space of all its power iterations, batched over the examples E."""

    def __init__(self, jacobian: JacobianMap, rank: int, seed: int) -> None:
        self._jacobian = jacobian
        self._smaller = min(jacobian.shape)
        self._width = min(rank + OVERSAMPLING, self._smaller)
        self._rank = min(rank, self._smaller)
        self._generator = torch.Generator().manual_seed(seed)

    def spectrum(self, power_iterations: int) -> JacobianSpectrum:
        basis = self._basis(power_iterations)  # Q, [E, M, k]
        image = _finite(self._backward(basis))  # J^T Q, [E, N, k]
        again = _finite(self._forward(image))  # J J^T Q, [E, M, k]
        _, every, inner = torch.linalg.svd(image, full_matrices=False)
        values, inner = every[:, : self._rank], inner.mT[:, :, : self._rank]
        scale = values.clamp(min=torch.finfo(values.dtype).tiny)[:, None, :]  # a Jacobian may be 0
        residual = again @ inner / scale - basis @ inner * values[:, None, :]  # J v - s u
        error = residual.norm(dim=1).amax(dim=1) / scale[:, 0, 0]
        mean, variance = self._moments(basis, image, again)
        return JacobianSpectrum(
            start=self._jacobian.start,
            end=self._jacobian.end,
            shape=self._jacobian.shape,
            method="randomised",
            singular_values=tuple(tuple(row) for row in values.tolist()),
            error=tuple(error.tolist()),
            mean_squared=tuple(mean.tolist()),
            variance_squared=tuple(variance.tolist()),
            condition=(math.nan,) * len(values),
        )

    def _basis(self, power_iterations: int) -> Tensor:
        """Orthonormal columns that span J W, (J J^T) J W, ..., for a random W."""
        inputs = self._jacobian.shape[1]
        blocks = [_orthonormal(self._forward(self._normal(inputs, self._width)))]
        for _ in range(power_iterations):
            if self._width * len(blocks) >= self._smaller:
                break  # it spans all there is
            blocks.append(_orthonormal(self._forward(_orthonormal(self._backward(blocks[-1])))))
        return _orthonormal(torch.cat(blocks, dim=-1))

    def _moments(self, basis: Tensor, image: Tensor, again: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the squared singular values: exact inside the basis, probed beyond.

        With A = J J^T and P the projection on the basis, tr A = tr PAP + tr (1-P)A(1-P), and the
        same for A^2; a Gaussian z has E z^T B z = tr B.
        """
        probes = self._normal(self._jacobian.shape[0], PROBES)
        probes = probes - basis @ (basis.mT @ probes)
        beyond = self._backward(probes)
        first = _energy(image) + _energy(beyond) / PROBES
        second = _energy(again) + _energy(self._forward(beyond)) / PROBES
        mean = first / self._smaller
        return mean, (second / self._smaller - mean.square()).clamp(min=0.0)

    def _normal(self, size: int, count: int) -> Tensor:
        shape = (self._jacobian.examples, size, count)
        drawn = torch.randn(shape, generator=self._generator)
        source = self._jacobian.source
        return drawn.to(source.device, _precision(source))

    def _forward(self, vectors: Tensor) -> Tensor:
        """J times the columns of [E, N, k]: [E, M, k]."""
        given = vectors.permute(2, 0, 1).to(self._jacobian.source.dtype)
        return self._jacobian.jvp(given).permute(1, 2, 0).to(vectors.dtype)

    def _backward(self, vectors: Tensor) -> Tensor:
        """J^T times the columns of [E, M, k]: [E, N, k]."""
        given = vectors.permute(2, 0, 1).to(self._jacobian.source.dtype)
        return self._jacobian.vjp(given).permute(1, 2, 0).to(vectors.dtype)


def _orthonormal(vectors: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(_finite(vectors)).Q
    return basis


def _energy(vectors: Tensor) -> Tensor:
    return vectors.double().square().sum(dim=(1, 2))


def _precision(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _wide(matrices: Tensor) -> Tensor:
    """In at least single precision, which the decompositions need."""
    return matrices.to(_precision(matrices))


def _finite(matrices: Tensor) -> Tensor:
    if bool(torch.isfinite(matrices).all()):
        return matrices.detach()
    raise MeasurementError(
        expected="a Jacobian of finite numbers",
        received="NaN or infinity in it",
        remedy="look where it appears first: leadline.core.taps.first_nonfinite(model, forward); "
        "a square root or a division at 0 has no finite derivative",
    )
