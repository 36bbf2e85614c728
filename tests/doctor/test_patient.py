"""Tests of a patient: what is asked of it once, what that costs, and what cannot be found out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from leadline.core.errors import MeasurementError
from leadline.doctor.patient import (
    ARMS,
    ASKED,
    FLOOR,
    GATHERED,
    LONGEST,
    SHORTEST,
    WHOLE,
    Allowance,
    Patient,
    patient_of,
)
from leadline.doctor.remedies.optimisation import rate_times
from leadline.training.setup import Setup

INPUTS = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
CLASSES = INPUTS[:, :3].argmax(dim=1)


def cut(inputs: Any, targets: Any, size: int = 32) -> list[tuple[Any, Any]]:
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def setup_of(**changes: Any) -> Setup:
    parts: dict[str, Any] = {
        "model": lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)),
        "batches": cut(INPUTS, CLASSES),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda model: torch.optim.Adam(model.parameters(), lr=0.01),
        "epochs": 3,
    }
    return Setup(**(parts | changes))


# ------------------------------------------------------------------------------- what it is made of


def test_examples_and_targets_are_gathered_one_batch_behind_the_other() -> None:
    patient = Patient(setup_of(), seconds=1)
    assert patient.gathered is not None
    assert torch.equal(patient.gathered[0], INPUTS)
    assert torch.equal(patient.gathered[1], CLASSES)


@pytest.mark.parametrize(
    ("width", "targets", "loss", "said"),
    [
        (3, CLASSES, nn.CrossEntropyLoss(), "one of 3 classes"),
        (3, functional.one_hot(CLASSES, 3).float(), nn.CrossEntropyLoss(), "one of 3 classes"),
        (1, (CLASSES == 0).float()[:, None], nn.BCEWithLogitsLoss(), "yes or no"),
        (1, INPUTS[:, :1] * 3, nn.MSELoss(), "numbers"),
        (1, CLASSES[:, None] * 4, lambda o, t: functional.mse_loss(o, t.float()), "numbers"),
    ],
)
def test_the_problem_is_read_from_all_gathered_targets(
    width: int, targets: Tensor, loss: Any, said: str
) -> None:
    setup = setup_of(model=lambda: nn.Linear(8, width), batches=cut(INPUTS, targets), loss=loss)
    assert str(Patient(setup, seconds=1).problem) == said


def test_a_first_batch_of_one_class_does_not_hide_the_others() -> None:
    order = CLASSES.argsort()
    patient = Patient(setup_of(batches=cut(INPUTS[order], CLASSES[order])), seconds=1)
    assert str(patient.problem) == "one of 3 classes"


def test_only_so_many_examples_are_gathered_and_asked() -> None:
    many = torch.randn(3 * GATHERED, 8)
    setup = setup_of(batches=cut(many, many[:, :3].argmax(1), 512), validation=cut(many, many, 512))
    patient = Patient(setup, seconds=1)
    assert patient.gathered is not None
    assert len(patient.gathered[0]) == GATHERED
    assert sum(len(x) for x, _ in patient.probe.training) == ASKED
    assert sum(len(x) for x, _ in patient.probe.held_out) == ASKED


def test_batches_of_different_widths_are_gathered_as_far_as_they_fit() -> None:
    texts = [(torch.randint(0, 9, (4, n)), torch.randint(0, 2, (4,))) for n in (5, 7)]

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x).mean(dim=1))

    patient = Patient(setup_of(model=Bag, batches=texts), seconds=1)
    assert patient.gathered is not None
    assert torch.equal(patient.gathered[0], texts[0][0])
    assert str(patient.problem) == "one of 2 classes"


# --------------------------------------------------------------------------------------- its length


@pytest.mark.parametrize(("accumulate", "total"), [(1, 24), (2, 12), (3, 9), (8, 3)])
def test_the_training_has_as_many_steps_as_the_plain_loop(accumulate: int, total: int) -> None:
    assert Patient(setup_of(accumulate=accumulate), seconds=1).total_steps == total


def test_a_short_training_is_run_whole_in_each_arm() -> None:
    patient = Patient(setup_of(), seconds=1)
    assert patient.whole and patient.steps == 24
    assert patient.arm().steps == 24


def test_a_long_one_is_cut_down_to_what_the_allowance_pays_for() -> None:
    patient = Patient(setup_of(epochs=1000), steps=1000)
    assert not patient.whole
    assert patient.steps == (1000 - 5) // ARMS
    assert WHOLE * patient.steps < 8000


def test_an_arm_is_as_long_as_tells_something_unless_the_allowance_in_steps_is_less() -> None:
    assert Patient(setup_of(epochs=10_000), seconds=1e-3).steps == SHORTEST
    assert Patient(setup_of(epochs=10_000), steps=95).steps == 30  # (95 - 5 to measure) / 3
    assert Patient(setup_of(epochs=10_000), seconds=1e9).steps == LONGEST


def test_an_arm_may_be_some_times_as_long_and_takes_the_batches_it_accumulates() -> None:
    patient = Patient(setup_of(accumulate=2), seconds=1)
    assert patient.arm().steps == 12
    assert patient.arm(times=2.5).steps == 30


def test_an_arm_on_given_batches_goes_through_them_again_and_again() -> None:
    patient = Patient(setup_of(), seconds=1)
    one = patient.drawn.take(1)
    by_hand = setup_of(batches=one * 24)
    outcome = patient.arm_on(one)
    assert outcome.steps == 24
    assert outcome.losses == Patient(by_hand, seconds=1).arm(times=1 / 3).losses


def test_remedies_are_applied_one_after_the_other() -> None:
    patient = Patient(setup_of(), seconds=1)
    twice, again = rate_times(2.0, 0.01), rate_times(5.0, 0.02)
    assert patient.arm(twice, again).losses == patient.arm(rate_times(10.0, 0.01)).losses
    one = patient.drawn.take(2)
    both = patient.arm_on(one, twice, again)
    assert both.losses == patient.arm_on(one, rate_times(10.0, 0.01)).losses


# ----------------------------------------------------------------------------------- the allowance


def test_what_is_spent_is_counted() -> None:
    patient = Patient(setup_of(), seconds=60)
    assert patient.allowance.spent_steps == 5
    patient.arm()
    patient.arm()
    assert patient.allowance.spent_steps == 5 + 2 * 24
    assert 0 < patient.spent < 30
    assert patient.share is not None
    assert patient.share == pytest.approx(patient.spent / (24 * patient.step_seconds), rel=0.2)


@pytest.mark.parametrize(
    ("seconds", "steps", "words"),
    [
        (math.inf, math.inf, "as much as it takes"),
        (30.0, math.inf, "30 s"),
        (0.125, 5000, "0.125 s and 5,000 steps"),
        (math.inf, 10, "10 steps"),
    ],
)
def test_an_allowance_is_said_in_words(seconds: float, steps: float, words: str) -> None:
    assert str(Allowance(seconds=seconds, steps=steps)) == words


def test_an_arm_that_costs_more_than_is_left_is_not_afforded() -> None:
    allowance = Allowance(seconds=100.0, steps=50, spent_steps=30)
    assert allowance.affords(20, 1.0)
    assert not allowance.affords(21, 1.0)
    assert not allowance.affords(20, 101.0)
    patient = Patient(setup_of(), steps=5 + 3 * 15)
    for _ in range(3):
        assert patient.affords()
        patient.arm()
    assert not patient.affords()


def test_a_diagnosis_may_take_so_many_seconds_however_short_the_training() -> None:
    assert Patient(setup_of()).allowance.seconds == FLOOR


def test_without_a_length_the_share_is_not_known_and_that_is_said() -> None:
    class Endless:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            while True:
                yield from cut(INPUTS, CLASSES)

    patient = Patient(setup_of(batches=Endless()), steps=1000)
    assert (patient.total_steps, patient.share, patient.whole) == (None, None, False)
    assert patient.limits == ["the batches have no length: how long the training is, is not known"]
    assert patient.arm().steps == patient.steps


# ---------------------------------------------------------------------------- what cannot be asked


def test_a_loss_that_cannot_be_computed_leaves_what_the_check_says() -> None:
    patient = Patient(setup_of(batches=cut(INPUTS, CLASSES[:, None])), seconds=1)
    assert [f.cause for f in patient.checked.checkup.findings] == ["target_broadcast_shape"]
    assert patient.problem.kind == "unknown"


@pytest.mark.parametrize(
    ("broken", "received"),
    [
        ({"model": lambda: {}["net"]}, "KeyError: 'net'"),
        ({"optimizer": lambda model: torch.optim.SGD([], lr=0.1)}, "empty parameter list"),
        ({"schedule": lambda optimizer: {}["missing"]}, "KeyError: 'missing'"),
    ],
)
def test_a_setup_that_cannot_be_made_is_an_error_with_a_way_to_look(
    broken: Any, received: str
) -> None:
    with pytest.raises(MeasurementError) as caught:
        patient_of(setup_of(**broken), seconds=1)
    assert caught.value.expected == (
        "a Setup whose model, batches, loss and optimizer can be made and run"
    )
    assert received in caught.value.received
    assert "model = setup.model()" in caught.value.remedy


def test_an_error_of_leadlines_own_is_not_put_into_other_words() -> None:
    with pytest.raises(MeasurementError, match="batches that are empty"):
        patient_of(setup_of(batches=[]), seconds=1)


def test_validation_that_fails_is_said_and_used_as_far_as_it_came() -> None:
    def failing() -> Iterator[tuple[Tensor, Tensor]]:
        yield from cut(INPUTS[:64], CLASSES[:64])
        raise OSError("the disk is gone")

    class Failing:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return failing()

    patient = Patient(setup_of(validation=Failing()), seconds=1)
    assert sum(len(x) for x, _ in patient.probe.held_out) == 64
    assert "of the validation: the batches ended after 2 with OSError: the disk is gone" in (
        patient.limits
    )


def test_validation_leaves_its_own_streams_as_they_were() -> None:
    own = torch.Generator().manual_seed(5)
    held = DataLoader(TensorDataset(INPUTS, CLASSES), 32, shuffle=True, generator=own)
    before, mine = torch.get_rng_state(), own.get_state()
    Patient(setup_of(validation=held), seconds=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(own.get_state(), mine)


def test_a_model_handed_out_twice_is_copied_and_not_trained() -> None:
    model = nn.Linear(8, 3)
    before = model.weight.detach().clone()
    patient = Patient(setup_of(model=lambda: model), seconds=1)
    assert patient.arm().losses == patient.arm().losses
    assert torch.equal(model.weight, before)
    assert "the same Linear each time" in patient.limits[0]


def test_a_setup_of_which_no_step_can_be_trained_is_said() -> None:
    def lbfgs(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(model.parameters())

    (limit,) = Patient(setup_of(optimizer=lbfgs), seconds=1).limits
    assert limit.startswith("not one step could be trained on a copy: TypeError: LBFGS.step()")


# -------------------------------------------------------------------------------- as it was found


def test_the_random_streams_stand_where_they_stood() -> None:
    data = TensorDataset(INPUTS, CLASSES)
    own = torch.Generator().manual_seed(5)
    loader = DataLoader(data, batch_size=32, shuffle=True, generator=own)
    setup = setup_of(
        batches=loader, model=lambda: nn.Sequential(nn.Linear(8, 3), nn.Dropout()), epochs=2
    )

    def streams() -> list[Any]:
        state: Any = np.random.get_state()
        return [
            torch.get_rng_state().tolist(),
            own.get_state().tolist(),
            random.getstate(),
            state[1].tolist(),
        ]

    before = streams()
    patient = Patient(setup, seconds=1)
    patient.arm()
    assert streams() == before


def test_every_arm_sees_the_same_batches() -> None:
    seen: list[list[float]] = []

    def noting() -> Callable[[Tensor, Tensor], Tensor]:
        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            seen[-1].append(float(targets.float().sum()))
            return functional.cross_entropy(outputs, targets)

        return loss

    loader = DataLoader(TensorDataset(INPUTS, CLASSES), batch_size=32, shuffle=True)
    seen.append([])
    patient = Patient(setup_of(batches=loader, loss=noting()), seconds=1)
    for remedies in ([], [rate_times(3.0, 0.01)], []):
        seen.append([])
        patient.arm(*remedies)
    assert seen[1] == seen[2] == seen[3]
    assert len(set(seen[1])) > 3


def test_examples_that_are_not_finite_are_not_asked() -> None:
    rows = INPUTS.clone()
    rows[3, 0], rows[40, 1] = torch.nan, torch.inf
    batches = list(zip(rows.split(32), CLASSES.split(32), strict=True))
    patient = Patient(setup_of(batches=batches, validation=batches), seconds=1)
    for part in (patient.probe.training, patient.probe.held_out):
        assert [len(x) == len(y) for x, y in part] == [True] * len(part)
        assert sum(len(x) for x, _ in part) == len(rows) - 2
        assert all(bool(x.isfinite().all()) for x, _ in part)
