"""Diagnosis: the causes in order, each with its evidence and its trial, and what may heal them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn

from leadline.core.errors import TrainingError
from leadline.doctor.diagnosis_words import describe_diagnosis
from leadline.doctor.finding import Finding
from leadline.doctor.remedy import Remedy
from leadline.doctor.trial import Arm
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.setup import Setup
from leadline.training.state import TrainingState


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """What a diagnosis found: `findings` in rank order, the likeliest cause first.

    `ruled_out` are suspicions that a trial did not confirm. `baseline` is the training as it is,
    for as many steps as a trial has; None where it could not be run. `problem` says what is to be
    learned, `measured` what the arms' error is, `limits` what could not be found out and why.
    `steps` and `seconds` are what the diagnosis cost, `allowance` what it was given, in words;
    `share` is the cost as a part of the whole training's, None where its length is not known.
    `recorded` is the Setup that a recorded loop was rebuilt as, with a sound loop.
    """

    model: str
    problem: str
    measured: str
    findings: tuple[Finding, ...]
    ruled_out: tuple[Finding, ...]
    baseline: Arm | None
    limits: tuple[str, ...]
    steps: int
    seconds: float
    allowance: str
    share: float | None
    recorded: Setup | None = None

    @property
    def healthy(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """The changes of the proven findings, in rank order; none that did harm in its trial."""
        sound = [f for f in self.findings if f.trial is None or not f.trial.harms]
        found = (f.change for f in sound if f.proven and f.severity != "note")
        return tuple(change for change in found if change is not None)

    def treat(self, subject: Setup | Callable[..., Any]) -> Any:
        """The subject with every proven remedy: a new Setup, or a function that trains healed.

        Faults of a function's loop are healed where it runs; where a proven remedy changes the
        model, the loss or the optimizer, the healed function trains the recorded Setup instead, and
        returns its model. Raises TrainingError where there is no remedy to apply.
        """
        if not isinstance(subject, Setup) and self.recorded is not None:
            inner = [remedy for remedy in self.remedies if remedy.apply is not None]
            if inner:
                return _training_of(self.recorded, inner)
        usable = [r for r in self.remedies if _fits(r, subject)]
        if not usable:
            raise TrainingError(
                expected="a diagnosis with a proven remedy that can be applied to "
                f"a {type(subject).__name__}",
                received=_received(self.findings),
                remedy="read the findings' remedies and change the lines by hand"
                if self.findings
                else "there is nothing to treat",
            )
        if isinstance(subject, Setup):
            for remedy in usable:
                subject = remedy(subject)
            return subject
        return _rerun_with(subject, usable)

    def to_plain(self) -> dict[str, Any]:
        """The diagnosis as plain values for JSON."""
        return {
            "model": self.model,
            "problem": self.problem,
            "measured": self.measured,
            "healthy": self.healthy,
            "findings": [finding.to_plain() for finding in self.findings],
            "ruled_out": [finding.to_plain() for finding in self.ruled_out],
            "baseline": self.baseline.to_plain() if self.baseline is not None else None,
            "limits": list(self.limits),
            "cost": {
                "steps": self.steps,
                "seconds": round(self.seconds, 3),
                "allowance": self.allowance,
                "share": None if self.share is None else round(self.share, 4),
            },
        }

    def __str__(self) -> str:
        return describe_diagnosis(self.to_plain())


def _fits(remedy: Remedy, subject: Any) -> bool:
    return (remedy.apply if isinstance(subject, Setup) else remedy.rerun) is not None


def _received(findings: tuple[Finding, ...]) -> str:
    if not findings:
        return "no finding"
    return "; ".join(f"{f.cause} ({'proven' if f.proven else 'not proven'})" for f in findings)


def _rerun_with(function: Callable[..., Any], remedies: list[Remedy]) -> Callable[..., Any]:
    """The function, run with every remedy applied to what it calls."""

    def healed(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for remedy in remedies:
                assert remedy.rerun is not None, "chosen for it"
                stack.enter_context(remedy.rerun())
            return function(*args, **kwargs)

    return healed


def _training_of(setup: Setup, remedies: list[Remedy]) -> Callable[..., nn.Module]:
    """A function that trains the recorded Setup with the remedies, and returns its model."""
    for remedy in remedies:
        setup = remedy(setup)

    def healed() -> nn.Module:
        state = TrainingState(setup, Execution())
        for _ in steps(setup, state.execution, state=state):
            pass
        return state.evaluated_model

    return healed
