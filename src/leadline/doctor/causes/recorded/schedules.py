"""Schedules of a recorded loop: stepped too often, too rarely, at the wrong moment, or never."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from leadline.doctor.finding import Evidence, Finding, Severity
from leadline.doctor.recording.events import Event
from leadline.doctor.recording.objects import ScheduleCard
from leadline.doctor.recording.rerun_surroundings import (
    schedules_behind_updates,
    schedules_per_epoch,
)
from leadline.doctor.recording.tape import Tape
from leadline.doctor.remedy import Remedy

DEAD = 1e-3
"""Part of the highest learning rate below which a step changes next to nothing."""

FEW = 10
"""Steps below which nothing is said of a schedule."""


def signs(tape: Tape) -> Iterator[Finding]:
    """What the tape says of each schedule; the worst of what is wrong with one of them."""
    for card in tape.schedules:
        steps = tape.of("step", subject=card.optimizer)
        if len(steps) < FEW or card.inside:
            continue
        calls = tape.of("schedule", subject=card.number)
        found = (
            _never(tape, card, steps, calls)
            or _dead(tape, card, steps, calls)
            or _wrapped(tape, card, steps, calls)
            or _twice(card, steps, calls)
            or _unfinished(tape, card, steps, calls)
            or _before(tape, card, steps, calls)
        )
        if found is not None:
            yield found


def _finding(
    card: ScheduleCard,
    summary: str,
    evidence: Sequence[tuple[str, float, str]],
    *,
    severity: Severity,
    remedy: str,
    change: Remedy,
) -> Finding:
    return Finding(
        cause="scheduler_misused",
        severity=severity,
        summary=summary,
        evidence=tuple(Evidence(quantity=q, measured=m, expected=e) for q, m, e in evidence),
        remedy=remedy,
        source="ClementPinard/SfmLearner-Pytorch#5",
        proven=True,
        change=change,
    )


PER_EPOCH = Remedy(
    title="step the schedule once per epoch",
    lines=(
        "  for inputs, targets in loader:",
        "      ...",
        "-     scheduler.step()",
        "+ scheduler.step()",
    ),
    rerun=schedules_per_epoch,
)


def _never(
    tape: Tape, card: ScheduleCard, steps: list[Event], calls: list[Event]
) -> Finding | None:
    if calls or card.made is None or tape.error is not None:
        return None
    return _finding(
        card,
        f"{card.name} is made and never stepped: the learning rate stays at {steps[-1]['lr'][0]:g}",
        [("steps of the schedule", 0.0, "one per epoch, or one per update")],
        severity="warning",
        remedy="call scheduler.step() at the end of each epoch, or drop the schedule",
        change=Remedy(
            title="step the schedule",
            lines=("  for epoch in ...:", "      ...", "+     scheduler.step()"),
            rerun=schedules_per_epoch,
        ),
    )


def _dead(tape: Tape, card: ScheduleCard, steps: list[Event], calls: list[Event]) -> Finding | None:
    """Most steps at a rate of next to nothing: what is meant per epoch comes per batch."""
    rates = [max(event["lr"]) for event in steps]
    highest = max(rates)
    dead = sum(rate < DEAD * highest for rate in rates)
    if dead < 0.4 * len(rates) or not calls:
        return None
    per_epoch = _epochs(tape)
    often = len(calls) > 2 * per_epoch
    return _finding(
        card,
        f"the learning rate is next to 0 for {dead / len(rates):.0%} of the steps: "
        + (
            f"{card.name} is stepped {len(calls)} times in {per_epoch} epochs"
            if often
            else f"{card.name} lowers it too early"
        ),
        [
            ("steps at less than 1/1000 of the highest rate", float(dead), f"few of {len(rates)}"),
            ("calls of scheduler.step()", float(len(calls)), f"{per_epoch}, one per epoch"),
        ],
        severity="error",
        remedy="call scheduler.step() once per epoch, outside of the loop over batches"
        if often
        else "make the schedule as long as the training",
        change=PER_EPOCH,
    )


def _wrapped(
    tape: Tape, card: ScheduleCard, steps: list[Event], calls: list[Event]
) -> Finding | None:
    """A cosine of T_max steps goes up again behind them."""
    longest = card.settings.get("T_max") if card.name == "CosineAnnealingLR" else None
    if not isinstance(longest, int | float) or len(calls) < 2 * longest or longest < 1:
        return None
    return _finding(
        card,
        f"the cosine goes down and up {len(calls) / (2 * longest):.0f} times: T_max={longest:g} is "
        f"meant for {longest:g} calls, and there are {len(calls)}",
        [
            ("calls of scheduler.step()", float(len(calls)), f"T_max = {longest:g}"),
            ("epochs", float(_epochs(tape)), "T_max, if it is stepped per epoch"),
        ],
        severity="warning",
        remedy="step it once per epoch, or give T_max in batches",
        change=PER_EPOCH,
    )


def _twice(card: ScheduleCard, steps: list[Event], calls: list[Event]) -> Finding | None:
    doubled = len(calls) - len({event.updates for event in calls})
    if len(calls) < FEW or doubled < 0.4 * len(calls):
        return None
    return _finding(
        card,
        f"{card.name} is stepped more than once between two updates: its length is used up too "
        "early",
        [("calls without an update since the last", float(doubled), "0")],
        severity="warning",
        remedy="call scheduler.step() once per update, or once per epoch",
        change=Remedy(
            title="step the schedule once",
            lines=("  scheduler.step()", "- scheduler.step()"),
            rerun=schedules_behind_updates,
        ),
    )


def _unfinished(
    tape: Tape, card: ScheduleCard, steps: list[Event], calls: list[Event]
) -> Finding | None:
    """One cycle that is meant per batch and stepped per epoch never leaves its warm-up."""
    total = card.settings.get("total_steps")
    if not isinstance(total, int) or tape.error is not None or len(calls) >= 0.3 * total:
        return None
    if not 0.5 * total <= len(steps) or len(calls) > 2 * _epochs(tape) + 1:
        return None
    return _finding(
        card,
        f"{card.name} is made for {total} steps and stepped {len(calls)} times: the learning rate "
        "stays near its start",
        [
            ("calls of scheduler.step()", float(len(calls)), f"{total}, its total_steps"),
            ("updates", float(len(steps)), "any number"),
        ],
        severity="warning",
        remedy="call scheduler.step() behind each optimizer.step()",
        change=Remedy(
            title="step the schedule with each update",
            lines=("  optimizer.step()", "+ scheduler.step()"),
        ),
    )


def _before(
    tape: Tape, card: ScheduleCard, steps: list[Event], calls: list[Event]
) -> Finding | None:
    scaled = any(event["scale"] is not None for event in tape.of("scale_update"))
    if not calls or calls[0].index > steps[0].index or scaled or card.made is None:
        return None
    return _finding(
        card,
        f"{card.name} is stepped before the optimizer: the first learning rate of the schedule is "
        "left out",
        [("updates before the schedule's first step", 0.0, "1 or more")],
        severity="warning",
        remedy="call scheduler.step() behind optimizer.step()",
        change=Remedy(
            title="step the schedule behind the optimizer",
            lines=("- scheduler.step()", "  optimizer.step()", "+ scheduler.step()"),
            rerun=schedules_behind_updates,
        ),
    )


def _epochs(tape: Tape) -> int:
    """How often a loader was begun that a model was trained from."""
    used = {n for event in tape.of("backward") for n in event["forwards"]}
    loaders: set[Any] = {tape.events[n]["loader"] for n in used}
    begun = [event for event in tape.of("epoch_begun") if event.subject in loaders]
    return max(1, len(begun))
