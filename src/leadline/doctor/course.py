"""The course of a diagnosis: what heals the training so far, and how a suspicion is tried on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from leadline.doctor.arm import Outcome
from leadline.doctor.comparison import (
    better,
    fairer,
    hurries,
    learns,
    mends,
    quickens,
    trial_of,
    wakes,
)
from leadline.doctor.finding import Finding, Severity
from leadline.doctor.patient import Patient
from leadline.doctor.remedy import Remedy

RATES = frozenset({"lr_too_high", "lr_too_low", "lr_negative", "optimizer_wrong"})
"""Causes whose remedies exclude one another: a rate found for one optimizer suits no other."""

JUDGES: dict[str, Callable[[Outcome, Outcome], bool]] = {
    "class_imbalance": fairer,
    **dict.fromkeys(
        (
            "lr_too_high",
            "lr_too_low",
            "optimizer_wrong",
            "batch_size_too_small",
        ),
        hurries,
    ),
    "batch_size_too_large": quickens,
    "init_bad_scale": wakes,
    "norm_missing": wakes,
    **dict.fromkeys(
        (
            "hidden_activation_wrong",
            "capacity_too_small",
            "layer_extra",
            "activation_extra",
        ),
        mends,
    ),
}
"""What a trial has to show; for what hurries healthy trainings too, more than `better` asks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """A suspicion and what its trial came to."""

    finding: Finding
    outcome: Outcome
    helps: bool
    gain: float


@dataclass(kw_only=True, eq=False)
class Course:
    """Where the procedure stands: the remedies so far, the arm with them, and what was found."""

    base: Outcome
    certain: list[Finding]
    proven: list[Finding]
    ruled_out: list[Finding]
    untried: list[Finding]
    remedies: list[Remedy] = field(default_factory=list)


def attempt(patient: Patient, course: Course, finding: Finding, *, times: float = 1.0) -> Tried:
    """Try a suspicion on the training as healed so far, for `times` the steps of a trial."""
    assert finding.change is not None, "suspicions bring their remedy"
    outcome = patient.arm(*course.remedies, finding.change, times=times)
    if outcome.crashed:
        patient.limits.append(
            f"the trial of {finding.cause} says nothing: it stopped with {outcome.ended}"
        )
    judge = JUDGES.get(finding.cause, better)
    return with_trial(patient, course, finding, outcome, helps=judge(outcome, course.base))


def with_trial(
    patient: Patient, course: Course, finding: Finding, outcome: Outcome, *, helps: bool
) -> Tried:
    """The finding with its trial: the outcome beside the training as healed so far."""
    assert finding.change is not None, "suspicions bring their remedy"
    trial = trial_of(
        course.base,
        outcome,
        remedy=finding.change.title,
        measured=patient.problem.measured,
        helps=helps,
    )
    return Tried(
        finding=replace(finding, trial=trial), outcome=outcome, helps=helps, gain=trial.gain
    )


def adopt(course: Course, tried: Tried) -> None:
    finding = tried.finding
    assert finding.change is not None and finding.trial is not None, "it was tried"
    severity: Severity = "error" if _spoils(course.base, tried.outcome) else "warning"
    course.proven.append(replace(finding, proven=True, severity=severity))
    course.remedies.append(finding.change)
    course.base = tried.outcome


def _spoils(without: Outcome, treated: Outcome) -> bool:
    """Whether the training learns next to nothing without the remedy, and much with it."""
    return not learns(without) and learns(treated)
