"""A seeded fault: what it changes in a healthy recipe, what the fixed twin is, and where it is put.

A change takes a `Program` and gives one. Both twins start from `base(program)` and are judged by
its score; the buggy one is `broken` of it, the fixed one `fixed` of it. The same change can be run
as a Setup or in a plain loop. What only a loop can do wrong is a `loop`, whose third argument says
whether the fault is in it: the twins then differ by that alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from case import Case, Subject
from healthy import named
from loops import Train, evaluating, plain
from program import Program

Change = Callable[[Program], Program]
Loop = Callable[[Program, int, bool], Train]


def same(program: Program) -> Program:
    """No change."""
    return program


@dataclass(frozen=True, kw_only=True, eq=False)
class Fault:
    """One fault on several recipes.

    `also` are causes that are as right as `cause`, where the fault can be told either way.
    `variant` tells faults of the same cause on the same recipe apart.
    """

    cause: str
    broken: Change = same
    fixed: Change = same
    base: Change = same
    loop: Loop | None = None
    setups: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    variant: str = ""
    notes: str = ""

    def cases(self) -> tuple[Case, ...]:
        """A case per recipe and form."""
        setups = [self._case(name, in_loop=False) for name in self.setups]
        return (*setups, *(self._case(name, in_loop=True) for name in self.loops))

    def _case(self, recipe: str, *, in_loop: bool) -> Case:
        base = self.base(named(recipe))
        form = "-loop" if in_loop and self.loop is None else ""

        def buggy(seed: int) -> Subject:
            return self._subject(self.broken(base), seed, broken=True, in_loop=in_loop)

        def fixed(seed: int) -> Subject:
            return self._subject(self.fixed(base), seed, broken=False, in_loop=in_loop)

        return Case(
            name=f"{self.cause}/{recipe}{self.variant and '-' + self.variant}{form}",
            origin="seeded",
            faults=(self.cause, *self.also),
            buggy=buggy,
            fixed=fixed,
            score=base.judge,
            higher_is_better=base.higher_is_better,
            metric=base.metric,
            notes=self.notes,
            execution=base.execution,
        )

    def _subject(self, program: Program, seed: int, *, broken: bool, in_loop: bool) -> Subject:
        if self.loop is not None:
            return self.loop(program, seed, broken)
        if not in_loop:
            return program.setup(seed)
        # A loop that evaluates, where there is something to evaluate on.
        return (evaluating if program.validated else plain)(program, seed)
