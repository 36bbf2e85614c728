"""Lanczos: the outer eigenvalues of a symmetric matrix that is only known by its products.

From a random start the vectors v, A v, A (A v), ... are made orthonormal, V, and the small matrix
H = V^T A V carries the outer eigenvalues of A after few products (Lanczos 1950; Saad 2011, chapter
6). Of a pair (theta, y) of H it is known without another product how far it is from one of A:

    |A V y - theta V y| = beta |y_last|,   and some eigenvalue lies within that of theta

Every new vector is made orthogonal to all others, twice, so that none is found again by rounding.
When the basis is full, the best pairs and the newest vector begin the next one (thick restart, Wu
and Simon 2000).

The surprising choice: a start vector sees only one direction of each eigenspace, so that repeated
eigenvalues, which every layer with several equal outputs brings, would be counted once. After the
wanted pairs have converged, another random start orthogonal to them looks for what was missed.
"""

from __future__ import annotations

import math
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
ROUGH = 0.1  # residual, relative to the eigenvalue, that tells whether one was missed


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
    """How far to search: residuals below `tolerance` times the larger of the eigenvalue and
    `floor` times the matrix's norm, with at most `max_products`."""

    count: int
    tolerance: float
    floor: float = 0.01
    max_products: int = 1000
    basis: int | None = None
    seed: int = 0
    look_again: bool = True


class Krylov:
    """An orthonormal basis V that grows by products with A, and H = V^T A V.

    `locked` are orthonormal rows that the basis stays orthogonal to.
    """

    def __init__(
        self,
        product: Product,
        start: Float[Tensor, "P"],
        *,
        size: int,
        generator: torch.Generator,
        locked: Float[Tensor, "K P"] | None = None,
    ) -> None:
        dimension = len(start)
        self._product, self._generator = product, generator
        self._locked = start.new_empty(0, dimension) if locked is None else locked
        self.room = min(size, dimension - len(self._locked))
        self.basis = start.new_empty(self.room + 1, dimension)
        self.projected = torch.zeros(self.room, self.room, dtype=torch.float64)
        self.length = 0
        self.residual = 0.0
        self._scale = 0.0
        self._place(start, 0)

    @property
    def full(self) -> bool:
        """Whether another product would have no place."""
        return self.length == self.room

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
        if self.length == len(self.basis) - 1 and self.length + len(self._locked) == len(rest):
            self.residual = 0.0  # V spans the whole space
            return
        if self.residual <= 20 * torch.finfo(rest.dtype).eps * self._scale:
            # V is closed under A: what is left of the space is reached from a new random vector.
            self.residual = 0.0
            self._place(self.random(), n + 1)
        else:
            self.basis[n + 1] = rest / self.residual

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues of H in ascending order, eigenvectors as columns, residual norms."""
        values, vectors = torch.linalg.eigh(self.projected[: self.length, : self.length])
        return values, vectors, self.residual * vectors[-1].abs()

    def lift(self, columns: Tensor) -> Tensor:
        """Vectors given in the basis, as rows in the whole space."""
        return columns.T.to(self.basis) @ self.basis[: self.length]

    def restart(self, keep: Tensor) -> None:
        """Begin anew with the pairs of H of the indices `keep` and the newest vector."""
        values, vectors, _ = self.pairs()
        lifted = self.lift(vectors[:, keep])
        newest = self.basis[self.length].clone()
        couplings = self.residual * vectors[-1, keep]
        self.projected.zero_()
        self.length = len(keep)
        self.basis[: self.length] = lifted
        self.projected[: self.length, : self.length] = torch.diag(values[keep])
        self.basis[self.length] = newest
        if self.length < self.room:
            self.projected[self.length, : self.length] = couplings
            self.projected[: self.length, self.length] = couplings

    def random(self) -> Tensor:
        """A random direction, the same on every device."""
        drawn = torch.randn(self.basis.shape[1], generator=self._generator, dtype=torch.float64)
        return drawn.to(self.basis)

    def _place(self, vector: Tensor, index: int) -> None:
        vector = vector / torch.linalg.vector_norm(vector)
        rest, _ = self._orthogonal(vector, index)
        self.basis[index] = rest / torch.linalg.vector_norm(rest)

    def _orthogonal(self, vector: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The part orthogonal to the first `count` rows and the locked ones, and the components."""
        column = torch.zeros(count, dtype=torch.float64)
        rest = vector
        for _ in range(2):  # twice is enough (Parlett 1998, section 6.9)
            if len(self._locked):
                rest = rest - self._locked.T @ (self._locked @ rest)
            if count:
                components = self.basis[:count] @ rest
                rest = rest - self.basis[:count].T @ components
                column += components.to(column)
        return rest, column


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
    """The pairs found so far, and the products spent on them."""

    def __init__(self, product: Product, order: Order, search: Search, like: Tensor) -> None:
        self._multiply, self._order, self._search = product, order, search
        self._generator = torch.Generator().manual_seed(search.seed)
        self._like = like
        self._products = 0
        self._norm = 0.0  # the largest eigenvalue seen, in magnitude
        self._values = torch.empty(0, dtype=torch.float64)
        self._residuals = torch.empty(0, dtype=torch.float64)
        self._vectors = like.new_empty(0, len(like))

    def find(self) -> EigenPairs:
        count = self._search.count
        self._search_once(count, above=None)
        last = -math.inf
        while self._converged() and self._search.look_again and count > 1:
            if len(self._values) == len(self._like):
                break
            lowest = float(self._order(self._values[count - 1 : count]))
            if not self._search_once(count, above=lowest) or lowest == last:
                break
            last = lowest
        return EigenPairs(
            values=self._values[:count],
            vectors=self._vectors[:count],
            residuals=self._residuals[:count],
            products=self._products,
            converged=self._converged(),
        )

    def _converged(self) -> bool:
        count = self._search.count
        enough = len(self._values) >= count
        return enough and self._good(self._values[:count], self._residuals[:count])

    def _product(self, vector: Tensor) -> Tensor:
        self._products += 1
        return self._multiply(vector)

    def _search_once(self, count: int, *, above: float | None) -> bool:
        """One random start; with `above`, for pairs of a higher score than that only.

        Whether it found any.
        """
        free = len(self._like) - len(self._values)
        start = torch.randn(len(self._like), generator=self._generator, dtype=torch.float64)
        krylov = Krylov(
            self._product,
            start.to(self._like),
            size=min(free, self._size()),
            generator=self._generator,
            locked=self._vectors,
        )
        spent = 0
        while True:
            krylov.grow()
            spent += 1
            values, vectors, residuals = krylov.pairs()
            self._norm = max(self._norm, float(values.abs().max()))
            ranked = self._order(values).argsort(descending=True, stable=True)
            scores = self._order(values)[ranked]
            if above is None:
                wanted = ranked[:count]
                done = len(wanted) == count and self._good(values[wanted], residuals[wanted])
            else:
                # A margin: what was found once already comes back within its own error.
                margin = self._search.tolerance * self._bound(torch.tensor(above))
                wanted = ranked[scores > above + float(margin)][:count]
                best = ranked[:1]
                rough = residuals[best] <= ROUGH * values[best].abs()
                done = bool(rough) or spent >= LOOK_AGAIN
                done = done and self._good(values[wanted], residuals[wanted])
            exhausted = krylov.length == free or self._products >= self._search.max_products
            if done or exhausted:
                self._add(values[wanted], krylov.lift(vectors[:, wanted]), residuals[wanted])
                return len(wanted) > 0
            if krylov.full:
                krylov.restart(ranked[: max(count + 4, krylov.room // 2)])

    def _bound(self, values: Tensor) -> Tensor:
        return values.abs().clamp(min=self._search.floor * self._norm)

    def _good(self, values: Tensor, residuals: Tensor) -> bool:
        return bool((residuals <= self._search.tolerance * self._bound(values)).all())

    def _size(self) -> int:
        count = self._search.count
        if self._search.basis is not None:
            return max(self._search.basis, count + 6)
        fits = BASIS_BYTES // (len(self._like) * self._like.element_size())
        return max(2 * count + 10, min(3 * count + 60, fits))

    def _add(self, values: Tensor, vectors: Tensor, residuals: Tensor) -> None:
        values = torch.cat([self._values, values])
        ranked = self._order(values).argsort(descending=True, stable=True)
        self._values = values[ranked]
        self._residuals = torch.cat([self._residuals, residuals])[ranked]
        self._vectors = torch.cat([self._vectors, vectors])[ranked.to(vectors.device)]
