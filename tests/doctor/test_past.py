"""Tests of what a journal tells, and of which of it is a finding."""

from __future__ import annotations

from typing import Any

from leadline.doctor.finding import Finding, Severity
from leadline.doctor.past import read_past, with_past

Row = dict[str, Any]


def steps(losses: list[float]) -> list[Row]:
    return [
        {"event": "step", "step": n, "loss": loss, "grad_norm": 1.0}
        for n, loss in enumerate(losses, start=1)
    ]


def validation(step: int, accuracy: float, loss: float) -> Row:
    return {"event": "validation", "step": step, "metrics": {"accuracy": accuracy, "loss": loss}}


def finding(cause: str, severity: Severity) -> Finding:
    return Finding(cause=cause, severity=severity, summary="s", evidence=(), remedy="r")


def test_a_run_that_went_well_is_told_without_a_finding() -> None:
    rows = [*steps([2.0 / (1 + 0.1 * n) for n in range(60)]), validation(30, 0.8, 0.7)]
    past = read_past([*rows, validation(60, 0.9, 0.4)], total_steps=60)
    assert past.findings == ()
    assert past.sentences == (
        "60 of 60 steps were trained; the loss went from 2 to 0.339",
        "validation accuracy: best 0.9 at step 60, 0.9 at step 60",
    )


def test_a_run_that_broke_off_has_an_error_that_is_proven() -> None:
    failed = {"event": "failed", "step": 8, "error": "loss nan at step 9"}
    past = read_past([*steps([2.0] * 8), failed], total_steps=60)
    (found,) = past.findings
    assert (found.cause, found.severity, found.proven) == ("nonfinite_value", "error", True)
    assert "step 9" in found.summary
    assert "the training broke off: loss nan at step 9" in past.sentences


def test_a_run_that_learned_by_heart_has_a_warning() -> None:
    rows = steps([2.0 / (1 + 0.1 * n) for n in range(300)])
    rows += [validation(50, 0.8, 0.5), *(validation(n, 0.7, 1.0 + n) for n in (100, 150, 200, 250))]
    (found,) = read_past(rows, total_steps=300).findings
    assert (found.cause, found.severity, found.proven) == ("reg_missing", "warning", False)
    assert found.evidence[0].measured == 0.7


def test_what_has_many_causes_is_told_and_is_no_finding() -> None:
    past = read_past(steps([2.0] + [50.0] * 100), total_steps=200)
    assert past.findings == ()
    assert any("25 times what it was at the start" in sentence for sentence in past.sentences)


def test_a_run_that_never_began_says_so() -> None:
    assert read_past([], total_steps=10).sentences == ("no step was trained yet",)


def test_the_diagnosis_comes_first_and_names_a_cause_once() -> None:
    failed = {"event": "failed", "step": 8, "error": "loss nan at step 9"}
    past = read_past([*steps([2.0] * 8), failed], total_steps=60)
    merged = with_past([finding("lr_too_high", "error"), finding("reg_missing", "warning")], past)
    assert [f.cause for f in merged] == ["lr_too_high", "nonfinite_value", "reg_missing"]
    own = finding("nonfinite_value", "error")
    assert with_past([own], past) == (own,)
