"""Everything that a tape shows, family by family, the worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from leadline.doctor.causes.recorded import (
    architecture,
    clipping,
    data,
    evaluation,
    loss,
    modes,
    numerics,
    optimizers,
    schedules,
    states,
    training_loop,
)
from leadline.doctor.finding import Finding, by_severity
from leadline.doctor.recording.tape import Tape

Signs = Callable[[Tape], Iterator[Finding]]

FAMILIES: tuple[Signs, ...] = (
    training_loop.signs,
    optimizers.signs,
    data.signs,
    numerics.signs,
    loss.signs,
    modes.signs,
    schedules.signs,
    clipping.signs,
    states.signs,
    architecture.signs,
    evaluation.signs,
)
"""Who reads the tape; of findings of one severity, the earlier family's come first."""


def signs_of_tape(tape: Tape) -> list[Finding]:
    """What a tape shows by itself, without a trial; each cause once, the worst first.

    The tape must have ended. A loop that stopped with an error is read as far as it came.
    """
    found: dict[str, Finding] = {}
    for signs in FAMILIES:
        for finding in signs(tape):
            found.setdefault(finding.cause, finding)
    return list(by_severity(list(found.values())))
