"""Faults of preprocessing: scales of inputs and targets, and training unlike testing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from fault import Fault
from healthy_data import Material, raw_houses
from networks import Standardize
from program import Program
from surgery import Scale, before, behind
from torch import Tensor

from data import Examples

DOLLARS, MEAN_DOLLARS = 115_000.0, 207_000.0  # deviation and mean of the houses' values


def everywhere(program: Program, change: Callable[[Examples], Examples]) -> Program:
    """With the examples of all three parts changed."""

    def data() -> Material:
        material = program.data()
        parts = (material.train, material.validation, material.test)
        train, validation, test = map(change, parts)
        return Material(train=train, validation=validation, test=test)

    return program.but(data=data)


def inputs(program: Program, change: Callable[[Tensor], Tensor]) -> Program:
    """With the inputs of all parts changed."""
    return everywhere(program, lambda p: Examples(inputs=change(p.inputs), targets=p.targets))


def as_bytes(program: Program) -> Program:
    """Pixels from 0 to 255."""
    return inputs(program, lambda x: x * 255)


def from_bytes(program: Program) -> Program:
    """A first layer divides by 255."""
    return before(program, partial(Scale, 1 / 255))


def in_decibels(program: Program) -> Program:
    """Readings as the instrument gives them, about 100 below to 50 above."""
    return inputs(program, lambda x: 40 * x - 60)


def from_decibels(program: Program) -> Program:
    """A first layer undoes it."""
    return before(program, partial(Scale, 1 / 40, 1.5))


def raw_rows(program: Program) -> Program:
    """Degrees, rooms, people and incomes as they stand in the table."""

    def data() -> Material:
        raw, material = raw_houses(), program.data()
        pairs = (
            (raw.train, material.train),
            (raw.validation, material.validation),
            (raw.test, material.test),
        )
        train, validation, test = (
            Examples(inputs=rows.inputs, targets=part.targets) for rows, part in pairs
        )
        return Material(train=train, validation=validation, test=test)

    return program.but(data=data)


def standardising(program: Program) -> Program:
    """A first layer standardises by the training part."""
    return before(program, lambda: Standardize(program.data().train.inputs))


def divided_again(program: Program) -> Program:
    """Pixels that were in [0, 1] already, divided by 255."""
    return inputs(program, lambda x: x / 255)


def multiplied_back(program: Program) -> Program:
    """A first layer undoes it."""
    return before(program, partial(Scale, 255.0))


def targets(program: Program, *, factor: float, shift: float) -> Program:
    """Targets in their own unit; the score is in it too."""
    return everywhere(
        program, lambda p: Examples(inputs=p.inputs, targets=p.targets * factor + shift)
    )


def in_target_unit(program: Program, *, factor: float, shift: float) -> Program:
    """A last layer brings the outputs into the targets' unit."""
    return behind(program, partial(Scale, factor, shift))


def only_training_scaled(program: Program, *, change: Callable[[Tensor], Tensor]) -> Program:
    """The training part is preprocessed; validation and test are forgotten."""

    def data() -> Material:
        material = program.data()
        train = Examples(inputs=change(material.train.inputs), targets=material.train.targets)
        return replace(material, train=train)

    return program.but(data=data)


def own_vocabulary(program: Program) -> Program:
    """The words of validation and test are numbered in another order than those of the training."""

    def renumbered(symbols: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(1)
        table = torch.cat(
            [torch.zeros(1, dtype=torch.long), 1 + torch.randperm(2000, generator=draw)]
        )
        return table[symbols]

    return only_training_scaled(program, change=renumbered)


def standardised_rows(values: Tensor) -> Tensor:
    """Every column by its own mean and deviation."""
    return (values - values.mean(0)) / values.std(0)


FAULTS = (
    Fault(
        cause="input_not_normalized",
        base=as_bytes,
        fixed=from_bytes,
        setups=("keras-mnist",),
        loops=("mlp-mnist",),
        notes="recipes with batch norm, and Adam on small networks, stand it, and are left out",
    ),
    Fault(
        cause="input_not_normalized",
        base=raw_rows,
        fixed=standardising,
        setups=("mlp-housing",),
        loops=("dear-houses",),
    ),
    Fault(
        cause="input_not_normalized",
        base=in_decibels,
        fixed=from_decibels,
        setups=("lstm-oil",),
        loops=("conv-oil",),
    ),
    Fault(
        cause="input_double_normalized",
        base=divided_again,
        fixed=multiplied_back,
        setups=("mlp-digits", "keras-mnist", "conv-mnist", "conv-oil"),
        loops=("mlp-mnist", "mlp-housing"),
        notes="recipes with batch norm stand it, and are left out",
    ),
    Fault(
        cause="target_not_normalized",
        base=partial(targets, factor=DOLLARS, shift=MEAN_DOLLARS),
        fixed=partial(in_target_unit, factor=DOLLARS, shift=MEAN_DOLLARS),
        setups=("mlp-housing", "counts-molecules", "lstm-oil"),
        loops=("conv-oil",),
        notes="only regression has targets to scale; the molecules and the oil are told in "
        "units as small as the houses' dollars",
    ),
    Fault(
        cause="target_not_normalized",
        base=partial(targets, factor=400.0, shift=1000.0),
        fixed=partial(in_target_unit, factor=400.0, shift=1000.0),
        setups=("gru-molecules",),
    ),
    Fault(
        cause="preprocess_train_test_mismatch",
        base=as_bytes,
        broken=partial(only_training_scaled, change=lambda x: x / 255),
        fixed=from_bytes,
        setups=("conv-fashion",),
    ),
    Fault(
        cause="preprocess_train_test_mismatch",
        broken=partial(only_training_scaled, change=lambda x: 1 - x),
        setups=("mlp-digits",),
        loops=("mlp-mnist",),
        notes="dark on light in training, light on dark in validation and test",
    ),
    Fault(
        cause="preprocess_train_test_mismatch",
        base=raw_rows,
        broken=partial(only_training_scaled, change=standardised_rows),
        fixed=standardising,
        setups=("mlp-housing",),
        loops=("dear-houses",),
    ),
    Fault(
        cause="preprocess_train_test_mismatch",
        base=in_decibels,
        broken=partial(only_training_scaled, change=lambda x: x / 40 + 1.5),
        fixed=from_decibels,
        setups=("conv-speech", "lstm-oil"),
    ),
    Fault(
        cause="preprocess_train_test_mismatch",
        broken=own_vocabulary,
        setups=("lstm-reviews",),
    ),
)
