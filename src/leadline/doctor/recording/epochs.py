"""Epochs: which model calls were trained on, and after how many of them the examples come again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leadline.doctor.recording.events import Event

if TYPE_CHECKING:
    from leadline.doctor.recording.tape import Tape

AGAIN = 0.5
"""Share of a batch's examples that have been seen before, from which on it is a new epoch."""


def trained_forwards(tape: Tape, model: int | None = None) -> list[Event]:
    """The model calls whose outputs a backward pass came from, in order."""
    used = {number for event in tape.of("backward") for number in event["forwards"]}
    return [tape.events[n] for n in sorted(used) if model in (None, tape.events[n].subject)]


def epoch_length(tape: Tape, model: int) -> int:
    """The number of trained batches after which the same examples come again.

    Where the batches come from a DataLoader that ended, its epoch; otherwise the examples tell,
    equal ones being found by their numbers. All of them, where nothing comes twice.
    """
    forwards = trained_forwards(tape, model)
    if not forwards:
        return 0
    ends = [e for e in tape.of("epoch_ended") if e.subject == forwards[0]["loader"]]
    if ends:
        return max(1, sum(event.index < ends[0].index for event in forwards))
    seen: set[int] = set()
    for number, event in enumerate(forwards):
        rows = event["rows"]
        values = rows.tolist() if rows is not None else []
        if number and values and sum(v in seen for v in values) > AGAIN * len(values):
            return number
        seen.update(values)
    return len(forwards)
