"""Sums over attention weights, per head, from as many slices of them as memory asks for.

Weights A [N, H, T, S] of N examples, H heads, T queries and S keys are large; what is asked of them
are a few numbers per head. The sums here take them slice by slice. A key counts as visible when its
score is above -5000: masks add minus infinity, the smallest number of the type, or -10000.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

HIDDEN_SCORE = -5000.0
SLICE = 2**24  # weights held at a time; 64 MiB in 32 bits


@dataclass(frozen=True, kw_only=True, eq=False)
class Visible:
    """Which keys each query sees, 1 or 0, and how many; `mask` is None where all are seen."""

    mask: Float[Tensor, "..."] | None
    count: Float[Tensor, "..."]

    @staticmethod
    def of_scores(scores: Tensor) -> Visible:
        mask = torch.gt(scores, HIDDEN_SCORE, out=torch.empty_like(scores, dtype=torch.float32))
        return Visible(mask=mask, count=mask.sum(-1))


@dataclass(kw_only=True, eq=False)
class HeadSums:
    """Running sums over rows of weights, for each head; rows with one visible key are left out."""

    rows: Float[Tensor, "H"]
    sums: dict[str, Float[Tensor, "H"]]
    products: Float[Tensor, "H H"]  # of the heads' deviations from the uniform
    square: bool  # as many keys as queries

    @staticmethod
    def empty(weights: Float[Tensor, "N H T S"]) -> HeadSums:
        """The sums of no weights, for weights like these."""
        heads, targets, sources = weights.shape[-3:]
        zero = torch.zeros(heads, dtype=_exact(weights), device=weights.device)
        names = ("entropy", "ratio", "first", "diagonal", "distance")
        return HeadSums(
            rows=zero.clone(),
            sums={name: zero.clone() for name in names},
            products=zero.new_zeros(heads, heads),
            square=targets == sources,
        )

    def add(
        self, weights: Float[Tensor, "N H t S"], visible: Visible, *, first_query: int = 0
    ) -> None:
        """Add the rows of some queries, from `first_query` on, of some examples."""
        weights = weights.to(_exact(weights))
        count = visible.count.to(weights)
        counted = (count >= 2).to(weights)  # 0 where a query has no choice
        if visible.mask is not None:
            weights = weights * counted.unsqueeze(-1)
        entropy = torch.special.entr(weights).sum(-1)
        together = weights.sum(0)
        self.rows += counted.expand_as(entropy).sum((0, 2))
        self.sums["entropy"] += entropy.sum((0, 2))
        self.sums["ratio"] += (entropy / count.clamp(min=2).log()).sum((0, 2))
        self.sums["first"] += together[..., 0].sum(-1)
        if self.square:
            self._add_positions(together, first_query)
        even = (counted / count.clamp(min=1)).unsqueeze(-1)
        deviation = weights - (even if visible.mask is None else even * visible.mask)
        deviation = deviation.flatten(2)
        self.products += (deviation @ deviation.transpose(1, 2)).sum(0)

    def _add_positions(self, together: Float[Tensor, "H t S"], first_query: int) -> None:
        queries, sources = together.shape[-2:]
        keys = torch.arange(sources, device=together.device)
        query = torch.arange(first_query, first_query + queries, device=together.device)
        far = (keys - query[:, None]).abs().to(together)
        self.sums["distance"] += (together * far).sum((1, 2))
        self.sums["diagonal"] += together.diagonal(first_query, -2, -1).sum(-1)

    def means(self) -> dict[str, Float[Tensor, "H"]]:
        """Each quantity's mean over rows; NaN without rows, or where positions say nothing."""
        means = {name: total / self.rows for name, total in self.sums.items()}
        if not self.square:
            nothing = torch.full_like(self.rows, torch.nan)
            means |= {"diagonal": nothing, "distance": nothing}
        return means

    def correlation(self) -> Float[Tensor, "H H"]:
        """The cosine between the heads' deviations from the uniform."""
        norm = self.products.diagonal().sqrt()
        return self.products / (norm[:, None] * norm[None, :]).clamp(min=1e-30)


def add_slices(
    query: Float[Tensor, "N H T E"],
    key: Float[Tensor, "N H S E"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
) -> HeadSums:
    """The sums over softmax(query key^T + mask), a slice of examples and queries at a time.

    A mask of booleans is True where a key is seen, as that of scaled_dot_product_attention; the
    causal one shows query t the keys up to t.

    >>> sums = add_slices(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2), causal=True)
    >>> sums.means()["ratio"], sums.rows
    (tensor([1.]), tensor([2.]))
    """
    exact = _exact(query)
    examples, heads, targets = query.shape[:3]
    sources = key.shape[2]
    if mask is not None:
        mask = mask.expand(examples, heads, targets, sources)
    sums = HeadSums.empty(query.new_empty(0, heads, targets, sources))
    keys = torch.arange(sources, device=query.device)
    for example, rows in _slices(examples, heads, targets, sources):
        scores = query[example, :, rows].to(exact) @ key[example].to(exact).transpose(-1, -2)
        visible = Visible(mask=None, count=scores.new_full((scores.shape[-2],), float(sources)))
        if causal:
            earlier = keys <= torch.arange(targets, device=query.device)[rows, None]
            scores.masked_fill_(~earlier, -torch.inf)
            visible = Visible(mask=earlier.to(exact), count=earlier.sum(-1).to(exact))
        if mask is not None:
            part = mask[example, :, rows]
            if part.dtype == torch.bool:
                scores.masked_fill_(~part, -torch.inf)
            else:
                scores += part
            visible = Visible.of_scores(scores)
        weights = scores.softmax(-1)
        sums.add(
            weights if mask is None else weights.nan_to_num_(), visible, first_query=rows.start
        )
    return sums


def add_weights(weights: Float[Tensor, "N H T S"], scores: Float[Tensor, "N H T S"]) -> HeadSums:
    """The sums over weights that are there already, with the scores they were computed from."""
    examples, heads, targets, sources = weights.shape
    sums = HeadSums.empty(weights)
    for example, rows in _slices(examples, heads, targets, sources):
        visible = Visible.of_scores(scores[example, :, rows])
        part = weights[example, :, rows].nan_to_num()  # of a query that sees nothing
        sums.add(part, visible, first_query=rows.start)
    return sums


def _slices(examples: int, heads: int, targets: int, sources: int) -> Iterator[tuple[slice, slice]]:
    """Slices of examples, and where one example is too large, of its queries."""
    rows = min(max(SLICE // max(heads * sources, 1), 1), targets)
    together = max(SLICE // max(heads * sources * rows, 1), 1) if rows == targets else 1
    for example in range(math.ceil(examples / together)):
        for row in range(math.ceil(targets / rows)):
            yield (
                slice(example * together, (example + 1) * together),
                slice(row * rows, min((row + 1) * rows, targets)),
            )


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
