"""Tests of what is learned beyond the examples: by heart, in another mode, not to the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from leadline.doctor.arm import Outcome
from leadline.doctor.causes.suspected.generalisation import (
    by_heart,
    falls_at_the_end,
    other_in_evaluation,
    regularised,
    too_short,
)
from leadline.doctor.problem import Verdict

Patients = Callable[..., Any]
INPUTS = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
CLASSES = INPUTS[:, :3].argmax(dim=1)
DATA = (INPUTS, CLASSES)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def outcome(
    training: float,
    *,
    held_out: float | None = None,
    in_training: float | None = None,
    ended: str = "",
    losses: tuple[float, ...] = (1.0,) * 40,
) -> Outcome:
    def verdict(error: float | None) -> Verdict | None:
        return None if error is None else Verdict(error=error, surprise=error)

    told = verdict(training)
    assert told is not None
    return Outcome(
        steps=len(losses),
        losses=losses,
        norms=losses,
        training=told,
        held_out=verdict(held_out),
        halfway=None,
        in_training=verdict(in_training),
        ended=ended,
        seconds=0.1,
        model=None,
    )


# ----------------------------------------------------------------------------------------- by heart


@pytest.mark.parametrize(
    ("base", "found"),
    [
        (outcome(0.01, held_out=0.5), True),
        (outcome(0.0, held_out=0.09), True),
        (outcome(0.0, held_out=0.07), False),  # nothing to gain
        (outcome(0.2, held_out=0.5), False),  # nor known by heart
        (outcome(0.01), False),
        (outcome(0.01, held_out=0.5, ended="loss nan"), False),
    ],
)
def test_examples_known_by_heart_are_suspected(
    patient_for: Patients, base: Outcome, found: bool
) -> None:
    finding = by_heart(patient_for(network, DATA), base)
    assert (finding is not None) is found
    if finding is not None:
        assert finding.cause == "reg_missing" and finding.change is not None


def test_the_remedy_is_dropout_behind_the_last_activation_and_a_little_decay(
    patient_for: Patients,
) -> None:
    patient = patient_for(network, DATA)
    treated = regularised(patient)(patient.setup)
    model = treated.model().train()
    assert treated.optimizer(model).param_groups[0]["weight_decay"] == 5e-4
    inputs = torch.randn(200, 8)
    hidden = model[1](model[0](inputs))  # type: ignore[index]
    plain = torch.relu(model[0](inputs))  # type: ignore[index]
    dropped = (hidden == 0) & (plain > 0)
    assert dropped.float().mean() / (plain > 0).float().mean() == pytest.approx(0.5, abs=0.06)


def test_without_an_activation_only_the_decay_is_left(patient_for: Patients) -> None:
    patient = patient_for(lambda: nn.Linear(8, 3), DATA)
    remedy = regularised(patient)
    assert remedy.title == "weight_decay=0.0005 in the optimizer"


# ------------------------------------------------------------------------------------ another mode


@pytest.mark.parametrize(
    ("base", "found"),
    [
        (outcome(0.9, in_training=0.1), True),
        (outcome(0.3, in_training=0.1), False),
        (outcome(1.5, in_training=0.85), False),  # it learned nothing in either mode
        (outcome(0.9), False),
        (outcome(0.9, in_training=0.1, ended="loss nan"), False),
    ],
)
def test_answers_far_worse_in_evaluation_mode_are_suspected(
    patient_for: Patients, base: Outcome, found: bool
) -> None:
    patient = patient_for(normed, DATA, epochs=4)
    assert patient.steps >= 30
    finding = other_in_evaluation(patient, base)
    assert (finding is not None) is found
    if finding is not None:
        assert finding.cause == "norm_eval_stats_broken"
        model = finding.change(patient.setup).model()  # type: ignore[misc]
        assert isinstance(model[1], nn.GroupNorm)  # type: ignore[index]


def test_without_a_batch_norm_the_modes_are_not_compared(patient_for: Patients) -> None:
    base = outcome(0.9, in_training=0.1)
    assert other_in_evaluation(patient_for(network, DATA, epochs=4), base) is None


def test_statistics_of_few_steps_are_excused(patient_for: Patients) -> None:
    patient = patient_for(normed, DATA, epochs=1)
    assert patient.steps < 30
    assert other_in_evaluation(patient, outcome(0.9, in_training=0.1)) is None


# ------------------------------------------------------------------------------------- its length


def test_a_training_that_stops_while_it_gets_better_is_found(patient_for: Patients) -> None:
    patient = patient_for(network, DATA, epochs=1, lr=1e-2)
    base = patient.arm()
    assert base.verdict.error > 0.5
    found = too_short(patient, base)
    assert found is not None
    finding, longer = found
    assert finding.cause == "epochs_too_few"
    assert "after 1 epoch while" in finding.summary
    assert longer.steps == 3 * base.steps
    assert [e.measured for e in finding.evidence] == [base.verdict.error, longer.verdict.error]
    assert finding.change is not None
    assert finding.change(patient.setup).epochs in (5, 10)


def test_one_that_has_learned_or_broke_off_is_not_asked(patient_for: Patients) -> None:
    patient = patient_for(network, DATA, epochs=1)
    spent = patient.allowance.spent_steps
    assert too_short(patient, outcome(0.1)) is None
    assert too_short(patient, outcome(0.9, ended="loss nan")) is None
    assert patient.allowance.spent_steps == spent


def test_a_single_epoch_that_learned_much_is_too_short_when_most_of_the_error_goes(
    patient_for: Patients, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = patient_for(network, DATA, epochs=1)
    for after, found in ((0.1, True), (0.2, False)):
        monkeypatch.setattr(patient, "arm", lambda *remedies, times, e=after: outcome(e))
        assert (too_short(patient, outcome(0.3)) is not None) is found
    monkeypatch.setattr(patient, "arm", lambda *remedies, times: outcome(0.01))
    assert too_short(patient, outcome(0.11)) is None, "good enough"
    patient.setup = replace(patient.setup, epochs=20)
    assert too_short(patient, outcome(0.3)) is None


@pytest.mark.parametrize(
    ("epochs", "after", "found"),
    [(1, 0.7, True), (3, 0.7, True), (4, 0.7, False), (4, 0.5, True), (1, 0.74, False)],
)
def test_of_few_epochs_it_is_enough_that_it_still_gets_better(
    patient_for: Patients,
    monkeypatch: pytest.MonkeyPatch,
    epochs: int,
    after: float,
    found: bool,
) -> None:
    patient = patient_for(network, DATA, epochs=epochs)
    monkeypatch.setattr(patient, "arm", lambda *remedies, times: outcome(after))
    assert (too_short(patient, outcome(0.8)) is not None) is found


def test_a_little_is_not_enough_for_text_which_is_often_read_only_once(
    patient_for: Patients, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = torch.randint(7, (32, 9), generator=torch.Generator().manual_seed(0))
    answers = nn.CrossEntropyLoss()
    patient = patient_for(
        lambda: nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7)),
        (text[:, :-1], text[:, 1:]),
        epochs=1,
        loss=lambda outputs, targets: answers(outputs.flatten(0, 1), targets.flatten()),
    )
    for after, found in ((0.7, False), (0.5, True)):
        monkeypatch.setattr(patient, "arm", lambda *remedies, times, e=after: outcome(e))
        assert (too_short(patient, outcome(0.8)) is not None) is found


def test_one_that_more_steps_do_not_help_is_not_too_short(patient_for: Patients) -> None:
    torch.manual_seed(0)
    noise = (INPUTS, torch.randint(0, 3, (256,)))
    patient = patient_for(lambda: nn.Linear(8, 3), noise, epochs=1)
    assert too_short(patient, patient.arm()) is None


def falling(slope: float, steps: int = 400) -> tuple[float, ...]:
    """A power law: the loss at step n is n to the slope."""
    return tuple(n**slope for n in range(1, steps + 1))


@pytest.mark.parametrize(("slope", "found"), [(-0.5, True), (-0.21, True), (-0.19, False)])
def test_a_curve_that_falls_as_a_power_law_is_read(
    patient_for: Patients, slope: float, found: bool
) -> None:
    patient = patient_for(network, DATA, epochs=1)
    patient.total_steps = 100 * patient.steps  # too long to be run whole
    base = outcome(0.7, losses=falling(slope))
    finding = falls_at_the_end(patient, base)
    assert (finding is not None) is found
    if finding is not None:
        assert (finding.cause, finding.severity) == ("epochs_too_few", "warning")
        assert finding.evidence[0].measured == pytest.approx(slope, abs=1e-6)


def test_the_curve_says_nothing_of_one_that_learned_is_long_or_short(
    patient_for: Patients,
) -> None:
    patient = patient_for(network, DATA, epochs=1)
    base = outcome(0.7, losses=falling(-0.5))
    assert falls_at_the_end(patient, base) is None  # it was run whole
    patient.total_steps = 100 * patient.steps
    assert falls_at_the_end(patient, outcome(0.3, losses=falling(-0.5))) is None
    assert falls_at_the_end(patient, replace(base, ended="loss nan")) is None
    assert falls_at_the_end(patient, outcome(0.7, losses=falling(-0.5, 20))) is None
    patient.setup = replace(patient.setup, epochs=50)
    assert falls_at_the_end(patient, base) is None


def test_a_loss_below_zero_has_no_logarithm(patient_for: Patients) -> None:
    patient = patient_for(network, DATA, epochs=1)
    patient.total_steps = 100 * patient.steps
    base = outcome(0.7, losses=tuple(-math.log(n) for n in range(1, 200)))
    assert falls_at_the_end(patient, base) is None
