"""Numbers written for people: percentages, counts, durations, and just enough digits.

A figure in a report is read once, quickly. So thousands are grouped, a share is a percentage that
never claims 100 % or 0 % when it is not, and a duration has at most two units.
"""

from __future__ import annotations

import math
from fractions import Fraction

NORMAL_95 = 1.959964
"""The 97.5 % quantile of the standard normal distribution: two-sided 95 %."""


def percent(share: float, *, digits: int = 1) -> str:
    """A share of 1 as a percentage; digits are added before a near miss reads as 100 % or 0 %.

    >>> percent(0.9917), percent(1.0), percent(0.99996), percent(0.00004)
    ('99.2 %', '100.0 %', '99.996 %', '0.004 %')
    """
    if not math.isfinite(share):
        return "not known"
    while digits < 6 and not _inside(share, f"{100 * share:.{digits}f}"):
        digits += 1
    return f"{100 * share:.{digits}f} %"


def _inside(share: float, text: str) -> bool:
    return 0 < float(text) < 100 or share in (0.0, 1.0)


def count(number: int) -> str:
    """A whole number with its thousands grouped.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """A counted noun.

    >>> plural(1, "class"), plural(2, "class"), plural(3000, "image")
    ('1 class', '2 classes', '3,000 images')
    """
    ending = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def number(value: float, *, digits: int = 3) -> str:
    """A number with `digits` significant digits, in plain notation where that stays short.

    >>> number(0.012345), number(1234.5), number(0.00000123), number(0.1), number(float("nan"))
    ('0.0123', '1,234', '1.23 × 10⁻⁶', '0.1', 'not a number')
    """
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if value == 0:
        return "0"
    if abs(value) >= 1e9 or abs(value) < 1e-4:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa} × {power_of_ten(int(power))}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def power_of_ten(power: int) -> str:
    """A power of ten as it is written by hand.

    >>> power_of_ten(-12)
    '10⁻¹²'
    """
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def duration(seconds: float) -> str:
    """A duration in at most two units.

    >>> duration(0.8234), duration(12.34), duration(75), duration(3725), duration(200000)
    ('0.82 s', '12.3 s', '1 min 15 s', '1 h 2 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller, smaller_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{whole} s"


def clock(seconds: float) -> str:
    """A remaining time as a clock shows it.

    >>> clock(12.4), clock(75), clock(3725)
    ('0:12', '1:15', '1:02:05')
    """
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def size(number_of_bytes: int) -> str:
    """A number of bytes in decimal units, as disks are labelled.

    >>> size(999), size(12_345), size(3_400_000), size(16_000_000_000)
    ('999 B', '12.3 kB', '3.4 MB', '16 GB')
    """
    value = Fraction(number_of_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{number(float(value))} {unit}"
        value /= 1000
    return f"{number(float(value))} TB"


def interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share that was measured as `right` of `total` (Wilson, 1927).

    Unlike the share plus or minus two standard errors, it stays inside 0 and 1 and is not empty
    when everything was right.

    >>> low, high = interval(9, 10)
    >>> f"{low:.4f} {high:.4f}"
    '0.5958 0.9821'
    """
    if total == 0:
        return (0.0, 1.0)
    share, z = right / total, NORMAL_95
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    half /= 1 + z * z / total
    return (max(0.0, middle - half), min(1.0, middle + half))
