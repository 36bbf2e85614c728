"""Lanczos: the outer eigenvalues of a symmetric matrix that is only known by its products.

From a random start the vectors v, A v, A (A v), ... are made orthonormal, V, and the small matrix
H = V^T A V carries the outer eigenvalues of A after few products (Lanczos 1950; Saad 2011, chapter
6). Of a pair (theta, y) of H it is known without another product how far it is from one of A:

    r = |A V y - theta V y| = beta |y_last|;   an eigenvalue lies within r of theta, and within
    r^2 / gap where the others are farther than gap from it (Parlett 1998, section 11.7)

Every new vector is made orthogonal to all others, twice, so that none is found again by rounding.
When the basis is full, the best pairs and the newest vector begin the next one (thick restart, Wu
and Simon 2000).

The surprising choice: a start vector sees only one direction of each eigenspace, so that repeated
eigenvalues, which every layer with several equal outputs brings, would be counted once. After the
wanted pairs have converged, a few more products from another random start look for what was missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from leadline.core.errors import MeasurementError

Product = Callable[[Tensor], Tensor]
Order = Callable[[Tensor], Tensor]
"""Eigenvalues to a score; the wanted ones are those of the highest scores."""

BASIS_BYTES = 2 * 2**30  # bytes for the basis before it is restarted sooner
LOOK_AGAIN = 12  # products at most for one look at what was missed
ROUGH = 0.2  # residual, relative to the eigenvalue, that tells whether one was missed


@dataclass(frozen=True, kw_only=True, eq=False)
class EigenPairs:
    """Eigenvalues with unit eigenvectors as rows, the wanted order first; |A v - theta v| each."""

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to search, and how far.

    It ends when the error of each eigenvalue is below `tolerance` times the larger of the
    eigenvalue and `floor` times the matrix's norm, or after `max_products`.
    """

    count: int
    tolerance: float
    floor: float = 0.01
    max_products: int = 1000
    basis: int | None = None
    seed: int = 0
    look_again: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class SmallPairs:
    """Eigenpairs of H: ascending `values`, eigenvectors as `columns`, norms of the residuals."""

    values: Tensor
    columns: Tensor
    residuals: Tensor


class Krylov:
    """An orthonormal basis V that grows by products with A, and H = V^T A V."""

    def __init__(
        self,
        product: Product,
        start: Float[Tensor, "P"],
        *,
        size: int,
        generator: torch.Generator,
    ) -> None:
        self._product, self._generator = product, generator
        self.dimension = len(start)
        self.room = min(size, self.dimension)
        self.basis = start.new_empty(self.room + 1, self.dimension)
        self.projected = torch.zeros(self.room, self.room, dtype=torch.float64)
        self.length = 0
        self.residual = 0.0
        # What kept rows have outside V since a fresh start took the place of the newest vector: a
        # row of coefficients for each of these vectors.
        self._outside = torch.zeros(0, self.room, dtype=torch.float64)
        self._scale = 0.0
        self._place(start, 0)

    @property
    def full(self) -> bool:
        """Whether another product would have no place."""
        return self.length == self.room

    @property
    def complete(self) -> bool:
        """Whether V spans the whole space."""
        return self.length == self.dimension

    def grow(self) -> None:
        """One product: `length` grows by 1, `residual` is the norm of what lies outside V."""
        assert not self.full
        n = self.length
        image = self._product(self.basis[n])
        if not bool(torch.isfinite(image).all()):
            raise MeasurementError(
                expected="a finite curvature",
                received="a product with NaN or infinity",
                remedy="look for a square root or a norm at 0, a power below 2 or a logarithm of "
                "0: their second derivative is infinite there",
            )
        rest, column = self._orthogonal(image, n + 1)
        self.projected[: n + 1, n] = self.projected[n, : n + 1] = column
        self.length = n + 1
        self.residual = float(torch.linalg.vector_norm(rest))
        self._scale = max(self._scale, float(torch.linalg.vector_norm(image)))
        if self.complete:
            self.residual = 0.0
            self._outside.zero_()
        elif self.residual <= 20 * torch.finfo(rest.dtype).eps * self._scale:
            # V is closed under A: what is left of the space is reached from a new random vector.
            self.residual = 0.0
            self._place(self._random(), n + 1)
        else:
            self.basis[n + 1] = rest / self.residual

    def pairs(self) -> SmallPairs:
        """The eigenpairs of H."""
        values, columns = torch.linalg.eigh(self.projected[: self.length, : self.length])
        residuals = self.residual * columns[-1].abs()
        residuals += (self._outside[:, : self.length] @ columns).abs().sum(dim=0)
        return SmallPairs(values=values, columns=columns, residuals=residuals)

    def lift(self, columns: Tensor) -> Tensor:
        """Vectors given in the basis, as rows in the whole space."""
        return columns.T.to(self.basis) @ self.basis[: self.length]

    def restart(self, keep: Tensor, *, fresh: bool = False) -> None:
        """Begin anew with the pairs `keep` of H and the newest vector, or a random one."""
        pairs, count = self.pairs(), len(keep)
        columns = pairs.columns[:, keep]
        newest = self.basis[self.length].clone()
        coupling = self.residual * columns[-1]
        outside = self._outside[:, : self.length] @ columns
        self.basis[:count] = self.lift(columns)
        self.length = count
        self.projected.zero_()
        self.projected[:count, :count] = torch.diag(pairs.values[keep])
        if fresh:
            outside = torch.cat([outside, coupling[None]])
            self._place(self._random(), count)
        else:
            self.basis[count] = newest
        self._outside = torch.zeros(len(outside), self.room, dtype=torch.float64)
        self._outside[:, :count] = outside

    def _random(self) -> Tensor:
        drawn = torch.randn(self.dimension, generator=self._generator, dtype=torch.float64)
        return drawn.to(self.basis)

    def _place(self, vector: Tensor, index: int) -> None:
        vector = vector / torch.linalg.vector_norm(vector)
        rest, _ = self._orthogonal(vector, index)
        self.basis[index] = rest / torch.linalg.vector_norm(rest)

    def _orthogonal(self, vector: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The part orthogonal to the first `count` rows, and the components along them."""
        column = torch.zeros(count, dtype=torch.float64)
        for _ in range(2 if count else 0):  # twice is enough (Parlett 1998, section 6.9)
            components = self.basis[:count] @ vector
            vector = vector - self.basis[:count].T @ components
            column += components.to(column)
        return vector, column


def eigenpairs(
    product: Product,
    order: Order,
    search: Search,
    *,
    like: Float[Tensor, "P"],
) -> EigenPairs:
    """The `search.count` eigenpairs of the highest `order`; `like` tells length, type and device.

    >>> diagonal = torch.tensor([5.0, 5.0, 1.0, -7.0, 0.0], dtype=torch.float64)
    >>> search = Search(count=3, tolerance=1e-9)
    >>> found = eigenpairs(lambda v: diagonal * v, torch.abs, search, like=diagonal)
    >>> [round(value, 6) for value in found.values.tolist()]
    [-7.0, 5.0, 5.0]
    """
    return _Finder(product, order, search, like).find()


class _Finder:
    """One search: the basis, and the products spent."""

    def __init__(self, product: Product, order: Order, search: Search, like: Tensor) -> None:
        self._order, self._search = order, search
        generator = torch.Generator().manual_seed(search.seed)
        start = torch.randn(len(like), generator=generator, dtype=torch.float64).to(like)
        row = like.element_size() * len(like)  # bytes
        size = min(3 * search.count + 60, BASIS_BYTES // row)
        size = max(search.count + 6, 2 * search.count + 10, size)
        if search.basis is not None:
            size = max(search.count + 6, search.basis)
        self._krylov = Krylov(product, start, size=size, generator=generator)
        self._products = 0
        self._norm = 0.0  # the largest eigenvalue seen, in magnitude

    def find(self) -> EigenPairs:
        converged = self._converge()
        while converged and self._search.look_again and self._search.count > 1:
            if self._krylov.complete:
                break
            converged, found = self._look_again()
            if not found:
                break
        pairs = self._krylov.pairs()
        wanted = self._ranked(pairs)[: self._search.count]
        return EigenPairs(
            values=pairs.values[wanted],
            vectors=self._krylov.lift(pairs.columns[:, wanted]),
            residuals=pairs.residuals[wanted],
            products=self._products,
            converged=converged,
        )

    def _converge(self) -> bool:
        """Grow until all wanted pairs are good, or the products are spent."""
        while self._products < self._search.max_products:
            pairs = self._grow()
            wanted = self._ranked(pairs)[: self._search.count]
            enough = len(wanted) == self._search.count
            if self._krylov.complete or (enough and bool(self._good(pairs)[wanted].all())):
                return True
        return False

    def _look_again(self) -> tuple[bool, bool]:
        """A random start beside the wanted pairs: whether it came to its end, and found any."""
        count = self._search.count
        known = self._ranked(self._krylov.pairs())[:count]
        self._krylov.restart(known, fresh=True)
        for spent in range(1, self._search.max_products - self._products + 1):
            pairs = self._grow()
            ranked = self._ranked(pairs)
            # A pair that lies mostly outside the known ones is new.
            new = pairs.columns[:count].square().sum(dim=0) < 0.5
            newcomers = ranked[:count][new[ranked[:count]]]
            best = ranked[new[ranked]][:1]
            rough = bool((pairs.residuals[best] <= ROUGH * pairs.values[best].abs()).all())
            if self._krylov.complete:
                return True, False
            if (rough or spent >= LOOK_AGAIN) and not len(newcomers):
                return True, False
            if len(newcomers) and bool(self._good(pairs)[newcomers].all()):
                return True, True
        return False, False

    def _grow(self) -> SmallPairs:
        if self._krylov.full:
            keep = max(self._search.count + 4, self._krylov.room // 2)
            self._krylov.restart(self._ranked(self._krylov.pairs())[:keep])
        self._krylov.grow()
        self._products += 1
        pairs = self._krylov.pairs()
        self._norm = max(self._norm, float(pairs.values.abs().max()))
        return pairs

    def _ranked(self, pairs: SmallPairs) -> Tensor:
        return self._order(pairs.values).argsort(descending=True, stable=True)

    def _good(self, pairs: SmallPairs) -> Tensor:
        """Whether each pair's error is small enough.

        The sharper bound trusts that no eigenvalue hides between those of H. That is so only once
        the residual is small too.
        """
        values, residuals = pairs.values, pairs.residuals
        gaps = (values[:, None] - values).abs() - residuals
        gaps = gaps.fill_diagonal_(torch.inf).amin(dim=1)
        errors = torch.where(gaps > residuals, residuals.square() / gaps, residuals)
        allowed = values.abs().clamp(min=self._search.floor * self._norm)
        tolerance = self._search.tolerance
        good: Tensor = (errors <= tolerance * allowed) & (residuals <= tolerance**0.5 * allowed)
        return good
