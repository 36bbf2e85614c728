"""History: what a watch saw, thinned to a bounded number of steps however long the training is.

When MOST samples are kept, every second one goes, and from then on only every second new one stays;
so the kept ones are spread evenly over the samples taken, and the newest is always among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from torch import Tensor

from leadline.core.names import look_up
from leadline.core.profile import Profile
from leadline.doctor.losses import LossCurve
from leadline.measure.watching.step_sample import COLUMNS, StepSample, fetch

MOST = 512
"""Samples that are kept, at most."""


@dataclass(frozen=True, kw_only=True)
class WatchHistory:
    """The sampled steps with a Profile each, and the losses of all steps."""

    steps: tuple[int, ...]
    profiles: tuple[Profile, ...]
    losses: LossCurve

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer of any of the steps, in depth order."""
        return tuple(dict.fromkeys(layer for profile in self.profiles for layer in profile.layers))

    def over_time(self, column: str) -> dict[str, tuple[float, ...]]:
        """For each layer the numbers of one column at the sampled steps; NaN where it has none."""
        look_up(column, dict.fromkeys(COLUMNS), kind="column")
        tables = [
            dict(zip(profile.layers, profile.column(column), strict=True))
            for profile in self.profiles
        ]
        return {
            layer: tuple(table.get(layer, math.nan) for table in tables) for layer in self.layers
        }


@dataclass(kw_only=True)
class KeptSample:
    """One sampled step; `number` counts the samples from 0."""

    number: int
    step: int
    sample: StepSample
    loss: Tensor | float | None
    fetched: bool = False


@dataclass(kw_only=True)
class KeptSamples:
    """The samples of a watch, thinned as they come, fetched when they are asked for."""

    kept: list[KeptSample] = field(default_factory=list)
    stride: int = 1
    count: int = 0

    def add(self, step: int, sample: StepSample, loss: Tensor | float | None) -> None:
        """Keep a new sample, and of the older ones what is due."""
        if self.kept and self.kept[-1].number % self.stride:
            self.kept.pop()  # it was there as the newest only
        if self.kept and self.kept[-1].sample.layout == sample.layout:
            sample = replace(sample, layout=self.kept[-1].sample.layout)  # one for all
        self.kept.append(KeptSample(number=self.count, step=step, sample=sample, loss=loss))
        self.count += 1
        if len(self.kept) > MOST:
            self.stride *= 2
            newest = self.kept[-1]
            self.kept = [k for k in self.kept if k.number % self.stride == 0 or k is newest]

    def fetch(self, *, after: int = -1) -> list[KeptSample]:
        """The samples of steps after one, their numbers in the computer's memory."""
        missing = [kept for kept in self.kept if not kept.fetched]
        for kept, sample in zip(missing, fetch([k.sample for k in missing]), strict=True):
            kept.sample, kept.fetched = sample, True
        return [kept for kept in self.kept if kept.step > after]
