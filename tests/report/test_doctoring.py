"""Tests of the chapter on what the doctor did while a run trained."""

from __future__ import annotations

from typing import Any

from leadline.report.doctoring import doctor_section


def row(outcome: str, **more: Any) -> dict[str, Any]:
    evidence = [{"quantity": "loss", "measured": 230.0, "expected": "below <2.3>"}]
    symptom = {"kind": "flat", "since": 0, "summary": "the loss is high", "evidence": evidence}
    values = {"event": "doctor", "step": 0, "at": 1218, "mode": "heal", "outcome": outcome}
    return values | {"symptom": symptom, "says": "nothing is changed"} | more


def test_a_training_without_a_doctor_has_no_chapter() -> None:
    assert doctor_section([{"event": "step", "step": 1}]) == ""


def test_what_was_seen_found_and_changed_is_there() -> None:
    cost = {"steps": 300, "seconds": 12.0}
    found = {"findings": [{"cause": "lr_too_high", "proven": True}], "cost": cost}
    diff = ['  "optimizer": {', '-     "lr": 50.0,', '+     "lr": 0.1,']
    page = doctor_section([row("healed", diagnosis=found, diff=diff, says="healed of it")])
    assert "spoke up once; the recipe was changed once." in page
    assert "Step 1,218: the loss is high" in page
    assert "below &lt;2.3&gt;" in page and ">230<" in page
    assert "A diagnosis of 12.0 s and 300 steps found: lr_too_high (proven)." in page
    assert "Healed of it." in page
    assert '<span class="minus">-     &quot;lr&quot;: 50.0,</span>' in page


def test_advice_alone_says_that_nothing_was_changed() -> None:
    page = doctor_section([row("advised"), row("advised")])
    assert "spoke up twice; nothing was changed." in page
    assert "A diagnosis of" not in page and 'class="diff"' not in page
