"""Trial: the same training twice, with and without a remedy: what turns a suspicion into a proof.

Both arms begin with the same seed and see the same batches; afterwards the same questions are put
to both models. They are judged by a yardstick that does not depend on the loss they were trained
with (`doctor/problem.py`), since the remedy may be another loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_POINTS = 200
"""Points of a curve that are handed on: more than that no picture shows."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the two trainings: `losses` per step, and how the model then answers.

    `error` is 0 for perfect answers and 1 for those of a model that knows nothing; `surprise` the
    same in terms of log likelihood or spread, finer where few answers change. `ended` says why a
    training stopped before its end, a loss that is not finite for example. `seconds` is what the
    training took, 0 where it was not timed.
    """

    losses: tuple[float, ...]
    error: float
    surprise: float
    ended: str = ""
    seconds: float = 0.0

    def to_plain(self) -> dict[str, Any]:
        """The arm as plain values for JSON; the curve thinned to 200 points."""
        every = max(1, math.ceil(len(self.losses) / MOST_POINTS))
        return {
            "losses": [_plain(loss) for loss in self.losses[::every]],
            "every": every,
            "error": _plain(self.error),
            "surprise": _plain(self.surprise),
            "ended": self.ended,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Two arms, told apart by a remedy only.

    `measured` says in words what `error` is. `helps` is the verdict.
    """

    remedy: str
    steps: int
    without: Arm
    treated: Arm
    measured: str
    helps: bool

    @property
    def gain(self) -> float:
        """How much of the error without the remedy is gone with it; 1 is all of it.

        >>> bad, good = (Arm(losses=(), error=error, surprise=error) for error in (0.5, 0.125))
        >>> Trial(remedy="", steps=1, without=bad, treated=good, measured="", helps=True).gain
        0.75
        """
        before, after = self.without.error, self.treated.error
        if not math.isfinite(after):
            return 0.0
        if not math.isfinite(before):
            return 1.0
        return (before - after) / before if before > 0 else 0.0

    @property
    def harms(self) -> bool:
        """Whether the training ends clearly worse with the remedy than without."""
        before, after = self.without.error, self.treated.error
        if self.without.ended or not math.isfinite(before):
            return False
        broken = bool(self.treated.ended) or not math.isfinite(after)
        return broken or after > 1.25 * before + 0.02

    def to_plain(self) -> dict[str, Any]:
        """The trial as plain values for JSON."""
        return {
            "remedy": self.remedy,
            "steps": self.steps,
            "without": self.without.to_plain(),
            "treated": self.treated.to_plain(),
            "measured": self.measured,
            "helps": self.helps,
            "gain": round(self.gain, 4),
        }


def smoothed(losses: Sequence[float], *, last: int = 10) -> float:
    """The median of the last losses: one step says little; infinity where one is not finite.

    >>> smoothed([5.0, 1.0, 2.0, 30.0], last=3)
    2.0
    """
    tail = sorted(losses[-last:])
    if not tail or not all(map(math.isfinite, tail)):
        return math.inf
    return tail[len(tail) // 2]


def _plain(value: float) -> float | str:
    return round(value, 6) if math.isfinite(value) else str(value)
