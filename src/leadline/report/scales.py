"""Scales: from values to places in a figure, and the round numbers that label the axis.

Ticks are multiples of 1, 2 or 5 times a power of ten, because people read those without thinking
(Heckbert, Nice Numbers for Graph Labels, 1990); on a logarithmic axis they are powers of ten, and
their doubles and fivefolds where the axis spans little.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from leadline.core.config import check
from leadline.report.numbers import power_of_ten


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps `low` to `start` and `high` to `end`, linearly or by the logarithm.

    >>> Scale(low=0, high=10, start=100, end=0).place(2.5)
    75.0
    >>> Scale(low=0.01, high=1, start=0, end=100, log=True).place(0.1)
    50.0
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __post_init__(self) -> None:
        check(
            self,
            None if self.low < self.high else f"low {self.low} must be < high {self.high}",
            f"low must be > 0 on a log axis, received {self.low}"
            if self.log and self.low <= 0
            else None,
        )

    def place(self, value: float) -> float:
        """Where a value lies, in the figure's units."""
        if self.log:
            value = max(value, self.low * 1e-6)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 9)

    def ticks(self) -> tuple[float, ...]:
        """Four to eight round values on this axis."""
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Round values between `low` and `high`, four to eight of them.

    >>> ticks(0, 10), ticks(0.91, 0.995)
    ((0.0, 2.0, 4.0, 6.0, 8.0, 10.0), (0.92, 0.94, 0.96, 0.98))
    """
    step = tick_step(low, high)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step))) + 1
    return tuple(round(index * step, digits) + 0.0 for index in range(first, last + 1))


def tick_step(low: float, high: float) -> float:
    """The distance between two ticks: 1, 2 or 5 times a power of ten.

    >>> tick_step(0, 7), tick_step(0, 0.03)
    (1.0, 0.005)
    """
    rough = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten between `low` and `high`; with 2 and 5 in between where they are few.

    An axis that spans less than that has the ticks of a linear one.

    >>> log_ticks(0.01, 10), log_ticks(0.5, 6)
    ((0.01, 0.1, 1.0, 10.0), (0.5, 1.0, 2.0, 5.0))
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if math.log10(high / low) >= 3 - 1e-9 else (1, 2, 5)
    stride = max(1, -(-(last - first) // 8))
    values = (
        float(f"{factor}e{power}") for power in range(first, last + 1, stride) for factor in factors
    )
    inside = tuple(v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9))
    return inside if len(inside) > 2 else ticks(low, high)


def tick_text(value: float, *, percent: bool = False) -> str:
    """What stands at a tick.

    >>> tick_text(0.0), tick_text(0.96, percent=True), tick_text(25000.0), tick_text(0.00001)
    ('0', '96 %', '25k', '10⁻⁵')
    """
    if percent:
        return f"{round(100 * value, 6):g} %"
    if value != 0 and abs(value) < 1e-3:
        mantissa, _, power = f"{value:e}".partition("e")
        factor = "" if float(mantissa) == 1 else f"{float(mantissa):g}·"
        return factor + power_of_ten(int(power))
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:g}"


def extent(values: Iterable[float], *, log: bool = False) -> tuple[float, float]:
    """The range an axis needs for these values: a little air, and zero when it is near.

    Values that are not finite (on a log axis: not positive) are left out.

    >>> extent([2, 4]), extent([0.1, 4])
    ((1.9, 4.1), (0.0, 4.195))
    """
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if not finite:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(finite), max(finite)
    if log:
        return (low / 1.15, high * 1.15)
    if low == high:
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if low else (0.0, 1.0)
        return (low, high)
    air = 0.05 * (high - low)
    near_zero = 0 <= low < 0.3 * high
    return (0.0 if near_zero else round(low - air, 12), round(high + air, 12))
