"""Tests of a treatment: both trainings to their end, and what each came to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leadline.core.errors import LeadlineError, TrainingError
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.finding import Finding
from leadline.doctor.remedies.optimisation import rate_times
from leadline.doctor.remedy import Remedy
from leadline.recipes.catalogue import RECIPES
from leadline.recipes.heal import with_settings
from leadline.recipes.train import prepare, train_prepared
from leadline.recipes.treat import treat_recipe, treat_setup, treatable
from leadline.report.terminal import Terminal
from leadline.training.execution import Execution
from leadline.training.setup import Setup

SMALL: dict[str, Any] = {
    "model.model": "mlp",
    "model.depth": 1,
    "model.width": 16,
    "model.residual": None,
    "regularisation.ema_decay": 0.0,
    "budget.epochs": 3,
}
SICK = with_settings(RECIPES["digits"].recipe, {**SMALL, "optimizer.lr": 1e-7})
X, Y = torch.randn(48, 4, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 3


def diagnosis(change: Remedy | None, *, cause: str = "lr_too_low") -> Diagnosis:
    finding = Finding(
        cause=cause,
        severity="error",
        summary="s",
        evidence=(),
        remedy="r",
        proven=True,
        change=change,
    )
    return Diagnosis(
        model="MLP",
        problem="one of 10 classes",
        measured="wrong answers",
        findings=(finding,),
        ruled_out=(),
        baseline=None,
        limits=(),
        steps=0,
        seconds=0.0,
        allowance="none",
        share=None,
    )


RATE = Remedy(title="a higher rate", settings={"optimizer.lr": 0.1})


def treat(found: Diagnosis, **more: Any) -> Any:
    options: dict[str, Any] = {
        "run": None, "root": Path("runs"), "device": "cpu", "terminal": Terminal(quiet=True),
    }  # fmt: skip
    return treat_recipe(prepare(SICK), found, **(options | more))


def test_a_recipe_is_trained_sick_and_healed_into_runs_of_their_own() -> None:
    treatment = treat(diagnosis(RATE))
    assert treatment.applied == ("lr_too_low",)
    assert treatment.diff == ('  "optimizer": {', '-     "lr": 1e-07,', '+     "lr": 0.1,')
    assert (treatment.before.run, treatment.after.run) == ("runs/digits-001", "runs/digits-002")
    before, after = (side.metrics["accuracy"] for side in (treatment.before, treatment.after))
    assert after > before + 0.3
    assert treatment.measured == "on the 359 test images, one training each"
    assert "after     accuracy " in str(treatment)
    assert set(treatment.to_plain()) == {
        "applied", "left", "diff", "before", "after", "figure", "measured"
    }  # fmt: skip


def test_a_run_that_has_ended_is_not_trained_again() -> None:
    run = train_prepared(
        prepare(SICK), root=Path("runs"), execution=Execution(), terminal=Terminal(quiet=True)
    )
    treatment = treat(diagnosis(RATE), run=run)
    assert treatment.before.run == str(run.folder)
    assert treatment.before.metrics == run.metrics
    assert sorted(p.name for p in Path("runs").iterdir()) == ["digits-001", "digits-002"]


def test_a_training_that_breaks_off_has_no_figure_and_says_why() -> None:
    wild = Remedy(title="far too high", settings={"optimizer.lr": 1e30})
    treatment = treat(diagnosis(wild))
    assert treatment.after.metrics == {} and treatment.after.ended
    assert "after     no accuracy: " in str(treatment)


@pytest.mark.parametrize(
    ("change", "reason"), [(None, "no value"), (Remedy(title="t"), "no value")]
)
def test_what_no_recipe_can_say_is_refused_before_anything_is_trained(
    change: Remedy | None, reason: str
) -> None:
    with pytest.raises(TrainingError, match=reason):
        treat(diagnosis(change))
    assert not Path("runs").exists()


def test_a_setup_is_trained_as_it_is_and_treated_and_both_are_asked_the_same() -> None:
    setup = Setup(
        model=lambda: nn.Linear(4, 3),
        batches=[(X, X[:, :3].argmax(1))] * 30,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-5),
        epochs=3,
    )
    treatment = treat_setup(setup, diagnosis(rate_times(1e5, 1e-5)))
    before, after = (side.metrics["error"] for side in (treatment.before, treatment.after))
    assert after < 0.5 * before
    assert treatment.measured.startswith("on training examples after 90 steps: wrong answers")
    assert treatment.diff == ("- lr=1e-05", "+ lr=1")
    assert treatable(setup) is setup


def test_a_recorded_loop_cannot_be_trained_treated_from_here() -> None:
    with pytest.raises(LeadlineError, match="a recorded loop"):
        treatable(None)
