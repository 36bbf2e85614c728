"""Tests of a diagnosis as text: complete, in order, within the width, from plain values alone."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.diagnosis_words import describe_diagnosis, number_in_words, verdict
from leadline.doctor.finding import Evidence, Finding, Severity
from leadline.doctor.remedy import Remedy
from leadline.doctor.trial import Arm, Trial

MEASURED = "wrong answers, over those of always naming the commonest class"


def trial(*, before: float = 0.8, after: float = 0.2, helps: bool = True, **arm: Any) -> Trial:
    losses = tuple(2.3 - 0.001 * step for step in range(100))
    falling = tuple(2.3 - 0.02 * step for step in range(100))
    return Trial(
        remedy="return the logits",
        steps=100,
        without=Arm(losses=arm.pop("losses", losses), error=before, surprise=before, **arm),
        treated=Arm(losses=falling, error=after, surprise=after),
        measured=MEASURED,
        helps=helps,
    )


def finding(cause: str = "double_softmax", severity: Severity = "error", **more: Any) -> Finding:
    values: dict[str, Any] = {
        "summary": "the outputs are probabilities already, and the loss makes them so once more",
        "evidence": (Evidence(quantity="sum of a row", measured=1.0, expected="any number"),),
        "remedy": "drop the softmax at the end",
        "source": "torch.nn.CrossEntropyLoss",
        "layers": tuple(f"layers.{n}" for n in range(6)),
        "proven": True,
        "trial": trial(),
        "change": Remedy(title="return the logits", lines=("- nn.Softmax(dim=1)", "+ pass")),
    }
    return Finding(cause=cause, severity=severity, **(values | more))


def diagnosis(*findings: Finding, **more: Any) -> Diagnosis:
    values: dict[str, Any] = {
        "model": "Sequential",
        "problem": "one of 10 classes",
        "measured": MEASURED,
        "findings": findings,
        "ruled_out": (),
        "baseline": trial().without,
        "limits": (),
        "steps": 1234,
        "seconds": 12.34,
        "allowance": "30 s",
        "share": 0.21,
    }
    return Diagnosis(**(values | more))


def text(found: Diagnosis, width: int = 96) -> str:
    return describe_diagnosis(json.loads(json.dumps(found.to_plain())), width=width)


def line_of(found: str, label: str) -> str:
    (line,) = (line for line in found.splitlines() if line.strip().startswith(label))
    return line


def test_the_verdict_comes_first_and_the_cost_last() -> None:
    lines = text(diagnosis(finding())).splitlines()
    assert lines[0] == "Sequential: 1 error, proven (12.3 s)"
    assert lines[1].startswith("to be learned: one of 10 classes; after 100 steps as it is, its")
    assert lines[-1] == (
        "cost: 1,234 steps and 12.3 s, 21% of what the whole training takes; the allowance was 30 s"
    )


def test_a_finding_says_what_was_seen_what_it_means_and_what_to_do() -> None:
    found = text(diagnosis(finding()))
    assert "ERROR   double_softmax, proven: the outputs are probabilities already" in found
    assert "        means    the network cannot become sure of an answer" in found
    assert "        where    layers.0, layers.1, layers.2, layers.3 and 2 more" in found
    assert "        evidence sum of a row: 1, expected any number" in found
    assert "        do this  drop the softmax at the end" in found
    assert "                 - nn.Softmax(dim=1)\n                 + pass" in found
    assert "        source   torch.nn.CrossEntropyLoss" in found


def test_a_trial_shows_both_errors_both_curves_and_what_they_come_to() -> None:
    found = text(diagnosis(finding()))
    assert "trial    100 steps without and with this change: return the logits" in found
    without, treated = line_of(found, "without"), line_of(found, "with it")
    assert "error 0.8 " in without and "error 0.2 " in treated
    assert "2.3 → 2.2" in without and "2.3 → 0.36" in treated
    assert len(set(without.split("loss ")[1].split()[0])) == 1, "flat on the scale of both"
    assert "▁" in treated and "█" in treated
    assert "75% of the error is gone" in found


def test_the_yardstick_is_explained_once_and_again_only_where_it_is_another() -> None:
    flat = " ".join(text(diagnosis(finding())).split())
    assert flat.count(MEASURED) == 1
    other = " ".join(text(diagnosis(finding(), measured="something else")).split())
    assert f"error: {MEASURED}" in other


def test_an_arm_that_broke_off_says_so_and_its_curve_shows_where() -> None:
    broken = trial(before=math.inf, losses=(2.0, 500.0, math.nan), ended="loss nan at step 3")
    found = text(diagnosis(finding(trial=broken)))
    assert "it stopped there: loss nan at step 3" in found
    assert "error infinite" in found
    assert "×" in line_of(found, "without")
    flat = " ".join(found.split())
    assert "with the change it learns, without it breaks off" in flat
    assert "× is a loss that is not finite" in flat
    assert "losses above 9.2 are cut off" in flat


def test_a_trial_that_did_not_help_is_no_success() -> None:
    found = text(diagnosis(finding(trial=trial(after=0.79, helps=False), proven=False)))
    assert "the change does not help by enough to count" in found
    assert "1 error, not proven" in found
    assert "ERROR   double_softmax: " in found


def test_what_was_ruled_out_and_what_is_not_known_is_said_in_a_line_each() -> None:
    out = finding("lr_too_low", "note", trial=trial(after=0.81, helps=False), proven=False)
    found = text(diagnosis(ruled_out=(out,), limits=("the batches have no length",)))
    assert "  lr_too_low: return the logits: error 0.8 → 0.81 over 100 steps" in found
    assert "what could not be found out:\n  the batches have no length" in found


def test_the_history_of_a_run_is_told() -> None:
    plain = {**diagnosis().to_plain(), "history": ["the loss rose from step 20 on"]}
    assert "what the journal shows:\n  the loss rose from step 20 on" in describe_diagnosis(plain)
    assert "journal" not in describe_diagnosis(diagnosis().to_plain())


def test_a_baseline_that_cannot_be_judged_is_not_given_a_number() -> None:
    arm = Arm(losses=(2.0, 1e9), error=math.inf, surprise=math.inf, ended="loss inf at step 3")
    found = " ".join(text(diagnosis(baseline=arm)).split())
    assert "its answers cannot be judged any more" in found
    assert "it stopped there: loss inf at step 3" in found
    assert "to be learned: one of 10 classes\n" in text(diagnosis(baseline=None))


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    out = finding("lr_too_low", "note", proven=False, summary="word " * 60, trial=None)
    broken = trial(before=math.inf, losses=(2.0, 1e30, 1e-30, math.nan), ended="loss nan " * 20)
    found = diagnosis(
        finding(), finding(trial=broken, summary="word " * 50), ruled_out=(out,),
        limits=("limit " * 40,),
    )  # fmt: skip
    assert max(map(len, text(found, width).splitlines())) <= width


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "nothing wrong was found"),
        ([("note", True)], "1 note"),
        ([("error", True), ("note", False)], "1 error, proven; 1 note"),
        ([("warning", False)], "1 warning, not proven"),
        ([("error", True), ("error", True), ("warning", True)], "2 errors, 1 warning (all proven)"),
        ([("error", True), ("warning", False)], "1 error, 1 warning (1 proven)"),
        ([("warning", False), ("warning", False)], "2 warnings (none proven)"),
    ],
)  # fmt: skip
def test_the_verdict_counts_what_is_proven(found: list[tuple[str, bool]], said: str) -> None:
    assert verdict({"findings": [{"severity": s, "proven": p} for s, p in found]}) == said


def test_print_gives_the_same_text() -> None:
    found = diagnosis(finding())
    assert str(found) == text(found)


def test_a_share_above_the_whole_training_is_a_multiple() -> None:
    flat = " ".join(text(diagnosis(share=10.4)).split())
    assert "10.4 times what the whole training takes" in flat
    assert "whole training" not in text(diagnosis(share=None))


def test_numbers_have_few_digits() -> None:
    assert [number_in_words(v) for v in (0.0, 1e-9, "nan")] == ["0", "1e-09", "NaN"]
