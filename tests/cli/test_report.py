"""A finished run's report and card are written anew from what its folder holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from leadline.training.run import Run


def test_report_and_card_come_back_with_the_same_figures(
    leadline: Any, trained: Path, tmp_path: Path
) -> None:
    run = Run(Path(shutil.copytree(trained, tmp_path / "copy")))
    run.report_file.unlink()
    run.card_file.unlink()
    said = leadline("report", run.folder, "--json")
    assert said.code == 0 and said.err == ""
    assert said.last == {
        "run": str(run.folder),
        "report": str(run.report_file),
        "card": str(run.card_file),
        "metrics": pytest.approx(run.metrics, rel=1e-6),
    }
    assert run.report_file.read_text().startswith("<!doctype html>")
    assert run.card_file.read_text().startswith("---\n")


def test_a_person_reads_where_they_lie(leadline: Any, trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    said = leadline("report", copy)
    assert said.out == f"report  {copy}/report.html\ncard    {copy}/README.md\n"


def test_a_folder_that_is_no_run_is_refused(leadline: Any, tmp_path: Path) -> None:
    said = leadline("report", tmp_path)
    assert said.code == 1
    assert "expected a run folder, with recipe.json in it" in said.err


def test_a_run_that_did_not_end_is_refused_with_the_command_that_ends_it(
    leadline: Any, trained: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    said = leadline("report", copy)
    assert said.code == 1
    assert f"do this  finish it: leadline train --resume {copy}" in said.err
