"""Faults of the data: labels, order, balance, augmentation, examples changed where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from fault import Fault
from healthy_data import Material
from program import Program
from surgery import before, more_outputs
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from data import Examples


def in_training(program: Program, change: Callable[[Examples], Examples]) -> Program:
    """With the training examples changed; validation and test stay."""

    def data() -> Material:
        material = program.data()
        return replace(material, train=change(material.train))

    return program.but(data=data)


def in_fitting(program: Program, change: Callable[[Examples], Examples]) -> Program:
    """With the training and the validation examples changed; the test stays."""

    def data() -> Material:
        material = program.data()
        train, validation = change(material.train), change(material.validation)
        return replace(material, train=train, validation=validation)

    return program.but(data=data)


def rare_yes(program: Program, *, left: int) -> Program:
    """Of the yes only `left` are left, as of a defect or a disease."""

    def skewed(part: Examples) -> Examples:
        yes = (part.targets.flatten() > 0.5).nonzero()[:left, 0]
        no = (part.targets.flatten() < 0.5).nonzero()[:, 0]
        rows = torch.cat([yes, no])
        return part[rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]]

    return in_training(program, skewed)


def common_zero(program: Program, *, left: int) -> Program:
    """Class 0 four times over, and only `left` examples of every other."""

    def skewed(part: Examples) -> Examples:
        kept = [(part.targets == 0).nonzero()[:, 0].repeat(4)]
        for label in range(1, int(part.targets.max()) + 1):
            kept.append((part.targets == label).nonzero()[:left, 0])
        rows = torch.cat(kept)
        return part[rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]]

    return in_training(program, skewed)


def weighted(program: Program) -> Program:
    """The loss weighs every answer by how rare it is."""
    targets = program.data().train.targets
    if program.kind == "classes":
        weights = 1 / targets.bincount().float()
        return program.but(loss=partial(functional.cross_entropy, weight=weights / weights.mean()))
    ratio = (targets < 0.5).sum() / (targets > 0.5).sum()
    return program.but(loss=partial(functional.binary_cross_entropy_with_logits, pos_weight=ratio))


def wrong_labels(program: Program) -> Program:
    """Seven in ten targets are those of other examples."""

    def corrupted(part: Examples) -> Examples:
        draw = torch.Generator().manual_seed(1)
        rows = torch.randperm(len(part), generator=draw)[: 7 * len(part) // 10]
        targets = part.targets.clone()
        targets[rows] = part.targets[rows[torch.randperm(len(rows), generator=draw)]]
        return Examples(inputs=part.inputs, targets=targets)

    return in_fitting(program, corrupted)


def sorted_by_target(program: Program) -> Program:
    """The training part as it lies in a folder per class, or sorted by the target."""

    def in_order(part: Examples) -> Examples:
        keys = part.targets.flatten(1).sum(1) if part.targets.ndim > 1 else part.targets
        return part[keys.argsort(stable=True)]

    return in_training(program, in_order)


def unshuffled(program: Program) -> Program:
    """`shuffle=False`."""
    return program.but(shuffled=False)


def labels_from_one(program: Program) -> Program:
    """Labels 1 to C, with an output to spare so that the loss does not complain."""

    def counted_from_one(part: Examples) -> Examples:
        return Examples(inputs=part.inputs, targets=part.targets + 1)

    return more_outputs(in_fitting(program, counted_from_one), 1)


def answers_from_one(program: Program) -> Program:
    """1 and 2 for no and yes."""

    def counted_from_one(part: Examples) -> Examples:
        return Examples(inputs=part.inputs, targets=part.targets + 1)

    return in_fitting(program, counted_from_one)


def targets_not_shifted(program: Program) -> Program:
    """The symbol to be named is the one that is shown."""

    def unshifted(part: Examples) -> Examples:
        return Examples(inputs=part.inputs, targets=part.inputs)

    return in_fitting(program, unshifted)


def holes(program: Program) -> Program:
    """A missing value here and there in the training inputs."""

    def with_holes(part: Examples) -> Examples:
        draw = torch.Generator().manual_seed(1)
        inputs = part.inputs.clone()
        rows = torch.randperm(len(part), generator=draw)[: len(part) // 100]
        columns = torch.randint(inputs[0].numel(), (len(rows),), generator=draw)
        inputs.flatten(1)[rows, columns] = torch.nan
        return Examples(inputs=inputs, targets=part.targets)

    return in_training(program, with_holes)


class Hiding(Dataset[tuple[Tensor, Tensor]]):
    """Hides a fifth of an example's values when it is asked for: in a copy, or for good.

    The generator is the data set's own, and draws anew for every example.
    """

    def __init__(self, examples: Examples, *, copied: bool) -> None:
        self.inputs = examples.inputs.clone()
        self.targets = examples.targets
        self.copied = copied

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        example = self.inputs[index]
        if self.copied:
            example = example.clone()
        unknown = 0 if example.is_floating_point() else 1
        example[torch.rand(example.shape) < 0.2] = unknown
        return example, self.targets[index]


def hidden_values(program: Program, *, copied: bool) -> Program:
    """Augmentation by a data set that hides values."""

    def feed(program: Program) -> Iterable[Any]:
        data = Hiding(program.data().train, copied=copied)
        return DataLoader(data, batch_size=program.batch_size, shuffle=True)

    return program.but(feed=feed)


class Slices:
    """Batches that are parts of the whole tensor, not copies: the fastest way, and the sharpest."""

    def __init__(self, program: Program) -> None:
        examples = program.data().train
        self.inputs, self.targets = examples.inputs.clone(), examples.targets
        self.batch_size = program.batch_size

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        parts = zip(
            self.inputs.split(self.batch_size), self.targets.split(self.batch_size), strict=True
        )
        return iter(parts)


class Normalising(nn.Module):
    """Scales its input, by `/=` in the tensor itself or by `/` in a new one."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.in_place:
            return inputs / 0.5
        inputs /= 0.5
        return inputs


def scaling_model(program: Program, *, in_place: bool) -> Program:
    """The model scales its inputs, which are parts of the data set."""
    return before(program, partial(Normalising, in_place=in_place)).but(feed=Slices)


FAULTS = (
    Fault(
        cause="class_imbalance",
        base=partial(rare_yes, left=25),
        fixed=weighted,
        setups=("dear-houses",),
        notes="the fixed twin weighs the answers; pixels and notes are not seeded, since their "
        "imbalance is the nature of the data",
    ),
    Fault(
        cause="class_imbalance",
        base=partial(rare_yes, left=300),
        fixed=weighted,
        setups=("lstm-reviews", "gru-reviews"),
        loops=("attention-reviews",),
    ),
    Fault(
        cause="class_imbalance",
        base=partial(common_zero, left=20),
        fixed=weighted,
        setups=("conv-speech", "conv-fashion"),
        loops=("mlp-mnist",),
    ),
    Fault(
        cause="label_corrupted",
        broken=wrong_labels,
        setups=("mlp-digits", "conv-speech", "mlp-housing", "conv-oil", "lstm-reviews"),
        loops=("mlp-mnist",),
        notes="validation is corrupted alike, the test is not",
    ),
    Fault(
        cause="shuffle_missing",
        base=sorted_by_target,
        broken=unshuffled,
        setups=("conv-mnist", "gru-speech", "mlp-housing", "conv-speech"),
        loops=("mlp-mnist", "lstm-reviews"),
    ),
    Fault(
        cause="labels_shifted",
        broken=labels_from_one,
        setups=("mlp-digits", "conv-mnist", "gru-speech"),
        loops=("lstm-reviews",),
        notes="labels from 1 with an output to spare; the test counts from 0",
    ),
    Fault(cause="labels_shifted", broken=answers_from_one, setups=("gru-reviews", "dear-houses")),
    Fault(
        cause="labels_shifted",
        broken=targets_not_shifted,
        setups=("gpt-shakespeare",),
        loops=("lstm-shakespeare",),
        notes="targets are the inputs, not one place on",
    ),
    Fault(
        cause="data_modified_in_place",
        broken=partial(hidden_values, copied=False),
        fixed=partial(hidden_values, copied=True),
        setups=("mlp-digits", "conv-speech"),
        loops=("lstm-reviews", "keras-mnist"),
    ),
    Fault(
        cause="data_modified_in_place",
        broken=partial(scaling_model, in_place=True),
        fixed=partial(scaling_model, in_place=False),
        variant="by-model",
        setups=("mlp-housing", "keras-mnist"),
        loops=("conv-oil",),
    ),
    Fault(
        cause="input_not_finite",
        broken=holes,
        setups=("mlp-digits", "mlp-housing", "conv-speech", "lstm-oil"),
        loops=("dear-houses", "conv-mnist"),
    ),
)
