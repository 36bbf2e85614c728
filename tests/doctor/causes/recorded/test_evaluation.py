"""Tests that missing, leaking and wrongly counted evaluations are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from leadline.doctor.causes.recorded.evaluation import signs
from leadline.doctor.record import record

Loader = DataLoader[Any]
Digits = tuple[Tensor, Tensor]


def train(loader: Loader, *evaluated: Loader) -> None:
    model = nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        with torch.no_grad():
            for each in evaluated:
                for inputs, _ in each:
                    model(inputs).argmax(dim=1)


def test_a_training_without_an_evaluation_gets_a_note(loader: Loader) -> None:
    with record() as tape:
        train(loader)
    assert [(f.cause, f.severity) for f in signs(tape)] == [("validation_missing", "note")]


def test_an_evaluation_on_held_out_examples_is_healthy(loader: Loader, held_out: Loader) -> None:
    with record() as tape:
        train(loader, held_out)
        train(loader, loader, held_out)  # that on the training's own examples is one more
    assert list(signs(tape)) == []


def test_an_evaluation_on_trained_examples_is_found(loader: Loader) -> None:
    with record() as tape:
        train(loader, loader)
    (finding,) = signs(tape)
    assert (finding.cause, finding.evidence[0].measured) == ("validation_leak", 1.0)


def test_a_split_that_shares_examples_is_found(
    loader: Loader, held_out: Loader, digits: Digits
) -> None:
    mixed = ConcatDataset([held_out.dataset, Subset(loader.dataset, range(32))])
    with record() as tape:
        train(loader, DataLoader(mixed, batch_size=64))
    (finding,) = signs(tape)
    assert finding.cause == "validation_leak"
    assert finding.evidence[0].measured == pytest.approx(32 / 160)


def test_examples_that_repeat_in_the_data_themselves_are_no_leak() -> None:
    rows = torch.randint(0, 2, (512, 6)).float()
    rows = torch.cat([rows, torch.zeros(512, 58)], dim=1)
    labels = (rows[:, 0] > 0).long()
    training = DataLoader(TensorDataset(rows[:384], labels[:384]), batch_size=32, shuffle=True)
    testing = DataLoader(TensorDataset(rows[384:], labels[384:]), batch_size=32)
    with record() as tape:
        train(training, testing)
    assert list(signs(tape)) == []


def yes_or_no(loader: Loader, held_out: Loader, count: Callable[[Tensor], Tensor]) -> None:
    model = nn.Linear(64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for inputs, targets in loader:
        optimizer.zero_grad()
        wanted = (targets > 4).float()[:, None]
        functional.binary_cross_entropy_with_logits(model(inputs), wanted).backward()
        optimizer.step()
    with torch.no_grad():
        for inputs, _ in held_out:
            count(model(inputs))


@pytest.mark.parametrize(
    "count",
    [
        lambda outputs: outputs > 0.5,
        lambda outputs: (outputs.squeeze(1) >= 0.5).float(),
        lambda outputs: torch.round(outputs),
    ],
)
def test_logits_held_against_one_half_are_proven(
    loader: Loader, held_out: Loader, count: Callable[[Tensor], Tensor]
) -> None:
    with record() as tape:
        yes_or_no(loader, held_out, count)
    (finding,) = signs(tape)
    assert (finding.cause, finding.proven) == ("metric_on_logits", True)


@pytest.mark.parametrize(
    "count", [lambda outputs: outputs > 0, lambda outputs: outputs.sigmoid() > 0.5]
)
def test_logits_against_zero_and_probabilities_against_one_half_are_healthy(
    loader: Loader, held_out: Loader, count: Callable[[Tensor], Tensor]
) -> None:
    with record() as tape:
        yes_or_no(loader, held_out, count)
    assert list(signs(tape)) == []
