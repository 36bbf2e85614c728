"""Tests of the short experiments: what healthy networks show, and what broken ones do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.experiments import (
    double_precision,
    input_independent,
    overfit_one_batch,
    shuffled_labels,
)
from leadline.doctor.patient import Patient
from leadline.training.setup import Setup


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.data[:640], dtype=torch.float32) / 16, torch.tensor(data.target[:640])


@pytest.fixture
def patient(digits: Any) -> Callable[..., Patient]:
    """A small network on the digits, with whatever is changed in its Setup."""

    def make(**changes: Any) -> Patient:
        given = {
            "model": lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
            "batches": list(zip(digits[0].split(32), digits[1].split(32), strict=True)),
            "loss": functional.cross_entropy,
            "optimizer": lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
            **changes,
        }
        return Patient(Setup(**given), seconds=5)

    return make


class Deaf(nn.Module):
    """A network that does not hear its input."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(0 * x)


def test_a_healthy_network_learns_a_batch_by_heart(patient: Any) -> None:
    asked = patient()
    before = asked.allowance.spent_steps
    found = overfit_one_batch(asked)
    assert found.learned and found.error == 0 and found.loss < found.start
    assert asked.allowance.spent_steps - before == found.steps == 60


def test_a_batch_of_one_class_is_given_examples_of_others(patient: Any, digits: Any) -> None:
    order = digits[1].argsort(stable=True)
    batches = list(zip(digits[0][order].split(32), digits[1][order].split(32), strict=True))
    found = overfit_one_batch(patient(batches=batches))
    assert found.learned and math.isfinite(found.error)


def test_a_deaf_network_learns_no_batch_at_any_rate(patient: Any) -> None:
    found = overfit_one_batch(patient(model=Deaf))
    assert not found.learned and found.error > 0.5 and found.steps == 240


def test_a_rate_far_too_low_learns_the_batch_at_a_higher_one(patient: Any) -> None:
    slow = patient(optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-3))
    found = overfit_one_batch(slow, steps=40)
    assert found.learned and found.rate == pytest.approx(1e-2)


def test_real_labels_are_learned_better_than_shuffled_ones(patient: Any) -> None:
    found = shuffled_labels(patient())
    assert found.uses_it and found.error < 0.5 < found.spoiled_error
    assert found.steps == 120


def test_labels_that_are_chance_are_learned_no_better(patient: Any, digits: Any) -> None:
    chance = torch.randint(0, 10, (640,), generator=torch.Generator().manual_seed(0))
    batches = list(zip(digits[0].split(32), chance.split(32), strict=True))
    assert not shuffled_labels(patient(batches=batches), steps=20).uses_it


def test_a_network_that_hears_its_input_is_better_with_it(patient: Any) -> None:
    found = input_independent(patient())
    assert found.uses_it and found.spoiled_error == pytest.approx(1.0, abs=0.1)


def test_a_deaf_network_is_as_good_without_its_input(patient: Any) -> None:
    found = input_independent(patient(model=Deaf))
    assert not found.uses_it and found.loss == pytest.approx(found.spoiled_loss)


def test_words_are_replaced_by_those_of_one_example(patient: Any) -> None:
    words = torch.randint(0, 9, (640, 5), generator=torch.Generator().manual_seed(0))
    data = list(zip(words.split(32), words[:, 0].split(32), strict=True))
    reader = lambda: nn.Sequential(nn.Embedding(9, 16), nn.Flatten(), nn.Linear(80, 9))  # noqa: E731 -- a factory
    assert input_independent(patient(model=reader, batches=data)).uses_it


def test_float64_gives_a_healthy_network_the_same_gradient(patient: Any) -> None:
    found = double_precision(patient())
    assert found.loss_apart < 1e-6 and found.gradient_apart < 1e-5 and not found.in_loss


def test_float64_shows_what_a_loss_loses_in_rounding(patient: Any) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (functional.cross_entropy(outputs, targets) + 1e8) - 1e8

    found = double_precision(patient(loss=loss))
    assert found.in_loss and found.loss_apart > 0.1
    assert found.wide_loss == pytest.approx(math.log(10), rel=0.1)


def test_experiments_leave_the_random_streams_where_they_were(patient: Any) -> None:
    asked = patient()
    state = torch.get_rng_state()
    overfit_one_batch(asked, steps=2)
    shuffled_labels(asked, steps=2)
    double_precision(asked)
    assert torch.equal(state, torch.get_rng_state())
