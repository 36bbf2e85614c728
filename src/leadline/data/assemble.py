"""From examples to a Dataset: split what is not split, measure the channels, say what was done."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from leadline.core.errors import DataError
from leadline.data.examples import Dataset, Examples
from leadline.data.split import stratified_split
from leadline.data.statistics import channel_statistics


def assemble(
    name: str,
    train: Examples,
    *,
    val: Examples | None = None,
    test: Examples | None = None,
    class_names: Sequence[str],
    val_fraction: float,
    test_fraction: float,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Dataset:
    """Make a Dataset called `name`; `val` and `test` are split off `train`, by `seed`, where None.

    Raises `DataError` when there is one class only, or too little to hold anything out.
    """
    said = list(notes)
    present = len(torch.unique(train.targets))
    if len(class_names) < 2 or present < 2:
        raise DataError(
            expected="at least two classes to tell apart",
            received=f"{present} in {name}: {', '.join(map(repr, class_names[:3]))}",
            remedy="add a second class; a network that always says the same learns nothing",
        )
    rules = []
    if test is None:
        split = stratified_split(train.targets, fraction=test_fraction, seed=seed)
        if len(split.held_out) == 0:
            raise _too_few(name, train)
        train, test = train.subset(split.kept), train.subset(split.held_out)
        rules.append(f"test {len(test):,} (stratified, {test_fraction:g} of all)")
    else:
        rules.append(f"test {len(test):,} (as given)")
    if val is None:
        split = stratified_split(train.targets, fraction=val_fraction, seed=seed)
        if len(split.held_out) == 0:
            raise _too_few(name, train)
        train, val = train.subset(split.kept), train.subset(split.held_out)
        rules.append(f"validation {len(val):,} (stratified, {val_fraction:g} of the rest)")
    else:
        rules.append(f"validation {len(val):,} (as given)")
    said.append(f"split: train {len(train):,}, {', '.join(reversed(rules))}")
    statistics = channel_statistics(train)
    if statistics.measured < len(train):
        said.append(f"mean and std are from {statistics.measured:,} of the training pictures")
    for channel in statistics.constant:
        said.append(
            f"channel {channel} has the same value in every training picture: "
            "its std is taken as 1, and it carries no information"
        )
    return Dataset(
        name=name,
        train=train,
        val=val,
        test=test,
        class_names=tuple(class_names),
        notes=tuple(said),
        mean=statistics.mean,
        std=statistics.std,
    )


def _too_few(name: str, train: Examples) -> DataError:
    return DataError(
        expected="a class with at least three examples, to train on, to validate and to test",
        received=f"{len(train)} examples in {name}, at most two in any class",
        remedy="add examples, or give validation and test examples of their own",
    )
