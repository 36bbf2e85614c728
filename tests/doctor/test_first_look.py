"""Tests of the first look: what is certain is not suspected too, and no family stops another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adam

from leadline.doctor import first_look as module
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.first_look import (
    CERTAIN,
    FITTING,
    ON_TRIAL,
    STRUCTURE,
    SUSPECTED,
    first_look,
    without_explained,
)
from leadline.doctor.patient import Patient
from leadline.doctor.vocabulary import family_of
from leadline.training.setup import Setup


def looking(*findings: Finding) -> Callable[[Patient], Iterator[Finding]]:
    return lambda patient: iter(findings)


def plain(cause: str, severity: Any = "error") -> Finding:
    return Finding(
        cause=cause,
        severity=severity,
        summary=severity,
        evidence=(Evidence(quantity="q", measured=1.0, expected="0"),),
        remedy="",
    )


@pytest.fixture
def healthy() -> Patient:
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    setup = Setup(
        model=lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)),
        batches=list(zip(inputs.split(32), inputs[:, :4].argmax(1).split(32), strict=True)),
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda model: Adam(model.parameters(), lr=1e-2),
        epochs=1,
    )
    return Patient(setup, seconds=1)


def test_what_is_certain_is_no_more_suspected(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CERTAIN", (looking(plain("graph_cut")),))
    monkeypatch.setattr(
        module,
        "SUSPECTED",
        (looking(plain("graph_cut", "note"), plain("loss_wrong", "note"), plain("loss_wrong")),),
    )
    certain, suspects = first_look(healthy)
    assert certain[0].cause == "graph_cut"
    assert [f.cause for f in suspects] == ["loss_wrong"]


@pytest.mark.parametrize("error", [RuntimeError("torn"), ValueError("torn"), IndexError("torn")])
def test_a_family_that_fails_is_said_and_the_others_go_on(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(patient: Patient) -> Iterator[Finding]:
        yield plain("batch_leak")
        raise error

    failing.__module__ = "leadline.doctor.causes.suspected.example"
    monkeypatch.setattr(module, "CERTAIN", (failing, looking(plain("graph_cut"))))
    certain, _ = first_look(healthy)
    assert [f.cause for f in certain[:2]] == ["batch_leak", "graph_cut"], "what was seen stays"
    assert "all that example looks at could not be told: torn" in healthy.limits


def test_all_causes_named_here_are_words_of_the_vocabulary() -> None:
    assert all(family_of(cause) for cause in ON_TRIAL | STRUCTURE)
    assert all(callable(look) for look in (*CERTAIN, *FITTING, *SUSPECTED))


def test_what_a_finding_brings_about_is_not_named_beside_it() -> None:
    hole, nan, leak = (plain(c) for c in ("input_not_finite", "nonfinite_value", "batch_leak"))
    assert without_explained([nan, leak], by=[hole]) == [leak]
    assert without_explained([nan, leak], by=[leak]) == [nan, leak]


def test_what_blew_up_unclipped_is_told_as_clipping_in_the_wrong_place() -> None:
    nan, clip = plain("nonfinite_value"), plain("clip_misplaced")
    assert without_explained([nan, clip], by=[nan, clip]) == [clip]
