"""Tests of what a Dataset is assembled from: the splits, the statistics, the notes."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import DataError
from leadline.data.assemble import assemble
from leadline.data.examples import ArrayExamples, Dataset


def examples(targets: list[int], *, seed: int = 0) -> ArrayExamples:
    luck = torch.Generator().manual_seed(seed)
    shape = (len(targets), 1, 2, 2)
    pixels = torch.randint(0, 256, shape, generator=luck, dtype=torch.uint8)
    return ArrayExamples(pixels, torch.tensor(targets))


def put_together(train: ArrayExamples, **parts: ArrayExamples) -> Dataset:
    return assemble(
        "toy",
        train,
        val=parts.get("val"),
        test=parts.get("test"),
        class_names=("a", "b"),
        val_fraction=0.1,
        test_fraction=0.2,
        notes=("found it",),
    )


def test_parts_that_are_given_are_left_alone() -> None:
    train, val, test = (examples([0, 1] * 3, seed=seed) for seed in range(3))
    data = put_together(train, val=val, test=test)
    assert (data.train, data.val, data.test) == (train, val, test)
    assert data.notes == ("found it", "split: train 6, validation 6 (as given), test 6 (as given)")


def test_statistics_come_from_training_alone() -> None:
    train = examples([0, 1] * 50)
    data = put_together(train)
    pixels = data.train.take(torch.arange(len(data.train))).double() / 255
    assert data.mean == pytest.approx((float(pixels.mean()),), rel=1e-12)
    assert data.std == pytest.approx((float(pixels.std(correction=0)),), rel=1e-12)
    loud = ArrayExamples(torch.full((4, 1, 2, 2), 255, dtype=torch.uint8), torch.tensor([0, 1] * 2))
    with_loud = put_together(train, val=loud, test=loud)
    without = put_together(train, val=train, test=train)
    assert with_loud.mean == without.mean


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(DataError, match=r"a class with at least three examples.*\nreceived 2"):
        put_together(examples([0, 1]))
    with pytest.raises(DataError, match="at least three examples"):
        put_together(examples([0, 0, 1, 1]))
    assert len(put_together(examples([0, 0, 0, 1])).train) == 2


def test_one_class_that_occurs_is_refused() -> None:
    with pytest.raises(DataError, match="at least two classes to tell apart"):
        put_together(examples([0, 0, 0, 0]))
