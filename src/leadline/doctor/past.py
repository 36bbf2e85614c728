"""The past: what the journal of a run shows, in sentences, and as findings where it is one.

A journal tells what happened, seldom why: a loss that rose has many causes. So most of it is told
as it is, beside the diagnosis; a finding is only what needs no further cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leadline.doctor.finding import SEVERITIES, Evidence, Finding
from leadline.doctor.symptoms import Vitals, symptoms
from leadline.doctor.trial import smoothed

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Past:
    """What happened: `sentences` for people, and `findings`."""

    sentences: tuple[str, ...]
    findings: tuple[Finding, ...]


def read_past(rows: Sequence[Row], *, total_steps: int, metric: str = "accuracy") -> Past:
    """What the rows of a journal show of a training that was to have `total_steps` steps.

    >>> row = {"event": "step", "grad_norm": 1.0}
    >>> rows = [{**row, "step": n, "loss": 1.0 / n} for n in range(1, 9)]
    >>> read_past(rows, total_steps=8).sentences[0]
    '8 of 8 steps were trained; the loss went from 1 to 0.25'
    """
    vitals = Vitals.of_journal(rows, total=total_steps)
    vitals.metric = metric
    if not vitals.losses:
        return Past(sentences=("no step was trained yet",), findings=())
    found = symptoms(vitals)
    sentences = [_course(vitals, total_steps), *_validated(vitals, rows)]
    for symptom in found:
        evidence = "; ".join(str(entry) for entry in symptom.evidence)
        sentences.append(f"{symptom.summary} ({evidence})")
    failures = [row for row in rows if row["event"] == "failed"]
    findings = [_failed(failures[-1])] if failures else []
    findings += [_by_heart(symptom.evidence) for symptom in found if symptom.kind == "overfitting"]
    return Past(sentences=tuple(sentences), findings=tuple(findings))


def with_past(findings: Sequence[Finding], past: Past) -> tuple[Finding, ...]:
    """A diagnosis' findings and those of the past behind them; each cause once, the worst first."""
    known = {finding.cause for finding in findings}
    both = [*findings, *(f for f in past.findings if f.cause not in known)]
    return tuple(sorted(both, key=lambda finding: SEVERITIES.index(finding.severity)))


def _course(vitals: Vitals, total_steps: int) -> str:
    first, last = vitals.losses[0], smoothed(vitals.losses, last=20)
    return (
        f"{vitals.step:,} of {total_steps:,} steps were trained; the loss went from "
        f"{first:.3g} to {last:.3g}"
    )


def _validated(vitals: Vitals, rows: Sequence[Row]) -> list[str]:
    having = [(step, v[vitals.metric]) for step, v in vitals.validations if vitals.metric in v]
    said = []
    if having:
        best, step = max((value, step) for step, value in having)
        said.append(
            f"validation {vitals.metric}: best {best:.4g} at step {step:,}, "
            f"{having[-1][1]:.4g} at step {having[-1][0]:,}"
        )
    failures = [row for row in rows if row["event"] == "failed"]
    if failures:
        said.append(f"the training broke off: {failures[-1]['error']}")
    return said


def _failed(row: Row) -> Finding:
    return Finding(
        cause="nonfinite_value",
        severity="error",
        summary=f"the run broke off at step {row['step'] + 1:,}: its loss or gradient was no "
        "finite number",
        evidence=(
            Evidence(quantity="what the training said", measured=row["error"], expected="nothing"),
        ),
        remedy="mend what stands above it, if anything does; otherwise lower the rate or clip the "
        "gradient, and look at the layer that is named",
        proven=True,
    )


def _by_heart(evidence: tuple[Evidence, ...]) -> Finding:
    return Finding(
        cause="reg_missing",
        severity="warning",
        summary="in this run the validation got worse while the training got better",
        evidence=evidence,
        remedy="stop early (--patience), augment the data, or raise weight_decay or dropout",
        source="Prechelt, Early Stopping, But When?, 1998",
    )
