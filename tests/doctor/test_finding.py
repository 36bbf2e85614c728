"""Tests of findings: their words, their plain values, their order."""

from __future__ import annotations

import json
import math

import pytest

from leadline.core.errors import LeadlineError
from leadline.doctor.finding import SEVERITIES, Evidence, Finding, Severity, by_severity


def finding(cause: str = "double_softmax", severity: Severity = "error") -> Finding:
    return Finding(
        cause=cause,
        severity=severity,
        summary="probabilities twice",
        evidence=(Evidence(quantity="sum of a row", measured=1.0, expected="any number"),),
        remedy="return the logits",
        layers=("head",),
    )


def test_evidence_reads_as_a_sentence() -> None:
    entry = Evidence(quantity="loss at the start", measured=9.21, expected="about ln 10 = 2.30")
    assert str(entry) == "loss at the start: 9.21, expected about ln 10 = 2.30"
    named = Evidence(quantity="range of the outputs", measured="0 to 1", expected="both signs")
    assert str(named) == "range of the outputs: 0 to 1, expected both signs"


def test_a_finding_as_plain_values_is_json_even_where_numbers_are_not_finite() -> None:
    odd = Finding(
        cause="nonfinite_value",
        severity="error",
        summary="not finite",
        evidence=(Evidence(quantity="loss", measured=math.nan, expected="a finite number"),),
        remedy="look",
    )
    plain = json.loads(json.dumps(odd.to_plain(), allow_nan=False))
    assert plain["evidence"] == [
        {"quantity": "loss", "measured": "nan", "expected": "a finite number"}
    ]
    assert set(plain) == {
        "cause", "family", "severity", "summary", "layers", "evidence", "remedy", "source",
        "proven", "trial", "change",
    }  # fmt: skip
    assert finding().to_plain()["evidence"][0]["measured"] == 1.0


def test_a_cause_that_is_no_word_of_the_vocabulary_is_refused() -> None:
    with pytest.raises(LeadlineError, match="cause"):
        finding(cause="bad_luck")


def test_the_family_is_that_of_the_cause() -> None:
    assert finding().family == "activation"


def test_the_worst_come_first_and_equals_stay_in_order() -> None:
    given = [
        finding("parameters_unused", "note"),
        finding("lr_too_high", "warning"),
        finding("double_softmax", "error"),
        finding("init_constant", "warning"),
        finding("graph_cut", "error"),
    ]
    sorted_causes = [entry.cause for entry in by_severity(given)]
    assert sorted_causes == [
        "double_softmax",
        "graph_cut",
        "lr_too_high",
        "init_constant",
        "parameters_unused",
    ]
    assert SEVERITIES[0] == "error"
