"""Symptoms: what can be seen for nothing while a training runs, or afterwards in its journal.

A symptom is no cause: a loss that rises has many. It is what makes it worth the cost to look for
one. The thresholds are wide, since a healthy training must not be disturbed: a warm-up, a plateau,
a noisy loss are none of these.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from leadline.doctor.finding import Evidence

Kind = Literal[
    "not_finite",
    "far_above_start",
    "rising",
    "flat",
    "gradient_vanished",
    "gradient_exploded",
    "dead_layers",
    "overfitting",
]

FIRST = 20
"""Steps before which nothing is said: the first ones are rough in many healthy trainings."""

LATELY = 20
"""Steps that 'lately' means, for a median that one bad batch does not move."""

FAR = 3.0
"""Times the loss at the start that a healthy training does not reach again."""

RISE = 1.5
"""Times its lowest level that a loss has to stay above, in four blocks that rise one by one."""

FLAT_SHARE, FLAT_STEPS, FLAT_FALL, FLAT_LEVEL = 0.15, 200, 0.02, 0.8
"""A loss is flat that falls by less than 2 % between the halves of the last 15 % of the training,
200 steps at least, while it is still above 0.8 of what it was at the start."""

VANISHED, EXPLODED = 1e-7, 1e4
"""A gradient's norm, as it is, and over that at the start."""

DEAD = 0.9
"""Part of a layer's units that say 0 to every example."""

WORSE, WORSE_LOSS, WORSE_TIMES = 0.02, 1.15, 3
"""The validation is worse when its figure lies 0.02, and its loss 15 %, off the best, 3 times."""


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """What was seen: at which `step`, and the last step before which all was well, `since`."""

    kind: Kind
    step: int
    since: int
    summary: str
    evidence: tuple[Evidence, ...]

    def to_plain(self) -> dict[str, Any]:
        """The symptom as plain values for JSON."""
        return {
            "kind": self.kind,
            "since": self.since,
            "summary": self.summary,
            "evidence": [entry.to_plain() for entry in self.evidence],
        }


@dataclass(kw_only=True)
class Vitals:
    """The numbers of a training so far: a loss and a gradient norm per step, and what came between.

    `first` is the number of the first step; `total` how many there will be, 0 where that is not
    known. `validations` are (step, figures); `watched` are a watch's rows; `metric` is the figure
    of the validation that counts, the higher the better.
    """

    first: int = 1
    total: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    validations: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    watched: list[Mapping[str, Any]] = field(default_factory=list)
    metric: str = "accuracy"

    @classmethod
    def of_journal(cls, rows: Sequence[Mapping[str, Any]], *, total: int = 0) -> Vitals:
        """Those that a run's journal holds."""
        steps = [row for row in rows if row["event"] == "step"]
        return cls(
            first=steps[0]["step"] if steps else 1,
            total=total,
            losses=[float(row["loss"]) for row in steps],
            norms=[float(row["grad_norm"]) for row in steps],
            validations=[
                (row["step"], row["metrics"]) for row in rows if row["event"] == "validation"
            ],
            watched=[row for row in rows if row["event"] == "watch"],
        )

    @property
    def step(self) -> int:
        """The latest step."""
        return self.first + len(self.losses) - 1


def symptoms(vitals: Vitals) -> tuple[Symptom, ...]:
    """Everything that is out of order by now, the gravest first.

    >>> [s.kind for s in symptoms(Vitals(losses=[2.0] * 10 + [50.0] * 40, norms=[1.0] * 50))]
    ['far_above_start']
    """
    if not vitals.losses:
        return ()
    looks = (_not_finite, _height, _gradients, _flat, _dead, _overfitting)
    found = [symptom for look in looks for symptom in look(vitals)]
    return tuple(found)


def _not_finite(vitals: Vitals) -> list[Symptom]:
    for index, loss in enumerate(vitals.losses):
        if not math.isfinite(loss):
            step = vitals.first + index
            return [
                Symptom(
                    kind="not_finite",
                    step=step,
                    since=max(0, step - LATELY),
                    summary=f"the loss is not finite at step {step:,}",
                    evidence=(Evidence(quantity="loss", measured=loss, expected="a number"),),
                )
            ]
    return []


def _height(vitals: Vitals) -> list[Symptom]:
    """Far above the start, or rising block by block."""
    losses = [loss for loss in vitals.losses if math.isfinite(loss)]
    if len(losses) < FIRST + LATELY or vitals.first > 1:
        return []
    start, lately = min(losses[:5]), statistics.median(losses[-LATELY:])
    lowest, since = _lowest(losses)
    if start > 0 and lately > FAR * start:
        return [
            Symptom(
                kind="far_above_start",
                step=vitals.step,
                since=since if lowest < start else 0,
                summary=f"the loss is {lately / start:.3g} times what it was at the start",
                evidence=(
                    Evidence(
                        quantity=f"loss in the last {LATELY} steps",
                        measured=lately,
                        expected=f"below that at the start, {start:.4g}",
                    ),
                ),
            )
        ]
    size = max(LATELY, len(losses) // 10)
    blocks = [statistics.median(losses[-size * k :][:size]) for k in (4, 3, 2, 1)]
    rising = len(losses) >= 5 * size and all(
        before < after for before, after in itertools.pairwise(blocks)
    )
    if not rising or lowest <= 0 or blocks[-1] < RISE * lowest or blocks[-1] < 0.3 * start:
        return []
    return [
        Symptom(
            kind="rising",
            step=vitals.step,
            since=since,
            summary=f"the loss rises, and is {blocks[-1] / lowest:.3g} times its lowest level",
            evidence=(
                Evidence(
                    quantity=f"loss in the last {size} steps",
                    measured=blocks[-1],
                    expected=f"near its lowest level, {lowest:.4g}",
                ),
            ),
        )
    ]


def _lowest(losses: Sequence[float]) -> tuple[float, int]:
    """The lowest median of a block, and the step at which that block ends."""
    blocks = [
        (statistics.median(losses[end - LATELY : end]), end)
        for end in range(LATELY, len(losses) + 1, LATELY)
    ]
    return min(blocks)


def _flat(vitals: Vitals) -> list[Symptom]:
    losses = vitals.losses
    enough = max(FLAT_STEPS, round(FLAT_SHARE * vitals.total))
    if len(losses) < enough or vitals.first > 1 or min(losses[:5]) <= 0:
        return []
    half = enough // 2
    start = min(losses[:5])
    before, now = (statistics.median(part) for part in (losses[-2 * half : -half], losses[-half:]))
    if not math.isfinite(now) or now < FLAT_LEVEL * start or now < (1 - FLAT_FALL) * before:
        return []
    return [
        Symptom(
            kind="flat",
            step=vitals.step,
            since=0,
            summary=f"the loss has not fallen in the last {2 * half:,} steps",
            evidence=(
                Evidence(
                    quantity=f"loss in the last {half:,} steps",
                    measured=now,
                    expected=f"below that of the {half:,} before, {before:.4g}, or far below that "
                    f"at the start, {start:.4g}",
                ),
            ),
        )
    ]


def _gradients(vitals: Vitals) -> list[Symptom]:
    norms = vitals.norms
    if len(norms) < FIRST + LATELY or vitals.first > 1:
        return []
    start, lately = statistics.median(norms[:FIRST]), statistics.median(norms[-LATELY:])
    start_loss = statistics.median(vitals.losses[:5])
    learned = statistics.median(vitals.losses[-LATELY:]) < 0.5 * start_loss
    if lately < VANISHED and not learned:
        kind: Kind = "gradient_vanished"
        summary, expected = "hardly any gradient is left", f"above {VANISHED:g}"
    elif start > 0 and lately > EXPLODED * start:
        kind = "gradient_exploded"
        summary, expected = "the gradient has exploded", f"near that at the start, {start:.3g}"
    else:
        return []
    entry = Evidence(
        quantity=f"gradient norm in the last {LATELY} steps", measured=lately, expected=expected
    )
    return [Symptom(kind=kind, step=vitals.step, since=0, summary=summary, evidence=(entry,))]


def _dead(vitals: Vitals) -> list[Symptom]:
    """Layers whose units are 0 for every example, in the last two samples of the watch."""
    last = [row for row in vitals.watched if row["step"] >= FIRST][-2:]
    if len(last) < 2:
        return []
    dead = [
        {
            layer
            for layer, share in zip(row["layers"], row["values"]["dead"], strict=True)
            if isinstance(share, float | int) and share >= DEAD
        }
        for row in last
    ]
    layers = [layer for layer in last[1]["layers"] if layer in dead[0] & dead[1]]
    if not layers:
        return []
    return [
        Symptom(
            kind="dead_layers",
            step=last[1]["step"],
            since=0,
            summary=f"{', '.join(layers[:3])}: nearly all units are 0 for every example",
            evidence=(
                Evidence(
                    quantity=f"layers with {DEAD:.0%} of their units dead",
                    measured=float(len(layers)),
                    expected="none",
                ),
            ),
        )
    ]


def _overfitting(vitals: Vitals) -> list[Symptom]:
    """The validation gets worse while the training improves."""
    having = [(s, v) for s, v in vitals.validations if vitals.metric in v and "loss" in v]
    if len(having) < WORSE_TIMES + 2:
        return []
    best, step = max((v[vitals.metric], s) for s, v in having)
    loss = min(v["loss"] for _, v in having)
    lately = [v for s, v in having if s > step][-WORSE_TIMES:]
    worse = [v for v in lately if v[vitals.metric] < best - WORSE and v["loss"] > WORSE_LOSS * loss]
    place = step - vitals.first + 1
    then = statistics.median(vitals.losses[max(0, place - LATELY) : place] or [math.nan])
    now = statistics.median(vitals.losses[-LATELY:])
    if len(worse) < WORSE_TIMES or not now < 0.9 * then:
        return []
    figure = lately[-1]
    return [
        Symptom(
            kind="overfitting",
            step=vitals.step,
            since=step,
            summary="the validation gets worse while the training gets better: it learns by heart",
            evidence=(
                Evidence(
                    quantity=f"validation {vitals.metric}",
                    measured=figure[vitals.metric],
                    expected=f"near its best, {best:.4g} at step {step:,}",
                ),
                Evidence(
                    quantity="validation loss",
                    measured=figure["loss"],
                    expected=f"near its lowest, {loss:.4g}",
                ),
            ),
        )
    ]
