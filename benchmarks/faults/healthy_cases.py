"""The healthy controls as cases: every recipe as a Setup, some in each of the plain loops."""

from __future__ import annotations

from functools import partial

from case import Case
from healthy import named, programs
from healthy_lookalikes import lookalikes
from loops import LOOPS
from program import healthy_case


def cases() -> tuple[Case, ...]:
    """All controls, Setups first."""
    recipes = (*programs(), *lookalikes())
    setups = [healthy_case(program, program.setup, form="") for program in recipes]
    loops = [
        healthy_case(
            named(name), partial(loop, named(name)), form="-" + loop.__name__.replace("_", "-")
        )
        for loop, names in LOOPS
        for name in names
    ]
    return (*setups, *loops)
