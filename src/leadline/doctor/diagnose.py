"""Diagnose: why a training does not do better: causes ranked, each with evidence and trial.

diagnosis = leadline.diagnose(setup)
print(diagnosis)
healthy = diagnosis.treat(setup)
"""

from __future__ import annotations

from leadline.core.errors import ConfigError
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.finding import SEVERITIES, Finding
from leadline.doctor.patient import Patient, patient_of
from leadline.doctor.procedure import Course, run
from leadline.training.execution import Execution
from leadline.training.setup import Setup


def diagnose(
    subject: Setup,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    execution: Execution | None = None,
) -> Diagnosis:
    """Find the causes, prove them by trials on copies, and say what heals them.

    `steps` and `seconds` bound what it may cost; the default is 15 % of the training's own time,
    but 30 seconds at least. The Setup stays as it is, and so do the random streams.
    Raises ConfigError for something else than a Setup, MeasurementError for one that cannot be run.

    >>> import torch
    >>> from torch import nn
    >>> data = [(torch.eye(3), torch.arange(3))] * 20
    >>> setup = Setup(
    ...     model=lambda: nn.Sequential(nn.Linear(3, 3), nn.Softmax(dim=1)),
    ...     batches=data,
    ...     loss=nn.CrossEntropyLoss(),
    ...     optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.1),
    ... )
    >>> diagnose(setup, seconds=2).findings[0].cause
    'double_softmax'
    """
    if not isinstance(subject, Setup):
        raise ConfigError(
            expected="a Setup, or a function that trains",
            received=type(subject).__name__,
            remedy="leadline.Setup(model=build, batches=loader, loss=loss, optimizer=make)",
        )
    patient = patient_of(subject, execution=execution, steps=steps, seconds=seconds)
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


def _ranked(course: Course) -> tuple[Finding, ...]:
    """Certain errors first; then what trials proved, as they were adopted; then the rest."""
    errors = [f for f in course.certain if f.severity == "error"]
    others = [f for f in course.certain if f.severity != "error"]
    others.sort(key=lambda f: SEVERITIES.index(f.severity))
    warnings = [f for f in others if f.severity == "warning"]
    notes = [f for f in others if f.severity == "note"]
    return (*errors, *course.proven, *warnings, *notes)


def _limits(patient: Patient, course: Course) -> tuple[str, ...]:
    said = [*patient.limits, *patient.drawn.limits]
    if course.untried:
        names = ", ".join(dict.fromkeys(f.cause for f in course.untried))
        said.append(f"the allowance was spent before these could be tried: {names}")
    return tuple(dict.fromkeys(said))
