"""Tests of the sums over attention weights, against the whole matrix of weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from leadline.measure.units import attention_heads
from leadline.measure.units.attention_heads import HeadSums, add_slices, add_weights


def whole(weights: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """The means, row by row in plain loops, in 64 bits."""
    examples, heads, targets, sources = weights.shape
    rows: dict[str, list[list[float]]] = {
        name: [[] for _ in range(heads)]
        for name in ("entropy", "ratio", "first", "diagonal", "distance")
    }
    for n in range(examples):
        for h in range(heads):
            for t in range(targets):
                row = weights[n, h, t].double()
                count = int(visible[n, h, t].sum())
                if count < 2:
                    continue
                entropy = -sum(a * math.log(a) for a in row.tolist() if a > 0)
                rows["entropy"][h].append(entropy)
                rows["ratio"][h].append(entropy / math.log(count))
                rows["first"][h].append(row[0].item())
                rows["diagonal"][h].append(row[t].item())
                far = sum(abs(s - t) * row[s].item() for s in range(sources))
                rows["distance"][h].append(far)
    return {
        name: torch.tensor([sum(row) / len(row) for row in table]) for name, table in rows.items()
    }


@pytest.mark.parametrize("size", [2**24, 1000, 20])
@pytest.mark.parametrize("masked", ["not", "causal", "boolean", "numbers"])
def test_the_means_are_those_of_the_whole_matrix(
    size: int, masked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_heads, "SLICE", size)  # 20: less than one query's keys
    torch.manual_seed(0)
    query, key = torch.randn(3, 2, 7, 4), torch.randn(3, 2, 7, 4)
    mask = torch.rand(3, 1, 7, 7) > 0.4
    mask[0, 0, 3] = False  # a query that sees nothing
    mask[0, 0, 4] = torch.arange(7) == 2  # and one that has no choice
    if masked == "not":
        visible = torch.ones(3, 2, 7, 7, dtype=torch.bool)
        sums = add_slices(query, key)
    elif masked == "causal":
        visible = torch.ones(3, 2, 7, 7, dtype=torch.bool).tril()
        sums = add_slices(query, key, causal=True)
    elif masked == "boolean":
        visible = mask.expand(3, 2, 7, 7)
        sums = add_slices(query, key, mask=mask)
    else:
        visible = mask.expand(3, 2, 7, 7)
        sums = add_slices(query, key, mask=torch.zeros(mask.shape).masked_fill(~mask, -torch.inf))
    scores = (query @ key.transpose(-1, -2)).masked_fill(~visible, -torch.inf)
    weights = scores.softmax(-1).nan_to_num()
    for name, expected in whole(weights, visible).items():
        torch.testing.assert_close(sums.means()[name], expected, rtol=1e-5, atol=1e-6)
    again = add_weights(weights, scores)
    for name, expected in sums.means().items():
        torch.testing.assert_close(again.means()[name], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again.products, sums.products, rtol=1e-4, atol=1e-5)
    chosen = (visible.sum(-1, keepdim=True) >= 2).float()
    uniform = visible / visible.sum(-1, keepdim=True).clamp(min=1)
    deviation = ((weights - uniform) * chosen).transpose(0, 1).flatten(1)
    torch.testing.assert_close(sums.products, deviation @ deviation.T, rtol=1e-4, atol=1e-5)


def test_positions_say_nothing_when_there_are_more_keys_than_queries() -> None:
    means = add_slices(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 5, 4)).means()
    torch.testing.assert_close(means["entropy"], torch.full((2,), math.log(5)))
    assert means["diagonal"].isnan().all()
    assert means["distance"].isnan().all()


def test_no_rows_have_no_mean() -> None:
    sums = HeadSums.empty(torch.ones(1, 2, 3, 3))
    assert sums.means()["ratio"].isnan().all()


def test_heads_that_are_multiples_of_each_others_deviation_are_correlated() -> None:
    torch.manual_seed(0)
    weights = torch.randn(2, 3, 6, 6).softmax(-1)
    weights[:, 1] = weights[:, 0]
    sums = add_weights(weights, weights.log())
    correlation = sums.correlation()
    assert correlation[0, 1].item() == pytest.approx(1.0, abs=1e-5)
    assert abs(correlation[0, 2].item()) < 0.5
