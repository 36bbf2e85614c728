"""Finding: what the doctor says: a cause, its evidence, the layers, and what to do about it.

The severity is meant as it is written. An `error` is certain to spoil the training or its result;
a `warning` is likely to, or costs much; a `note` is worth knowing and may well be intended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from leadline.doctor.remedy import Remedy
from leadline.doctor.trial import Trial
from leadline.doctor.vocabulary import family_of

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From the worst to the mildest."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One number against what it should be: `quantity` was `measured`, `expected` is in words."""

    quantity: str
    measured: float | str
    expected: str

    def __str__(self) -> str:
        """For a person: `loss at the start: 9.2, expected about ln 10 = 2.30`."""
        value = self.measured if isinstance(self.measured, str) else f"{self.measured:.4g}"
        return f"{self.quantity}: {value}, expected {self.expected}"

    def to_plain(self) -> dict[str, Any]:
        """For JSON, which lacks NaN and infinity: they become text."""
        value = self.measured
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        return {"quantity": self.quantity, "measured": value, "expected": self.expected}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or looks so.

    `cause` is a word of `doctor/vocabulary`, `summary` one sentence that a beginner understands,
    `layers` the modules or parameters it is about, the worst first. `remedy` says in words what
    `change` does to a Setup. A finding is `proven` when the evidence leaves no doubt or when a
    `trial` with the change went better than without.

    >>> finding = Finding(
    ...     cause="double_softmax",
    ...     severity="error",
    ...     summary="the outputs are already probabilities, and the loss makes them so again",
    ...     evidence=(Evidence(quantity="sum of a row", measured=1.0, expected="any number"),),
    ...     remedy="return the logits",
    ... )
    >>> finding.family
    'activation'
    """

    cause: str
    severity: Severity
    summary: str
    evidence: tuple[Evidence, ...]
    remedy: str
    layers: tuple[str, ...] = ()
    source: str = ""
    proven: bool = False
    trial: Trial | None = None
    change: Remedy | None = None

    def __post_init__(self) -> None:
        family_of(self.cause)

    @property
    def family(self) -> str:
        """The family of the cause."""
        return family_of(self.cause)

    def to_plain(self) -> dict[str, Any]:
        """The finding as plain values for JSON."""
        return {
            "cause": self.cause,
            "family": self.family,
            "severity": self.severity,
            "summary": self.summary,
            "layers": list(self.layers),
            "evidence": [entry.to_plain() for entry in self.evidence],
            "remedy": self.remedy,
            "source": self.source,
            "proven": self.proven,
            "trial": self.trial.to_plain() if self.trial is not None else None,
            "change": self.change.to_plain() if self.change is not None else None,
        }


def counted(count: int, one: str, many: str) -> str:
    """A number and what it counts.

    >>> counted(1, "layer is", "layers are"), counted(1200, "layer is", "layers are")
    ('1 layer is', '1,200 layers are')
    """
    return f"{count:,} {one if count == 1 else many}"


def by_severity(findings: list[Finding]) -> tuple[Finding, ...]:
    """The worst first; of the same severity, in the order in which they were found."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
