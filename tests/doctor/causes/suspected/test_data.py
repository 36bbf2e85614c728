"""Tests of the suspicions about data: uneven classes, an order, examples in both parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from leadline.doctor.causes.suspected.data import RARE, certain, class_numbers, suspicions
from leadline.doctor.patient import Patient

Patients = Callable[..., Any]


def linear() -> nn.Module:
    return nn.Linear(8, 4)


def classes_of(counts: list[int]) -> tuple[Tensor, Tensor]:
    """As many examples of each class as are asked for, in an order drawn by chance."""
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    targets = targets[torch.randperm(len(targets))]
    return torch.randn(len(targets), 8), targets


@pytest.fixture
def balanced() -> tuple[Tensor, Tensor]:
    return classes_of([64, 64, 64, 64])


# ------------------------------------------------------------------------------------ the classes


@pytest.mark.parametrize(
    ("targets", "loss", "expected"),
    [
        (torch.arange(64) % 4, nn.CrossEntropyLoss(), torch.arange(64) % 4),
        (torch.eye(4).repeat(16, 1), nn.CrossEntropyLoss(), torch.arange(64) % 4),
        (
            torch.eye(4).repeat(16, 1) * 0.7 + 0.075,
            nn.CrossEntropyLoss(),
            torch.arange(64) % 4,
        ),
        (torch.randn(64, 4), nn.MSELoss(), None),
    ],
)
def test_targets_are_read_as_class_numbers(
    patient_for: Patients, targets: Tensor, loss: Any, expected: Tensor | None
) -> None:
    found = class_numbers(patient_for(linear, (torch.randn(64, 8), targets), loss=loss))
    assert found is None if expected is None else torch.equal(found, expected)  # type: ignore[arg-type]


def test_yes_or_no_is_two_classes(patient_for: Patients) -> None:
    answers = (torch.arange(64) % 2).float()[:, None]
    patient = patient_for(
        lambda: nn.Linear(8, 1), (torch.randn(64, 8), answers), loss=nn.BCEWithLogitsLoss()
    )
    assert torch.equal(class_numbers(patient), torch.arange(64) % 2)


@pytest.mark.parametrize(
    ("counts", "uneven"),
    [
        ([90, 90, 90, 9], True),
        ([90, 90, 90, 17], True),
        ([90, 90, 90, 19], False),
        ([70, 70, 70, 70], False),
        ([96, 96, 0, 96], True),
    ],
)
def test_a_class_that_hardly_comes_is_suspected(
    patient_for: Patients, counts: list[int], uneven: bool
) -> None:
    assert (min(counts) / max(counts) < RARE) is uneven
    found = list(suspicions(patient_for(linear, classes_of(counts))))
    assert [f.cause for f in found] == ["class_imbalance"] * uneven
    if uneven:
        assert found[0].evidence[0].measured == pytest.approx(min(counts) / max(counts))
        assert found[0].severity == "note" and found[0].change is not None


def test_the_remedy_draws_the_classes_equally_often(patient_for: Patients) -> None:
    patient = patient_for(linear, classes_of([300, 300, 300, 20]))
    (finding,) = suspicions(patient)
    assert finding.change is not None
    drawn = torch.cat([y for _, y in finding.change(patient.setup).batches])
    shares = drawn.bincount().float() / len(drawn)
    torch.testing.assert_close(shares, torch.full((4,), 0.25), rtol=0, atol=0.06)


def test_too_few_examples_say_nothing_of_their_classes(patient_for: Patients) -> None:
    assert not list(suspicions(patient_for(linear, classes_of([20, 20, 20, 2])[:2])))[1:]
    assert not list(suspicions(patient_for(linear, classes_of([12, 12, 12, 1]))))


# -------------------------------------------------------------------------------------- the order


def test_examples_sorted_by_class_are_an_error(patient_for: Patients) -> None:
    targets = torch.arange(4).repeat_interleave(64)
    (finding,) = certain(patient_for(linear, (torch.randn(256, 8), targets)))
    assert (finding.cause, finding.severity, finding.proven) == ("shuffle_missing", "error", True)
    assert finding.evidence[0].measured == pytest.approx(252 / 255)
    assert finding.evidence[0].expected == "about 0.25, by chance"
    assert finding.change is not None


@pytest.mark.parametrize(
    "targets",
    [
        torch.randint(0, 4, (256,), generator=torch.Generator().manual_seed(0)),
        torch.arange(256) % 4,
        torch.arange(4).repeat_interleave(4).repeat(16),
    ],
)
def test_other_orders_are_none(patient_for: Patients, targets: Tensor) -> None:
    assert not list(certain(patient_for(linear, (torch.randn(256, 8), targets))))


def test_the_order_within_one_batch_of_everything_does_not_matter(patient_for: Patients) -> None:
    targets = torch.arange(4).repeat_interleave(64)
    batches = [(torch.randn(256, 8), targets)]
    patient = patient_for(linear, (torch.randn(32, 8), targets[:32]), batches=batches)
    assert not list(certain(patient))


def test_one_class_in_everything_that_there_is_is_no_matter_of_order(
    patient_for: Patients,
) -> None:
    targets = torch.zeros(128, dtype=torch.long)
    assert not list(certain(patient_for(linear, (torch.randn(128, 8), targets))))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_behind_the_first_batch_is_found(
    patient_for: Patients, balanced: Any, bad: float
) -> None:
    inputs = balanced[0].clone()
    inputs[200, 3] = inputs[201, 0] = bad
    (finding,) = certain(patient_for(linear, (inputs, balanced[1])))
    assert (finding.cause, finding.severity, finding.proven) == ("input_not_finite", "error", True)
    assert finding.evidence[0].measured == 2.0
    assert finding.change is not None


# ----------------------------------------------------------------------------------------- a leak


def held_out(data: tuple[Tensor, Tensor], count: int) -> list[tuple[Tensor, Tensor]]:
    """64 examples that nobody saw, but for the first `count`: those are training examples."""
    unseen = torch.cat([data[0][:count], torch.randn(64 - count, 8)])
    return [(unseen, torch.arange(64) % 4)]


@pytest.mark.parametrize(
    ("count", "severity"), [(0, None), (2, None), (10, "warning"), (48, "error"), (64, "error")]
)
def test_validation_examples_that_are_training_examples_are_found(
    patient_for: Patients, balanced: Any, count: int, severity: str | None
) -> None:
    patient = patient_for(linear, balanced, validation=held_out(balanced, count))
    found = [f for f in certain(patient) if f.cause == "validation_leak"]
    assert [f.severity for f in found] == ([] if severity is None else [severity])
    if found:
        assert found[0].evidence[0].measured == pytest.approx(count / 64)
        assert found[0].proven


def test_a_small_table_whose_rows_come_again_and_again_is_no_leak(patient_for: Patients) -> None:
    rows = functional.one_hot(torch.arange(256) % 4, 8).float()
    targets = torch.arange(256) % 4
    patient = patient_for(linear, (rows, targets), validation=[(rows[:32], targets[:32])])
    assert not list(certain(patient))


def test_without_validation_there_is_no_leak(patient_for: Patients, balanced: Any) -> None:
    assert not list(certain(patient_for(linear, balanced)))


# ------------------------------------------------------------------------------------ what is read


def test_labels_from_one_are_seen_where_one_batch_is_too_small(
    patient_for: Patients, named: Any, balanced: tuple[Tensor, Tensor]
) -> None:
    inputs, targets = balanced
    sparing = patient_for(lambda: nn.Linear(8, 5), (inputs, targets + 1))
    pairs = [zip(x.split(4), y.split(4), strict=True) for x, y in sparing.setup.batches]
    small = [pair for some in pairs for pair in some]
    patient = Patient(replace(sparing.setup, batches=small), seconds=4)
    assert "warning labels_shifted" in named(certain(patient))


class Hiding(Dataset[tuple[Tensor, Tensor]]):
    """Hides half of an example each time it is read, in a copy or in what it keeps."""

    def __init__(self, data: tuple[Tensor, Tensor], *, copied: bool) -> None:
        self.inputs, self.targets = data[0].clone(), data[1]
        self.copied = copied

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = self.inputs[index]
        row = row.clone() if self.copied else row
        row[torch.rand(len(row)) < 0.5] = 0.0
        return row, self.targets[index]


@pytest.mark.parametrize("copied", [True, False])
def test_a_data_set_that_writes_into_what_it_keeps_is_found(
    patient_for: Patients, named: Any, balanced: tuple[Tensor, Tensor], copied: bool
) -> None:
    data = Hiding(balanced, copied=copied)
    plain = patient_for(linear, balanced)
    loader = DataLoader(data, batch_size=32, shuffle=True)
    patient = Patient(replace(plain.setup, batches=loader), seconds=4)
    before, state = data.inputs.clone(), torch.get_rng_state()
    found = named(certain(patient))
    assert ("error data_modified_in_place" in found) is not copied
    assert torch.equal(torch.get_rng_state(), state)
    if copied:
        assert torch.equal(data.inputs, before)
