"""The diagnosis of a Setup: the patient, the procedure, and the findings in order."""

from __future__ import annotations

import warnings

from leadline.doctor.course import Course
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.finding import Finding
from leadline.doctor.patient import Patient, patient_of
from leadline.doctor.procedure import run
from leadline.training.execution import Execution
from leadline.training.setup import Setup

BROADCAST = "Using a target size"
"""How torch's warning of a broadcast target begins: said at every call of every trial otherwise,
while the finding `target_broadcast_shape` says it once, with the remedy."""


def diagnose_setup(
    setup: Setup,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    execution: Execution | None = None,
) -> Diagnosis:
    """See `leadline.diagnose`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=BROADCAST, category=UserWarning)
        patient = patient_of(setup, execution=execution, steps=steps, seconds=seconds)
        course, sick = run(patient)
    return Diagnosis(
        model=patient.checked.checkup.model,
        problem=str(patient.problem),
        measured=patient.problem.measured,
        findings=_ranked(course),
        ruled_out=tuple(course.ruled_out),
        baseline=sick.arm,
        limits=_limits(patient, course),
        steps=patient.allowance.spent_steps,
        seconds=patient.spent,
        allowance=str(patient.allowance),
        share=patient.share,
    )


LAST = frozenset({"epochs_too_few"})
"""What is named behind all else that is proven: any fault makes a training longer."""


def _ranked(course: Course) -> tuple[Finding, ...]:
    """Certain errors first; then what trials proved, as they were adopted; then the rest."""
    errors = [f for f in course.certain if f.severity == "error"]
    warnings = [f for f in course.certain if f.severity == "warning"]
    proven = [*course.proven, *(f for f in warnings if f.proven)]
    proven.sort(key=lambda f: f.cause in LAST)
    notes = [f for f in course.certain if f.severity == "note"]
    return (*errors, *proven, *(f for f in warnings if not f.proven), *notes)


def _limits(patient: Patient, course: Course) -> tuple[str, ...]:
    said = [*patient.limits, *patient.drawn.limits]
    if course.untried and not patient.affords():
        names = ", ".join(dict.fromkeys(f.cause for f in course.untried))
        said.append(f"the allowance was spent before these could be tried: {names}")
    return tuple(dict.fromkeys(said))
