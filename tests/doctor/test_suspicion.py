"""Tests of a suspicion: a finding that counts for nothing before its trial."""

from __future__ import annotations

import pytest

from leadline.core.errors import UnknownNameError
from leadline.doctor.finding import Evidence
from leadline.doctor.remedy import Remedy
from leadline.doctor.suspicion import suspect

CHANGE = Remedy(title="a lower rate", apply=lambda setup: setup)
EVIDENCE = Evidence(quantity="lr", measured=10.0, expected="about 0.1")


def test_a_suspicion_is_a_note_without_proof_that_brings_its_remedy() -> None:
    finding = suspect(
        "lr_too_high", "it jumps", EVIDENCE, change=CHANGE, layers=("a",), source="Smith 2017"
    )
    assert (finding.severity, finding.proven, finding.trial) == ("note", False, None)
    assert finding.change is CHANGE
    assert finding.remedy == "a lower rate"
    assert (finding.evidence, finding.layers, finding.source) == ((EVIDENCE,), ("a",), "Smith 2017")


def test_a_cause_that_is_no_word_of_the_vocabulary_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="lr_too_high"):
        suspect("lr_to_high", "it jumps", EVIDENCE, change=CHANGE)
