"""Gradients in a recorded loop: added up over steps, dropped before them, or never coming."""

from __future__ import annotations

from collections.abc import Iterator

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.reruns import gradients_cleared
from leadline.doctor.recording.tape import Tape
from leadline.doctor.recording.turns import Turn, turns_of
from leadline.doctor.remedy import Remedy

OFTEN = 1 / 3
"""Share of steps above which a fault is the loop's way, and no accident of a few steps."""


def signs(tape: Tape) -> Iterator[Finding]:
    """What the tape says of the gradients of each optimizer."""
    for card in tape.optimizers:
        turns = turns_of(tape, card.number)
        yield from _added_up(turns)


def _added_up(turns: list[Turn]) -> Iterator[Finding]:
    """Told from accumulation, which adds up between steps: here what a step used stays in."""
    later = [turn for turn in turns[1:] if turn.backwards]
    stale = [turn for turn in later if turn.step["stale"]]
    if len(later) < 2 or len(stale) < OFTEN * len(later):
        return
    called = sum(bool(turn.zeroed) for turn in turns)
    yield Finding(
        cause="zero_grad_missing",
        severity="error",
        summary="the gradients are not cleared between two steps: each step goes along the sum of "
        "all gradients since the last clearing",
        evidence=(
            Evidence(
                quantity="steps whose gradients still held those of an earlier step",
                measured=float(len(stale)),
                expected=f"0 of {len(later)}",
            ),
            Evidence(
                quantity="steps with a zero_grad() since the step before",
                measured=float(called),
                expected=f"{len(turns)}",
            ),
        ),
        remedy="call optimizer.zero_grad() before each backward()",
        source="pytorch/pytorch#47175",
        proven=True,
        change=Remedy(
            title="clear the gradients before each backward pass",
            lines=("+ optimizer.zero_grad()", "  loss.backward()", "  optimizer.step()"),
            rerun=gradients_cleared,
        ),
    )
