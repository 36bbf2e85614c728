"""The real programs: every case that can be rebuilt from what is published, in one order."""

from __future__ import annotations

import real_articles
import real_base
import real_deep
import real_digits
import real_loop
import real_pictures
import real_points
import real_stackoverflow
import real_xor
from case import Case


def cases() -> tuple[Case, ...]:
    """All of them, at the scale that is set, ordered as the published list: by name."""
    makers = (
        *real_articles.CASES,
        *real_base.CASES,
        *real_deep.CASES,
        *real_digits.CASES,
        *real_loop.CASES,
        *real_pictures.CASES,
        *real_points.CASES,
        *real_stackoverflow.CASES,
        *real_xor.CASES,
    )
    return tuple(sorted((make() for make in makers), key=lambda case: case.name))
