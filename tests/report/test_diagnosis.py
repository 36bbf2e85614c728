"""Tests of the page of a diagnosis, and of its chapter in a run's report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leadline.core.errors import CorruptFileError
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.remedy import Remedy
from leadline.doctor.trial import Arm, Trial
from leadline.report.diagnosis import (
    diagnosis_section,
    keep_diagnosis,
    kept_diagnosis,
    write_diagnosis,
)
from leadline.training.run import Run


def plain(**more: Any) -> dict[str, Any]:
    arms = [Arm(losses=(2.3, end), error=end / 2.3, surprise=1.0) for end in (2.2, 0.4)]
    trial = Trial(
        remedy="return the logits",
        steps=2,
        without=arms[0],
        treated=arms[1],
        measured="wrong answers",
        helps=True,
    )
    finding = Finding(
        cause="double_softmax",
        severity="error",
        summary="the outputs are probabilities already",
        evidence=(Evidence(quantity="sum of a row", measured=1.0, expected="any <number>"),),
        remedy="drop the softmax",
        layers=tuple(f"layers.{n}" for n in range(15)),
        source="torch.nn.CrossEntropyLoss",
        proven=True,
        trial=trial,
        change=Remedy(title="t", lines=("- nn.Softmax(dim=1)", "  other", "+ nn.Identity()")),
    )
    values: dict[str, Any] = {
        "model": "Sequential",
        "problem": "one of 10 classes",
        "measured": "wrong answers",
        "findings": (finding,),
        "ruled_out": (finding,),
        "baseline": arms[0],
        "limits": ("the batches have no length",),
        "steps": 1234,
        "seconds": 12.0,
        "allowance": "30 s",
        "share": 0.2,
    }
    return {**Diagnosis(**(values | more)).to_plain(), "history": ["the loss rose"]}


def test_the_page_has_everything_an_expert_would_check(tmp_path: Path) -> None:
    path = write_diagnosis(tmp_path / "page.html", plain(), name="mine.py:<setup>")
    page = path.read_text()
    assert "<h1>Sequential: 1 error, proven</h1>" in page
    assert "mine.py:&lt;setup&gt;" in page
    for part in (
        "The outputs are probabilities already.",
        "What it does to the training: the network cannot become sure of an answer",
        "any &lt;number&gt;",
        '<span class="minus">- nn.Softmax(dim=1)</span><span class="same">  other</span>',
        "Source: torch.nn.CrossEntropyLoss",
        "and 3 more",
        'id="ruled-out"',
        "the loss rose",
        "the batches have no length",
        "1,234 steps and 12.0 s, 20&nbsp;% of the whole training. The allowance was 30 s.",
    ):
        assert part in page, part
    assert "<script" not in page and "http://www.w3.org" in page


def test_a_healthy_training_gets_a_page_that_says_so(tmp_path: Path) -> None:
    found = plain(findings=(), ruled_out=(), limits=(), share=None, baseline=None)
    page = write_diagnosis(tmp_path / "page.html", found, name="digits").read_text()
    assert "Nothing was found that keeps this training from doing better." in page
    assert "<nav>" not in page and 'id="ruled-out"' not in page


def test_a_run_keeps_its_diagnosis_and_gives_it_back(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert kept_diagnosis(run) is None
    assert keep_diagnosis(run, plain()) == tmp_path / "diagnosis.html"
    assert kept_diagnosis(run) == json.loads(json.dumps(plain()))


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_file_that_is_no_diagnosis_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "diagnosis.json").write_text(text)
    with pytest.raises(CorruptFileError, match=r"diagnosis\.json") as caught:
        kept_diagnosis(Run(tmp_path))
    assert "leadline diagnose" in caught.value.remedy


def test_a_reports_chapter_folds_away_what_is_not_wrong() -> None:
    chapter = diagnosis_section(plain())
    assert chapter.startswith('<section id="diagnosis">')
    assert "1 error, proven." in chapter
    assert "<summary>Ruled out (1)</summary>" in chapter
    assert chapter.count("<section") == 1
