"""Tests of an attended training: a healthy one untouched, a sick one healed, all of it written."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from leadline.core.config import from_json
from leadline.core.errors import NonFiniteError
from leadline.doctor import attending
from leadline.doctor.diagnosis import Diagnosis
from leadline.recipes import attend
from leadline.recipes.attend import Mode
from leadline.recipes.catalogue import RECIPES
from leadline.recipes.heal import with_settings
from leadline.recipes.train import prepare, resume, train_prepared
from leadline.report.terminal import Terminal
from leadline.training.execution import Execution
from leadline.training.recipe import Recipe
from leadline.training.run import Run

SMALL: dict[str, Any] = {
    "model.model": "mlp",
    "model.depth": 2,
    "model.width": 32,
    "model.residual": None,
    "model.norm": "none",
    "regularisation.ema_decay": 0.0,
    "budget.epochs": 12,
}
HEALTHY = with_settings(RECIPES["digits"].recipe, SMALL)
SICK = with_settings(HEALTHY, {"optimizer.lr": 500.0, "schedule.warmup": 0.0})


@pytest.fixture(autouse=True)
def _at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look as often as can be: these trainings are over in a second."""
    monkeypatch.setattr(attending, "INTERVAL", 0.0)
    monkeypatch.setattr(attending, "SPARING", 3.0)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A diagnosis whose cost does not depend on how busy the machine is."""
    whole = attend.diagnose

    def bounded(setup: Any, **options: Any) -> Any:
        return whole(setup, steps=300, seconds=600.0, **options)

    monkeypatch.setattr(attend, "diagnose", bounded)


def trained(recipe: Recipe, doctor: Mode, root: str = "runs") -> tuple[Run, str]:
    """Train; the run, and what was said."""
    terminal = Terminal(console=Console(file=StringIO(), width=200))
    run = train_prepared(
        prepare(recipe),
        root=Path(root),
        execution=Execution(),
        terminal=terminal,
        doctor=doctor,
    )
    said: str = terminal.console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    return run, said


def told(run: Run) -> list[dict[str, Any]]:
    return [row for row in run.history() if row["event"] == "doctor"]


def test_a_healthy_training_is_bit_for_bit_what_it_is_alone() -> None:
    alone, _ = trained(HEALTHY, "off")
    attended, said = trained(HEALTHY, "heal")
    first, second = load_file(alone.model_file), load_file(attended.model_file)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert told(attended) == [] and "doctor" not in said
    assert attended.metrics == alone.metrics
    assert "The doctor" not in attended.report_file.read_text()


def test_a_rate_far_too_high_is_healed_and_everything_is_written_down(few_steps: None) -> None:
    run, said = trained(SICK, "heal")
    assert run.metrics["accuracy"] > 0.6
    rows = [row for row in told(run) if row["outcome"] == "healed"]
    assert rows and "lr_too_high" in rows[0]["applied"]
    assert run.recipe.optimizer.lr < SICK.optimizer.lr / 100
    former = run.folder / "recipe.before-1.json"
    assert from_json(Recipe, former.read_text()) == SICK
    assert (run.folder / "journal.before-1.jsonl").is_file()
    assert rows[0]["diff"][1:3] == [
        '-     "lr": 500.0,',
        f'+     "lr": {rows[0]["diff"][2].partition(": ")[2]}',
    ]
    assert "doctor    healed of lr_too_high" in said
    kept = json.loads((run.folder / "diagnosis.json").read_text())
    assert kept["findings"][0]["cause"] == "lr_too_high"
    assert "of the recipe as it was then" in kept["history"][0]
    report = run.report_file.read_text()
    assert 'id="doctor"' in report and 'id="diagnosis"' in report
    steps = [row["step"] for row in run.history() if row["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1)), "the journal tells one history"


def test_advice_is_said_and_written_and_changes_nothing() -> None:
    recipe = with_settings(HEALTHY, {"optimizer.lr": 1e-9, "budget.epochs": 12})
    alone, _ = trained(recipe, "off")
    run, said = trained(recipe, "advise")
    (row,) = told(run)
    assert (row["outcome"], row["symptom"]["kind"]) == ("advised", "flat")
    assert f"leadline diagnose {run.folder}" in said
    first, second = load_file(alone.model_file), load_file(run.model_file)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert run.recipe == recipe
    assert not (run.folder / "diagnosis.json").exists()


def test_a_training_that_breaks_off_and_is_only_advised_still_fails() -> None:
    recipe = with_settings(SICK, {"optimizer.lr": 1e20})
    with pytest.raises(NonFiniteError):
        trained(recipe, "advise")
    run = Run.open("runs/digits-001")
    assert told(run)[-1]["symptom"]["kind"] == "not_finite"
    assert run.event("failed") is not None


def test_what_cannot_be_proven_is_left_alone_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Diagnosis(
        model="MLP",
        problem="one of 10 classes",
        measured="wrong answers",
        findings=(),
        ruled_out=(),
        baseline=None,
        limits=(),
        steps=123,
        seconds=1.0,
        allowance="30 s",
        share=None,
    )
    monkeypatch.setattr(attend, "diagnose", lambda setup, **options: nothing)
    recipe = with_settings(HEALTHY, {"optimizer.lr": 1e-9})
    alone, _ = trained(recipe, "off")
    run, said = trained(recipe, "heal")
    (row,) = told(run)
    assert row["outcome"] == "nothing proven"
    assert "no cause was proven" in said
    assert row["diagnosis"]["cost"]["steps"] == 123
    first, second = load_file(alone.model_file), load_file(run.model_file)
    assert all(torch.equal(first[name], second[name]) for name in first), "not even disturbed"


def test_a_run_is_healed_a_limited_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attend, "MOST_HEALINGS", 0)
    run, _ = trained(with_settings(HEALTHY, {"optimizer.lr": 1e-9}), "heal")
    (row,) = told(run)
    assert row["outcome"] == "advised" and "0 times already" in row["says"]


def test_a_resumed_run_is_attended_as_it_was_begun() -> None:
    run = Run.create(with_settings(HEALTHY, {"optimizer.lr": 1e-9}), root=Path("runs"))
    row = {"event": "asked", "step": 0, "device": "cpu", "execution": {"device": "cpu"}}
    row["doctor"] = "advise"
    run.journal.write_text(json.dumps(row) + "\n")
    resume(run.folder, terminal=Terminal(quiet=True))
    assert [row["outcome"] for row in told(run)] == ["advised"]
