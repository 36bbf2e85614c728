"""The mean and spread of each channel, exactly, from the training examples alone.

Pixels of 8 bits are summed as whole numbers, so the result is exact and the same whatever the
order or the number of threads: with n values, sum s and sum of squares q,

    mean = s / (255 n)        std = sqrt(n q - s^2) / (255 n).

Float pixels are summed in double precision, in two passes. Files too many to decode twice are
sampled: evenly spaced ones, the same each time.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from leadline.data.examples import ArrayExamples, Examples

CHUNK = 4096  # pictures at a time, to bound the memory of the widened copies
SAMPLE = 4096  # files that are decoded to measure a set that stays on the disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """Mean and standard deviation per channel, and which channels never change."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    constant: tuple[int, ...]
    measured: int  # how many pictures were looked at


def channel_statistics(examples: Examples) -> ChannelStatistics:
    """Measure the channels of `examples`; a constant channel gets a std of 1.

    >>> pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    >>> found = channel_statistics(ArrayExamples(pixels, torch.tensor([0, 1])))
    >>> found.mean, found.std
    ((0.5,), (0.5,))
    """
    count = len(examples)
    if isinstance(examples, ArrayExamples):
        if examples.images.is_floating_point():
            return _of_floats(examples.images)
        return _of_bytes(examples, torch.arange(count))
    step = max(1, -(-count // SAMPLE))
    return _of_bytes(examples, torch.arange(0, count, step))


def _of_bytes(examples: Examples, indices: Tensor) -> ChannelStatistics:
    channels, height, width = examples.shape
    total = torch.zeros(channels, dtype=torch.int64)
    squares = torch.zeros(channels, dtype=torch.int64)
    for part in indices.split(min(CHUNK, 512 if height * width > 4096 else CHUNK)):
        pixels = examples.take(part).to(torch.int32)
        total += pixels.sum(dim=(0, 2, 3), dtype=torch.int64).cpu()
        squares += pixels.square_().sum(dim=(0, 2, 3), dtype=torch.int64).cpu()
    n = len(indices) * height * width
    spreads = [n * q - s * s for s, q in zip(total.tolist(), squares.tolist(), strict=True)]
    return ChannelStatistics(
        mean=tuple(s / (255 * n) for s in total.tolist()),
        std=tuple(math.sqrt(spread) / (255 * n) if spread else 1.0 for spread in spreads),
        constant=tuple(channel for channel, spread in enumerate(spreads) if not spread),
        measured=len(indices),
    )


def _of_floats(images: Tensor) -> ChannelStatistics:
    means, stds, constant = [], [], []
    for channel in range(images.shape[1]):
        values = images[:, channel].to(torch.float64)
        lowest, highest = torch.aminmax(values)
        if bool(lowest == highest):
            constant.append(channel)
        means.append(float(values.mean()))
        stds.append(1.0 if bool(lowest == highest) else float(values.std(correction=0)))
    return ChannelStatistics(
        mean=tuple(means), std=tuple(stds), constant=tuple(constant), measured=len(images)
    )
