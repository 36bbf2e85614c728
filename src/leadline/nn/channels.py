"""Numbers of channels that machines like: multiples of eight, never much below what was asked."""

from __future__ import annotations

LEAST_SHARE = 0.9
"""Rounding may not take more than a tenth of the channels away (Sandler et al. 2018's code)."""


def round_channels(channels: float, *, divisor: int = 8, least_share: float = LEAST_SHARE) -> int:
    """The multiple of `divisor` nearest to `channels`, at least one, and at least that share of it.

    >>> round_channels(32 * 1.1), round_channels(11), round_channels(3)
    (32, 16, 8)
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least_share * channels else rounded
