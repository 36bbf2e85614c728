"""Tests of leadline bench scaling: the table, its budget, what it leaves out."""

from __future__ import annotations

import json

import pytest

from leadline.cli.main import run


def test_every_row_is_within_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "scaling", "--models", "convnet", "mlp", "--parameters", "20000"]
    assert run([*words, "--image-size", "16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {row["model"] for row in told["rows"]} == {"convnet", "mlp"}
    assert all(row["parameters"] <= 20000 for row in told["rows"])
    deep = [row for row in told["rows"] if row["model"] == "convnet"]
    assert [row["depth"] for row in deep] == [1, 2, 4]
    assert [row["width"] for row in deep] == sorted((row["width"] for row in deep), reverse=True)


def test_operations_can_be_the_budget_and_steps_be_timed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["bench", "scaling", "--models", "convnet", "--flops", "2e6", "--image-size", "8"]
    assert run([*words, "--time", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert all(0.3 * 2e6 < row["flops"] <= 2e6 for row in rows)
    assert all(row["step_seconds"] > 0 for row in rows)


def test_a_family_without_a_fit_is_told_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["bench", "--models", "alexnet", "convnet", "--parameters", "9000"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].split()[:3] == ["model", "depth", "width"]
    assert "left out  alexnet, depth 8: " in said
    assert "at its narrowest, width 1" in said


def test_an_unknown_model_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "scaling", "--models", "convnext_tny"]) == 2
    assert "did you mean 'convnext_tiny'" in capsys.readouterr().err


def test_a_budget_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "scaling", "--parameters", "0"]) == 2
    assert "parameters must be >= 1" in capsys.readouterr().err
