"""Models of a recorded loop: weights that are equal at the start, and not the same."""

from __future__ import annotations

from collections.abc import Iterator

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.tape import Tape


def signs(tape: Tape) -> Iterator[Finding]:
    """What the first sight of the models says."""
    for card in tape.models:
        if not card.tied_copies:
            continue
        table, layer = card.tied_copies[0]
        yield Finding(
            cause="weight_tying_broken",
            severity="warning",
            summary=f"{table!r} and {layer!r} begin with equal weights, but are two tensors: they "
            "will go different ways",
            layers=(table, layer),
            evidence=(
                Evidence(
                    quantity="tensors that hold these weights", measured=2.0, expected="1, shared"
                ),
            ),
            remedy=f"assign the parameter itself, without a copy: {layer}.weight = {table}.weight, "
            "and again behind what replaces it",
        )
