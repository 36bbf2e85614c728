"""Tests of doctor/tape_diagnosis: a recorded loop against a sound one, and run again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from leadline.core.errors import LeadlineError
from leadline.doctor.diagnose import diagnose, record
from leadline.doctor.finding import Finding
from leadline.doctor.tape_diagnosis import _merged, _per_update


def loop(
    *, clears: bool = True, lr: float = 0.05, softmax: bool = False, hole: bool = False
) -> Callable[[], nn.Module]:
    """Somebody's loop over 240 rows of three classes."""

    def train() -> nn.Module:
        torch.manual_seed(0)
        rows = torch.randn(240, 4)
        rows[100, 0] = torch.nan if hole else rows[100, 0]
        labels = rows[:, :3].argmax(dim=1)
        layers: list[nn.Module] = [nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)]
        model = nn.Sequential(*layers, *([nn.Softmax(dim=1)] if softmax else []))
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        for _ in range(12):
            for start in range(0, 240, 24):
                if clears:
                    optimizer.zero_grad()
                outputs = model(rows[start : start + 24])
                loss = nn.functional.cross_entropy(outputs, labels[start : start + 24])
                loss.backward()
                optimizer.step()
        return model

    return train


def test_a_fault_of_the_loop_is_proven_by_a_sound_loop_on_the_same_batches() -> None:
    diagnosis = diagnose(loop(clears=False), seconds=5)
    finding = diagnosis.findings[0]
    assert finding.cause == "zero_grad_missing"
    assert finding.proven
    assert finding.trial is not None
    assert "sound loop" in finding.trial.remedy
    assert finding.trial.treated.losses[-1] < finding.trial.without.losses[-1]


def test_where_it_is_allowed_the_function_itself_is_run_again() -> None:
    diagnosis = diagnose(loop(clears=False), seconds=5, rerun=True)
    trial = diagnosis.findings[0].trial
    assert trial is not None
    assert "run again" in trial.remedy
    assert len(trial.treated.losses) == 120


def test_the_function_is_not_run_again_once_the_allowance_is_spent() -> None:
    train, runs = loop(clears=False), []

    def counted() -> nn.Module:
        runs.append(1)
        return train()

    diagnosis = diagnose(counted, seconds=1e-6, rerun=True)
    assert len(runs) == 1
    assert diagnosis.findings[0].cause == "zero_grad_missing"
    assert any("function could be run again for zero_grad_missing" in x for x in diagnosis.limits)


def test_the_losses_of_an_update_are_those_of_its_backward_passes() -> None:
    assert _per_update([4.0, 2.0, 1.0, 3.0, 5.0], 2) == (3.0, 2.0, 5.0)
    assert _per_update([4.0, 2.0], 1) == (4.0, 2.0)


def test_the_healed_function_learns_what_the_sick_one_did_not() -> None:
    sick = loop(clears=False, lr=0.3)
    healed: Any = diagnose(sick, seconds=5).treat(sick)
    torch.manual_seed(0)
    rows = torch.randn(240, 4)
    labels = rows[:, :3].argmax(dim=1)

    def wrong(model: nn.Module) -> float:
        return float((model(rows).argmax(dim=1) != labels).float().mean())

    assert wrong(healed()) < wrong(sick())


def test_a_fault_of_the_training_in_a_sound_loop_is_found_by_trials() -> None:
    diagnosis = diagnose(loop(softmax=True), seconds=5)
    assert diagnosis.findings[0].cause == "double_softmax"
    assert diagnosis.recorded is not None


def test_a_healthy_loop_gives_notes_at_most() -> None:
    assert diagnose(loop(), seconds=5).healthy


def test_a_hole_in_the_inputs_is_named_and_not_what_it_brings_about() -> None:
    causes = [finding.cause for finding in diagnose(loop(hole=True), seconds=5).findings]
    assert causes[0] == "input_not_finite"
    assert "nonfinite_value" not in causes


def test_only_what_a_sound_loop_does_not_show_is_brought_about_by_the_loop() -> None:
    clip, broken, inner = (
        Finding(cause=c, severity=s, summary=said, evidence=(), remedy="")
        for c, s, said in (
            ("clip_misplaced", "error", "loop"),
            ("nonfinite_value", "error", "loop"),
            ("nonfinite_value", "error", "training"),
        )
    )
    assert _merged([broken, clip], []) == (clip,)
    assert _merged([broken, clip], [inner]) == (clip, inner)


def test_the_tape_can_be_asked_itself() -> None:
    train = loop(clears=False)
    with record() as tape:
        train()
    assert tape.diagnose(seconds=5).findings[0].cause == "zero_grad_missing"


def test_a_loop_that_breaks_off_is_read_as_far_as_it_came() -> None:
    def train() -> None:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(12):
            model(torch.ones(4, 2)).square().mean().backward()
            optimizer.step()
            if step == 10:
                raise RuntimeError("the disk is full")

    diagnosis = diagnose(train, seconds=3)
    assert diagnosis.findings[0].cause == "zero_grad_missing"
    assert any("the disk is full" in said for said in diagnosis.limits)


def test_a_function_that_fails_before_it_trains_is_told_so() -> None:
    def train() -> None:
        raise ValueError("no such file")

    with pytest.raises(LeadlineError, match="no such file"):
        diagnose(train)


def test_what_is_neither_setup_nor_function_is_refused() -> None:
    with pytest.raises(LeadlineError, match="a Setup, a tape, or a function that trains"):
        diagnose(nn.Linear(1, 1))
