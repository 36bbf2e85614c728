"""Loss curves in one line of text: bars of eight heights, both arms of a trial on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEIGHTS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "×"
STEEP = 30.0
"""Losses that differ by more than this factor are drawn by their logarithm."""

TALLEST = 4.0
"""Times the loss at the start that the highest bar stands for: what explodes is cut off there."""


@dataclass(frozen=True, kw_only=True)
class Heights:
    """What the lowest and the highest bar stand for."""

    low: float
    high: float
    log: bool = False
    cut: bool = False

    @classmethod
    def over(cls, *curves: Sequence[float]) -> Heights:
        """One scale for several curves; what is not finite is left out.

        >>> Heights.over([2.0, 1.0], [2.0, 500.0])
        Heights(low=1.0, high=8.0, log=False, cut=True)
        """
        finite = [value for curve in curves for value in curve if math.isfinite(value)]
        if not finite:
            return cls(low=0.0, high=1.0)
        low, high = min(finite), max(finite)
        start = max((c[0] for c in curves if c and math.isfinite(c[0])), default=0.0)
        top = TALLEST * start if start > max(low, 0.0) else high
        log = 0 < STEEP * low < min(high, top)
        return cls(low=low, high=min(high, top), log=log, cut=high > top)

    def bar(self, value: float) -> str:
        """The character for a value."""
        if not math.isfinite(value):
            return NOT_FINITE
        low, high = self.low, self.high
        value = min(value, high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return HEIGHTS[min(len(HEIGHTS) - 1, int(share * len(HEIGHTS)))]


def sparkline(curve: Sequence[float], *, heights: Heights, width: int) -> str:
    """The curve as at most `width` bars, each the mean of its part; × where it is not finite.

    >>> curve = [4.0, 3.0, 2.0, 1.0]
    >>> sparkline(curve, heights=Heights.over(curve), width=4)
    '█▆▃▁'
    >>> sparkline([1.0, math.inf], heights=Heights.over([0.0, 1.0]), width=2)
    '█×'
    """
    count = min(width, len(curve))
    parts = [
        curve[index * len(curve) // count : (index + 1) * len(curve) // count]
        for index in range(count)
    ]
    return "".join(heights.bar(sum(part) / len(part)) for part in parts)


def losses_of(arm: Mapping[str, Any]) -> list[float]:
    """The losses of an arm as plain values, in which what JSON lacks is text.

    >>> losses_of({"losses": [1.5, "inf", "nan"]})
    [1.5, inf, nan]
    """
    return [float(loss) for loss in arm["losses"]]
