"""Remedies of the data: shuffled, labels put right, classes weighed, finite examples only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leadline.doctor.remedy import Remedy
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
    """The same examples in an order drawn anew for each epoch, in batches of the same size."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        drawn = list(self.source)
        inputs = torch.cat([x for x, _ in drawn])
        targets = torch.cat([y for _, y in drawn])
        order = torch.randperm(len(inputs))
        size = len(drawn[0][0])
        for start in range(0, len(inputs), size):
            chosen = order[start : start + size]
            yield inputs[chosen], targets[chosen]

    def __len__(self) -> int:
        return len(self.source)


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
        drawn = list(self.source)
        inputs = torch.cat([x for x, _ in drawn])
        targets = torch.cat([y for _, y in drawn])
        weights = self.weights[self.wanted(targets)]
        order = torch.multinomial(weights, len(inputs), replacement=True)
        size = len(drawn[0][0])
        for start in range(0, len(inputs), size):
            chosen = order[start : start + size]
            yield inputs[chosen], targets[chosen]

    def __len__(self) -> int:
        return len(self.source)


def finite_only() -> Remedy:
    """Leave out examples that hold NaN or infinity."""

    def change(inputs: Any, targets: Any) -> tuple[Any, Any]:
        keep = torch.isfinite(inputs.flatten(1)).all(dim=1)
        return inputs[keep], targets[keep]

    return Remedy(
        title="leave out examples that are not finite",
        apply=lambda setup: replace(setup, batches=_Full(Mapped(setup.batches, change))),
        lines=("+ keep = torch.isfinite(inputs).flatten(1).all(1)",),
    )


class _Full:
    """Batches of which none is empty: one without examples gives no gradient, and is left out."""

    def __init__(self, source: Mapped) -> None:
        self.source = source
        self._count: int | None = None

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (batch for batch in self.source if len(batch[0]))

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count
