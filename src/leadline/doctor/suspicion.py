"""Suspicion: a finding that waits for its proof, with the remedy that would give it.

A check says what is certain from one batch. A suspicion is weaker: something that spoils many
trainings and suits some. It counts when a training with the remedy goes clearly better than
without, and is ruled out when it does not.
"""

from __future__ import annotations

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.remedy import Remedy


def suspect(
    cause: str,
    summary: str,
    *evidence: Evidence,
    change: Remedy,
    source: str = "",
    layers: tuple[str, ...] = (),
) -> Finding:
    """A finding of severity 'note', not proven, whose remedy is that of `change`.

    >>> change = Remedy(title="lower the rate")
    >>> suspect("lr_too_high", "the loss rises", change=change).proven
    False
    """
    return Finding(
        cause=cause,
        severity="note",
        summary=summary,
        evidence=evidence,
        remedy=change.title,
        layers=layers,
        source=source,
        change=change,
    )
