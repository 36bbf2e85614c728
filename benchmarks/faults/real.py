"""The real programs: every case that can be rebuilt from what is published, in one order."""

from __future__ import annotations

import real_digits
import real_points
import real_stackoverflow
from case import Case


def cases() -> tuple[Case, ...]:
    """All of them, at the scale that is set, by name as in the published list."""
    makers = (
        *real_points.CASES,
        *real_stackoverflow.CASES,
        *real_digits.CASES,
    )
    return tuple(sorted((make() for make in makers), key=lambda case: case.name.lower()))
