"""Cadence: which steps to sample, so that looking costs a small, measured share of the time.

    gap = 1.5 · seconds per sample / (budget · seconds per step)

Both are measured while the training runs: a sample of a tiny network may take as long as three of
its steps, one of a large network a tenth of a step. The first samples are at the steps 1, 2, 4 and
8, whatever they cost, since most goes wrong at the beginning; after them the gap keeps to the
budget. With time the gap also grows to 1/256 of the steps done, so that a long training leaves a
few thousand samples rather than millions.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable

from leadline.core.config import config_error, in_range

BUDGET = 0.01
"""Share of the time that samples may take."""

UNSEEN = 1.5
"""A sample's cost to what is measured inside it: hooks have to be called, and the steps after it
find caches cold. On a network of three layers it was 1.4 to 2, on larger ones less."""

FIRST = (1, 2, 4, 8)
"""Steps that are sampled whatever it costs."""

PER_HISTORY = 256
"""A gap is at least this part of the steps so far."""

MEMORY = 5
"""Measurements of either kind that are remembered; one alone may have met a busy machine."""


class Cadence:
    """Says which step is sampled next; `every` in so many, or as `budget` allows.

    `next` is a step counted from 1. `begin` is to be called when a sample is about to begin, after
    the step before it; `end` when it has ended, with the seconds it took.

    >>> cadence = Cadence(every=100)
    >>> steps = []
    >>> for _ in range(3):
    ...     steps.append(cadence.next)
    ...     cadence.begin()
    ...     cadence.end(seconds=0.0)
    >>> steps
    [1, 100, 200]
    """

    def __init__(
        self,
        *,
        every: int | None = None,
        budget: float = BUDGET,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        problems = (
            in_range("every", every, 1),
            in_range("budget", budget, 0, 1, open_low=True),
        )
        if found := [problem for problem in problems if problem]:
            raise config_error("watch", found)
        self.next = 1
        self._every = every
        self._budget = budget
        self._clock = clock
        self._ended: tuple[int, float] | None = None  # the latest sample's step, and when it ended
        self._samples: deque[float] = deque(maxlen=MEMORY)  # seconds
        self._steps: deque[float] = deque(maxlen=MEMORY)  # seconds per step without a sample

    def begin(self) -> None:
        """Measure the steps between the sample before and the one about to begin."""
        if self._ended is not None:
            step, when = self._ended
            count = self.next - 1 - step
            if count > 0:
                self._steps.append((self._clock() - when) / count)

    def end(self, *, seconds: float) -> None:
        """Choose the step to sample after this one, in which `seconds` went into looking."""
        step = self.next
        self._samples.append(seconds)
        self._ended = step, self._clock()
        if self._every is not None:
            self.next = (step // self._every + 1) * self._every
        elif step < FIRST[-1]:
            self.next = next(first for first in FIRST if first > step)
        else:
            self.next = step + max(1, self._gap(), step // PER_HISTORY)

    def _gap(self) -> int:
        """Steps over which one sample has to be spread.

        The fastest of the recent stretches counts: in the others may lie an evaluation, or a night
        in which a notebook waited.
        """
        plain = min(self._steps, default=0.0)
        if plain <= 0:
            return PER_HISTORY
        return math.ceil(UNSEEN * statistics.mean(self._samples) / (self._budget * plain))
