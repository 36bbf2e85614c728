"""Suspicions about the data: labels that do not fit, classes that hardly come, an order, a leak."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from leadline.core.seeds import preserved_random_state
from leadline.core.taps import tensors_in
from leadline.doctor.causes.data import labels_from_one
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedies import batches
from leadline.doctor.suspicion import suspect

RARE = 0.2
"""How often the rarest class comes, as a part of the commonest, below which classes are uneven."""

READ_AGAIN = 8
"""Examples of a data set that are read twice."""

SORTED = 4.0
"""Times that neighbours are of one class, over what chance gives, from which on data are sorted."""


def certain(patient: Patient) -> Iterator[Finding]:
    """What the examples themselves show."""
    yield from _not_finite(patient)
    yield from _from_one(patient)
    yield from _written_when_read(patient)
    yield from _leak(patient)
    yield from _order(patient)


def suspicions(patient: Patient) -> Iterator[Finding]:
    """What spoils a training only where it matters."""
    yield from _imbalance(patient)


def _not_finite(patient: Patient) -> Iterator[Finding]:
    """NaN or infinity in a batch behind the first, which is all that a check sees."""
    if patient.gathered is None or not patient.gathered[0].is_floating_point():
        return
    rows = patient.gathered[0].reshape(len(patient.gathered[0]), -1)
    bad = int((~torch.isfinite(rows).all(dim=1)).sum())
    if not bad:
        return
    yield Finding(
        cause="input_not_finite",
        severity="error",
        summary="NaN or infinity in the inputs: the loss and every weight become NaN",
        evidence=(
            Evidence(quantity="examples that are not finite", measured=float(bad), expected="0"),
            Evidence(
                quantity="examples looked at", measured=float(len(rows)), expected="any number"
            ),
        ),
        remedy="leave those examples out, or fill what is missing",
        source="IEEE 754: NaN is contagious",
        change=batches.finite_only(),
        proven=True,
    )


def _from_one(patient: Patient) -> Iterator[Finding]:
    """Labels from 1 on, where a single batch is too small to tell."""
    numbers, seen = class_numbers(patient), patient.seen
    if numbers is None or seen is None or patient.problem.kind != "classes":
        return
    yield from labels_from_one(seen, numbers, patient.problem.classes)


def _written_when_read(patient: Patient) -> Iterator[Finding]:
    """A data set that writes into what it keeps: to read an example again changes the first copy.

    What the second reading changed is put back.
    """
    data: Any = getattr(patient.setup.batches, "dataset", None)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__") or not len(data):
        return
    asked = range(min(READ_AGAIN, len(data)))
    with preserved_random_state():
        changed = sum(_changed_by_reading(data, index) for index in asked)
    if not changed:
        return
    yield Finding(
        cause="data_modified_in_place",
        severity="error",
        summary="the data set writes into the examples it keeps: every epoch trains on what the "
        "one before has left of them",
        evidence=(
            Evidence(
                quantity=f"tensors changed by reading {len(asked)} examples a second time",
                measured=float(changed),
                expected="0",
            ),
        ),
        remedy="work on a copy in __getitem__: x = self.inputs[index].clone()",
        source="numpy and torch: indexing with a number gives a view, not a copy",
        proven=True,
    )


def _changed_by_reading(data: Any, index: int) -> int:
    """How many tensors of an example another reading of it changes."""
    try:
        first = list(tensors_in(data[index]))
        kept = [tensor.clone() for tensor in first]
        _ = data[index]
    except Exception:
        return 0  # a data set whose examples have other names than 0, 1, ...
    changed = 0
    for tensor, before in zip(first, kept, strict=True):
        if not torch.equal(tensor.nan_to_num(), before.nan_to_num()):
            changed += 1
            tensor.copy_(before)
    return changed


def class_numbers(patient: Patient) -> Tensor | None:
    """The gathered targets as class numbers [N], None for other problems."""
    if patient.gathered is None:
        return None
    _, targets = patient.gathered
    problem = patient.problem
    if problem.kind == "classes":
        numbers = targets.argmax(dim=1) if problem.one_hot or problem.soft else targets
        return numbers if numbers.ndim == 1 else None
    if problem.kind == "labels" and problem.classes == 1 and targets.numel() == len(targets):
        return targets.reshape(-1).long()
    return None


def all_alike(patient: Patient) -> bool:
    """Whether several batches are of one class, as far as their classes can be told."""
    numbers = class_numbers(patient)
    return numbers is None or len(torch.unique(numbers)) < 2


def _wanted(patient: Patient, targets: Tensor) -> Tensor:
    hot = patient.problem.one_hot or patient.problem.soft
    return targets.argmax(dim=1) if hot else targets.reshape(-1).long()


def _imbalance(patient: Patient) -> Iterator[Finding]:
    numbers = class_numbers(patient)
    if numbers is None or len(numbers) < 50:
        return
    numbers = numbers[numbers >= 0]
    counts = torch.bincount(numbers, minlength=max(patient.problem.classes, 2))
    present = counts[counts > 0]
    if len(present) < 2 or len(numbers) < 10 * len(counts):
        return
    rarest, commonest = float(counts.min()), float(counts.max())
    if rarest / commonest >= RARE:
        return
    yield suspect(
        "class_imbalance",
        "some classes come far less often than others: the network is paid for ignoring them, and "
        "its accuracy hides it",
        Evidence(
            quantity="examples of the rarest class over those of the commonest",
            measured=rarest / commonest,
            expected=f"above {RARE:g}",
        ),
        change=batches.balanced(counts, wanted=lambda targets: _wanted(patient, targets)),
        source="Buda et al. 2018",
    )


def _order(patient: Patient) -> Iterator[Finding]:
    """Classes in runs: neighbours in the order drawn are of one class far too often."""
    numbers = class_numbers(patient)
    if numbers is None or len(numbers) < 64:
        return
    shares = torch.bincount(numbers.clamp_min(0)).float() / len(numbers)
    full = len(patient.drawn.take(1)[0][0]) >= len(numbers)
    if full:
        return  # one batch holds everything: its order does not matter
    same = float((numbers[1:] == numbers[:-1]).float().mean())
    chance = float(shares.square().sum())
    every = patient.drawn.per_epoch  # where all were looked at, no order brings other classes
    more = every is None or every * len(patient.drawn.take(1)[0][0]) > len(numbers)
    whole = chance > 0.999 and patient.problem.classes > 2 and more
    size = len(patient.drawn.take(1)[0][0])
    runs = same > 0.9 and same > chance + SORTED * math.sqrt(chance * (1 - chance) / len(numbers))
    if not (runs and chance < 0.95) and not whole:
        return
    change = batches.shuffled()
    yield Finding(
        cause="shuffle_missing",
        severity="error" if size > 1 else "warning",
        summary="the examples come sorted by class: each batch teaches one class and undoes the "
        "others",
        evidence=(
            Evidence(
                quantity="neighbours of the same class",
                measured=same,
                expected=f"about {chance:.2f}, by chance",
            ),
        ),
        remedy="pass shuffle=True to the DataLoader, or shuffle the examples once",
        source="Bottou 2012, Stochastic Gradient Descent Tricks",
        change=change,
        proven=True,
    )


def _leak(patient: Patient) -> Iterator[Finding]:
    """Validation examples that are training examples too."""
    if patient.gathered is None or not patient.held_out:
        return
    count = 0
    rows: list[Tensor] = []
    for inputs, _ in patient.probe.held_out:
        if not isinstance(inputs, Tensor) or inputs.ndim < 1:
            return
        rows.append(inputs.detach().cpu())
        count += len(inputs)
    training = [_key(row) for row in patient.gathered[0]]
    half = len(training) // 2
    shown = set(training)
    early = set(training[:half])
    chance = sum(key in early for key in training[half:]) / max(1, len(training) - half)
    if len(shown) < 0.5 * len(training):
        return  # a few rows that come again and again: tables of four points, say
    held = [_key(row) for part in rows for row in part]
    again = sum(key in shown for key in held)
    known = patient.drawn.per_epoch
    size = max(1, len(patient.drawn.take(1)[0][0]))
    everything = len(patient.gathered[0]) if known is None else known * size
    share = min(1.0, again / max(len(held), 1) * everything / len(patient.gathered[0]))
    if again < 3 or share < 0.1 + 3 * chance:
        return  # rows of a few categories meet again by chance, among the training rows too
    yield Finding(
        cause="validation_leak",
        severity="error" if share > 0.5 else "warning",
        summary="validation examples are training examples too: the validation says nothing of new "
        "data",
        evidence=(
            Evidence(
                quantity="validation examples found in the training data",
                measured=share,
                expected="0",
            ),
        ),
        remedy="hold examples out before the training, and keep them out",
        source="Kapoor & Narayanan 2023, Leakage and the reproducibility crisis",
        proven=True,
    )


def _key(row: Tensor) -> bytes:
    values: bytes = row.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
    return values
