"""Similarity of representations: linear CKA between layers and between models.

Two layers see the same n examples and represent them as X [n, p] and Y [n, q], centred. Linear CKA
    |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)  =  HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))
with K = X X^T, L = Y Y^T is 1 for representations that are rotations and scalings of each other
(Kornblith et al. 2019, arXiv:1905.00414). With few examples it is far above 0 even for independent
ones; with the unbiased estimate of HSIC (Song et al. 2012; Nguyen et al. 2021, arXiv:2010.15327)

    HSIC1(K, L) = [tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2/(n-2) 1'KL1] / (n (n-3)),   diagonals 0

it is 0 there on average, and may fall below. That one is the default here, which may surprise: it
needs four examples.

Of each layer only the smaller of X and K is kept, so that a convolution's millions of features cost
n^2 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.taps import Taps
from leadline.measure.batch import Batch, read_batch
from leadline.measure.layers import Layer, on_layer


@dataclass(frozen=True, kw_only=True)
class SimilarityMatrix:
    """A number for each pair of a layer in `rows` and one in `columns`, in depth order."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    reading: str = (
        "1: the same up to rotation and scale; 0: nothing in common; blocks of layers near 1 add "
        "little to each other; layer i of two runs agrees most with layer i"
    )

    def most_similar(self) -> dict[str, str]:
        """The most similar column of each row."""
        best = [max(range(len(row)), key=row.__getitem__) for row in self.values]
        return {row: self.columns[i] for row, i in zip(self.rows, best, strict=True)}

    def neighbours(self) -> Profile:
        """Each layer's similarity to the one before it, of a matrix within one model."""
        return Profile(
            name="similarity to the layer before",
            unit="CKA",
            reading="near 1 the layer changes little; a sudden fall is where the representation "
            "is made anew",
            layers=self.rows[1:],
            values={"similarity": tuple(self.values[i + 1][i] for i in range(len(self.rows) - 1))},
        )


def linear_cka(
    first: Float[Tensor, "N P"], second: Float[Tensor, "N Q"], *, unbiased: bool = True
) -> float:
    """Linear CKA of two representations of the same examples, row by row.

    With `unbiased=False` the original, between 0 and 1. NaN if one of the two is constant. Raises
    MeasurementError for other shapes, and for fewer than four examples (two if not unbiased).

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    >>> round(linear_cka(x, 2 * x @ turn), 4)
    1.0
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise MeasurementError(
            expected="two matrices with a row per example, the same examples in the same order",
            received=f"shapes {tuple(first.shape)} and {tuple(second.shape)}",
            remedy="flatten what belongs to one example: activations.flatten(1)",
        )
    _check_examples(len(first), unbiased=unbiased)
    x, y = _Representation.of(first), _Representation.of(second)
    inner = _inner_unbiased if unbiased else _inner
    return _ratio(inner(x, y), inner(x, x), inner(y, y))


def layer_similarity(
    model: nn.Module,
    inputs: Any,
    *,
    other: nn.Module | None = None,
    unbiased: bool = True,
    layers: Sequence[str] | None = None,
) -> SimilarityMatrix:
    """Linear CKA between all layers of a model, or those of `model` and of `other`.

    `inputs` is a batch in any form; its targets are not used. All that a layer puts out for one
    example is its representation; a layer whose output has not one row per example (or a multiple,
    as windows of an image) is left out. `layers` names those to compare; by default all. Both
    models get the same inputs, each in the mode it is in. Raises MeasurementError for fewer than
    four examples (two if not unbiased), no layers, or a model that fails on the batch.

    **Cost: 1 forward pass** per model, and n^2 multiplications per feature of each layer.

    **How to read it**: use as many examples as memory allows, 100 or more. A wide block of layers
    near 1 adds little to each other (Nguyen et al. 2021); between two trained runs the diagonal
    stands out (Kornblith et al. 2019).

    >>> model = nn.Sequential(nn.Linear(3, 3), nn.Identity())
    >>> layer_similarity(model, torch.randn(20, 3)).most_similar()["1"] in ("0", "1")
    True
    """
    batch = read_batch(inputs, model=model)
    _check_examples(batch.examples, unbiased=unbiased)
    rows = _representations(model, batch, layers)
    columns = rows
    if other is not None:
        columns = _representations(other, read_batch(inputs, model=other), layers)
    inner = _inner_unbiased if unbiased else _inner
    own_rows = {name: inner(x, x) for name, x in rows.items()}
    own_columns = {name: inner(y, y) for name, y in columns.items()}
    values = _matrix(rows, columns, own_rows, own_columns, inner)
    return SimilarityMatrix(rows=tuple(rows), columns=tuple(columns), values=values)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Representation:
    """One layer's view of n examples: centred features where they are fewer than n, else K."""

    features: Float[Tensor, "N P"] | None
    gram: Float[Tensor, "N N"] | None

    @staticmethod
    def of(features: Tensor) -> _Representation:
        exact = torch.float64 if features.dtype == torch.float64 else torch.float32
        features = features.detach().to(exact)
        features = features - features.mean(0)
        examples, width = features.shape
        if width <= examples:
            return _Representation(features=features.cpu().double(), gram=None)
        return _Representation(features=None, gram=(features @ features.T).cpu().double())

    def times(self, vectors: Float[Tensor, "N M"]) -> Float[Tensor, "N M"]:
        """K times some columns."""
        if self.gram is not None:
            return self.gram @ vectors
        assert self.features is not None
        return self.features @ (self.features.T @ vectors)

    def diagonal(self) -> Float[Tensor, "N"]:
        if self.gram is not None:
            return self.gram.diagonal()
        assert self.features is not None
        return self.features.square().sum(1)


def _inner(x: _Representation, y: _Representation) -> float:
    """tr(K L) of the centred K and L, in the cheapest form."""
    if x.features is not None and y.features is not None:
        return float((y.features.T @ x.features).square().sum())
    if x.gram is not None and y.gram is not None:
        return float((x.gram * y.gram).sum())
    features, gram = (x, y.gram) if x.features is not None else (y, x.gram)
    assert features.features is not None
    assert gram is not None
    return float((features.features * (gram @ features.features)).sum())


def _inner_unbiased(x: _Representation, y: _Representation) -> float:
    """n (n - 3) HSIC1; that K is centred beforehand does not change it."""
    x_diagonal, y_diagonal = x.diagonal(), y.diagonal()
    count = len(x_diagonal)
    ones = torch.ones(count, 1, dtype=torch.float64)
    x_rows = x.times(ones)[:, 0] - x_diagonal  # K 1 with K's diagonal at 0
    y_rows = y.times(ones)[:, 0] - y_diagonal
    trace = _inner(x, y) - float(x_diagonal @ y_diagonal)
    means = float(x_rows.sum() * y_rows.sum()) / ((count - 1) * (count - 2))
    return trace + means - 2 * float(x_rows @ y_rows) / (count - 2)


def _ratio(both: float, first: float, second: float) -> float:
    if first <= 0 or second <= 0:
        return float("nan")
    return both / math.sqrt(first * second)


def _matrix(
    rows: dict[str, _Representation],
    columns: dict[str, _Representation],
    own_rows: dict[str, float],
    own_columns: dict[str, float],
    inner: Callable[[_Representation, _Representation], float],
) -> tuple[tuple[float, ...], ...]:
    known: dict[frozenset[str], float] = {}  # within one model the matrix is symmetric
    values = []
    for row, x in rows.items():
        line = []
        for column, y in columns.items():
            pair = frozenset((row, column))
            if rows is not columns or pair not in known:
                known[pair] = _ratio(inner(x, y), own_rows[row], own_columns[column])
            line.append(known[pair])
        values.append(tuple(line))
    return tuple(values)


def _representations(
    model: nn.Module, batch: Batch, names: Sequence[str] | None
) -> dict[str, _Representation]:
    found: dict[str, _Representation] = {}
    passed: list[str] = []

    def keep(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        passed.append(layer.name)
        if names is not None and layer.name not in names:
            return
        if output.ndim < 2 or len(output) % batch.examples or not output.numel():
            return
        found[layer.name] = _Representation.of(output.reshape(batch.examples, -1))

    with Taps(model) as taps, torch.no_grad():
        on_layer(taps, keep)
        batch.forward(model)
    missing = [name for name in names or () if name not in found]
    if missing or not found:
        raise MeasurementError(
            expected="layers with an output for each example",
            received=f"none of the name {missing[0]!r}" if missing else "no such layer",
            remedy=f"choose among {', '.join(passed[:20])}" if passed else "pass a network",
        )
    return found


def _check_examples(count: int, *, unbiased: bool) -> None:
    fewest = 4 if unbiased else 2
    if count < fewest:
        raise MeasurementError(
            expected=f"{fewest} examples or more"
            + (" for the unbiased estimate" if unbiased else ""),
            received=f"{count}",
            remedy="pass a larger batch; 100 examples or more tell most",
        )
