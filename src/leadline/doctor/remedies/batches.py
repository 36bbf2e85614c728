"""Remedies of the data: shuffled, labels put right, classes weighed, finite examples only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leadline.core.seeds import preserved_random_state
from leadline.doctor.remedy import Remedy
from leadline.training.batches import Positioned
from leadline.training.setup import Setup


class Mapped:
    """Batches with a change applied to each as it comes.

    >>> batches = Mapped([(1, 2)], lambda inputs, targets: (inputs, targets + 1))
    >>> list(batches), len(batches)
    ([(1, 3)], 1)
    """

    def __init__(self, source: Any, change: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        self.source = source
        self.change = change

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for inputs, targets in self.source:
            yield self.change(inputs, targets)

    def __len__(self) -> int:
        return len(self.source)


class Shuffled:
    """The same examples in an order drawn anew for each epoch, in batches of the same sizes."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets, sizes = _all_of(self.source)
        for chosen in torch.randperm(len(inputs)).split(sizes):
            yield inputs[chosen], targets[chosen]

    def __len__(self) -> int:
        return len(self.source)


def _all_of(source: Any) -> tuple[Tensor, Tensor, list[int]]:
    """Inputs and targets of an epoch, one batch behind the other, and the batches' sizes."""
    drawn = list(source)
    inputs, targets = torch.cat([x for x, _ in drawn]), torch.cat([y for _, y in drawn])
    return inputs, targets, [len(x) for x, _ in drawn]


def counted(source: Any, count: Callable[[Any], int]) -> int:
    """The sum of `count` over the batches of an epoch; the source is left where it stood.

    >>> counted([(torch.ones(3), None), (torch.ones(2), None)], lambda batch: len(batch[0]))
    5
    """
    position = source.state_dict() if isinstance(source, Positioned) else None
    with preserved_random_state():
        total = sum(count(batch) for batch in source)
    if position is not None:
        source.load_state_dict(position)
    return total


def shuffled() -> Remedy:
    """Draw the order of the examples anew for every epoch."""
    return Remedy(
        title="shuffle the examples",
        apply=lambda setup: replace(setup, batches=Shuffled(setup.batches)),
        lines=("- DataLoader(data)", "+ DataLoader(data, shuffle=True)"),
    )


def labels_plus(offset: int) -> Remedy:
    """Number the classes from 0 on; the outputs then mean the classes so numbered."""

    def change(inputs: Any, targets: Any) -> tuple[Any, Any]:
        ignored = targets == -100
        return inputs, torch.where(ignored, targets, targets + offset)

    def apply(setup: Setup) -> Setup:
        held_out = None if setup.validation is None else Mapped(setup.validation, change)
        return replace(setup, batches=Mapped(setup.batches, change), validation=held_out)

    sign = f"- {-offset}" if offset < 0 else f"+ {offset}"
    return Remedy(
        title=f"labels {sign}: class numbers begin at 0",
        apply=apply,
        lines=("- loss(outputs, labels)", f"+ loss(outputs, labels {sign})"),
    )


def balanced(counts: Tensor, *, wanted: Callable[[Tensor], Tensor]) -> Remedy:
    """Draw the examples so that every class comes equally often.

    `counts` [C] is how often each class comes; `wanted` turns a batch's targets into class numbers.
    """
    weights = 1.0 / counts.clamp_min(1).double()

    def apply(setup: Setup) -> Setup:
        return replace(setup, batches=Balanced(setup.batches, weights, wanted))

    return Remedy(
        title="draw the classes equally often",
        apply=apply,
        lines=("+ sampler=WeightedRandomSampler(1 / counts[labels], len(labels))",),
    )


class Balanced:
    """The same number of examples, drawn with replacement so that each class comes as often."""

    def __init__(self, source: Any, weights: Tensor, wanted: Callable[[Tensor], Tensor]) -> None:
        self.source = source
        self.weights = weights
        self.wanted = wanted

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets, sizes = _all_of(self.source)
        numbers = self.wanted(targets)
        weights = self.weights[numbers.clamp_min(0)] * (numbers >= 0)  # none of an ignored label
        order = torch.multinomial(weights, len(inputs), replacement=True)
        for chosen in order.split(sizes):
            yield inputs[chosen], targets[chosen]

    def __len__(self) -> int:
        return len(self.source)


def finite_only() -> Remedy:
    """Leave out examples that hold NaN or infinity, in the inputs or in the targets."""

    def change(inputs: Any, targets: Any) -> tuple[Any, Any]:
        keep = finite_rows(inputs) & finite_rows(targets)
        return inputs[keep], targets[keep]

    return Remedy(
        title="leave out examples that are not finite",
        apply=lambda setup: replace(setup, batches=_Full(Mapped(setup.batches, change))),
        lines=("+ keep = torch.isfinite(inputs).flatten(1).all(1)",),
    )


def finite_rows(values: Tensor) -> Tensor:
    """Which rows [N, ...] hold no NaN and no infinity: [N], booleans."""
    return torch.isfinite(values.reshape(len(values), -1)).all(dim=1)


class _Full:
    """Batches of which none is empty: one without examples gives no gradient, and is left out."""

    def __init__(self, source: Mapped) -> None:
        self.source = source
        self._count: int | None = None

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (batch for batch in self.source if len(batch[0]))

    def __len__(self) -> int:
        if self._count is None:
            self._count = counted(self.source, lambda batch: len(batch[0]) > 0)
        return self._count
