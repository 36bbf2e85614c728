"""Treating: the healed training beside the sick one, both to their end, and what each came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leadline.core.errors import LeadlineError, NonFiniteError, TrainingError
from leadline.doctor.arm import Outcome
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.diagnosis_words import number_in_words
from leadline.doctor.patient import patient_of
from leadline.recipes.heal import Healed, heal_recipe, recipe_diff
from leadline.recipes.train import Prepared, train_prepared
from leadline.report.numbers import percent
from leadline.report.terminal import Terminal
from leadline.training.execution import Execution
from leadline.training.run import Run
from leadline.training.setup import Setup


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two trainings: its figures, and where it lies or why it has none."""

    metrics: dict[str, float]
    run: str = ""
    ended: str = ""

    def to_plain(self) -> dict[str, Any]:
        """The side as plain values for JSON."""
        return {"metrics": self.metrics, "run": self.run or None, "ended": self.ended or None}


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What was changed, and both trainings; `measured` says what the figure is."""

    applied: tuple[str, ...]
    left: tuple[str, ...]
    diff: tuple[str, ...]
    before: Side
    after: Side
    figure: str
    measured: str

    def to_plain(self) -> dict[str, Any]:
        """The treatment as plain values for JSON."""
        return {
            "applied": list(self.applied),
            "left": list(self.left),
            "diff": list(self.diff),
            "before": self.before.to_plain(),
            "after": self.after.to_plain(),
            "figure": self.figure,
            "measured": self.measured,
        }

    def __str__(self) -> str:
        """Before and after in a few lines."""
        lines = [f"left out  {entry}" for entry in self.left]
        lines += [f"          {self.measured}"]
        for name, side in (("before", self.before), ("after", self.after)):
            lines.append(f"{name:<10}{_said(side, self.figure)}")
        return "\n".join(lines)


def _said(side: Side, figure: str) -> str:
    where = f" ({side.run})" if side.run else ""
    if figure not in side.metrics:
        return f"no {figure}: {side.ended or 'the training did not end'}{where}"
    value = side.metrics[figure]
    text = percent(value) if figure == "accuracy" else number_in_words(value)
    return f"{figure} {text}{where}" + (f"; {side.ended}" if side.ended else "")


def heal_prepared(prepared: Prepared, diagnosis: Diagnosis) -> Healed:
    """The recipe with what was proven; TrainingError where a recipe can say none of it."""
    healed = heal_recipe(prepared.recipe, diagnosis, dataset=prepared.dataset)
    if healed.applied:
        return healed
    reasons = "; ".join(f"{finding.cause}: {reason}" for finding, reason in healed.left)
    raise TrainingError(
        expected="a proven finding whose remedy a recipe can say",
        received=reasons or "none that is proven",
        remedy="read what each finding says to do" if diagnosis.findings else "train it as it is",
    )


def treat_recipe(
    prepared: Prepared,
    diagnosis: Diagnosis,
    *,
    run: Run | None,
    root: Path,
    device: str,
    terminal: Terminal,
) -> Treatment:
    """Train the healed recipe, and the sick one where `run` is not it, trained to its end."""
    healed = heal_prepared(prepared, diagnosis)
    diff = recipe_diff(prepared.recipe, healed.recipe)
    for line in diff:
        terminal.say("recipe", line)
    before = _trained(run) if run is not None else None
    if before is None:
        terminal.say("before", "training the recipe as it is")
        before = _train(prepared, root=root, device=device, terminal=terminal)
    terminal.say("after", "training the healed recipe")
    reason = f"{healed.recipe.model.model}, healed of {_causes(healed)}"
    cured = Prepared(recipe=healed.recipe, dataset=prepared.dataset, reason=reason)
    after = _train(cured, root=root, device=device, terminal=terminal)
    return Treatment(
        applied=tuple(finding.cause for finding in healed.applied),
        left=tuple(f"{finding.cause}: {reason}" for finding, reason in healed.left),
        diff=diff,
        before=before,
        after=after,
        figure="accuracy",
        measured=f"on the {len(prepared.dataset.test):,} test images, one training each",
    )


def _causes(healed: Healed) -> str:
    return ", ".join(finding.cause for finding in healed.applied)


def _trained(run: Run) -> Side | None:
    """What a run came to, where it ended or broke off; None where it has to be trained yet."""
    if run.event("end") is not None:
        return Side(metrics=run.metrics, run=str(run.folder))
    failed = run.event("failed")
    return Side(metrics={}, run=str(run.folder), ended=failed["error"]) if failed else None


def _train(prepared: Prepared, *, root: Path, device: str, terminal: Terminal) -> Side:
    known = set(root.iterdir()) if root.is_dir() else set()
    try:
        run = train_prepared(
            prepared, root=root, device=device, execution=Execution(device=device),
            terminal=terminal,
        )  # fmt: skip
    except NonFiniteError as error:
        (folder,) = set(root.iterdir()) - known
        terminal.say("broke off", error.received)
        return Side(metrics={}, run=str(folder), ended=error.received)
    return Side(metrics=run.metrics, run=str(run.folder))


def treat_setup(setup: Setup, diagnosis: Diagnosis) -> Treatment:
    """Train copies of a Setup to their end, as it is and treated, and ask both the same."""
    diagnosis.treat(setup)  # says so where there is nothing to apply
    remedies = [remedy for remedy in diagnosis.remedies if remedy.apply is not None]
    patient = patient_of(setup, seconds=1.0)
    times = (patient.total_steps or patient.steps) / patient.steps
    before, after = patient.arm(times=times), patient.arm(*remedies, times=times)
    names = tuple(f.cause for f in diagnosis.findings if f.change in diagnosis.remedies)
    lines = tuple(line for remedy in diagnosis.remedies for line in remedy.lines)
    where = "held-out" if patient.held_out else "training"
    return Treatment(
        applied=names,
        left=(),
        diff=lines,
        before=_side(before),
        after=_side(after),
        figure="error",
        measured=f"on {where} examples after {before.steps:,} steps: {patient.problem.measured}",
    )


def _side(outcome: Outcome) -> Side:
    metrics = {"error": outcome.verdict.error}
    return Side(metrics={} if outcome.ended else metrics, ended=outcome.ended)


def treatable(setup: Setup | None) -> Setup:
    """The Setup to treat; ConfigError's remedy says what a recorded loop needs instead."""
    if setup is not None:
        return setup
    raise LeadlineError(
        expected="a recipe, a run, or a function that returns a Setup, to be trained treated",
        received="a recorded loop, whose lines only its author can change",
        remedy="change the lines that the findings name, or in Python: diagnosis.treat(function)()",
    )
