"""Tests of the stratified split: shares, completeness, and that it never changes."""

from __future__ import annotations

import pytest
import torch

from leadline.data.split import stratified_split


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_every_class_gives_its_share(fraction: float) -> None:
    targets = torch.arange(3).repeat_interleave(torch.tensor([10, 100, 1000]))
    split = stratified_split(targets, fraction=fraction)
    counts = torch.bincount(targets[split.held_out])
    assert counts.tolist() == [round(n * fraction) for n in (10, 100, 1000)]


def test_the_parts_are_all_examples_once() -> None:
    targets = torch.randint(0, 7, (500,), generator=torch.Generator().manual_seed(0))
    split = stratified_split(targets, fraction=0.3)
    together = torch.cat([split.kept, split.held_out]).sort().values
    assert torch.equal(together, torch.arange(500))


def test_tiny_classes_keep_one_and_give_one() -> None:
    targets = torch.tensor([0, 1, 1, 2, 2, 2])
    split = stratified_split(targets, fraction=0.01)
    assert torch.bincount(targets[split.kept]).tolist() == [1, 1, 2]
    assert torch.bincount(targets[split.held_out]).tolist() == [0, 1, 1]
    greedy = stratified_split(targets, fraction=0.99)
    assert torch.bincount(targets[greedy.kept]).tolist() == [1, 1, 1]


def test_the_split_is_the_one_it_has_always_been() -> None:
    split = stratified_split(torch.tensor([0] * 10 + [1] * 10), fraction=0.3)
    assert split.held_out.tolist() == [1, 2, 4, 11, 14, 15]


def test_the_held_out_are_spread_over_the_class() -> None:
    held_out = stratified_split(torch.zeros(10_000, dtype=torch.int64), fraction=0.2).held_out
    counts = torch.histc(held_out.float(), bins=10, min=0, max=10_000)
    assert counts.min() > 150  # 200 expected, standard deviation 12
    assert counts.max() < 250
