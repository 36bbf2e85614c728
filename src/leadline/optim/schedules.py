"""Learning-rate schedules as one closed form each: a factor of the peak rate at every step.

With T steps in all, W = warmup T of them warming up, and p = (t - W) / (T - W) the share of the
rest that is done, the factor before step t (t = 0 … T - 1) is

    warm-up    (t + 1) / (W + 1)                          while t < W
    constant   1
    cosine     m + (1 - m) (1 + cos(pi p)) / 2            Loshchilov and Hutter, arXiv:1608.03983
    linear     m + (1 - m) (1 - p)
    step       gamma ^ (number of milestones passed)      He et al., arXiv:1512.03385
    one_cycle  cosine from 1/25 up to 1 while t < W, then the cosine above: Smith and Topin,
               arXiv:1708.07120, as in torch's OneCycleLR (the rate only, not the momentum)

where m = lr_min. At t = T and beyond the factor keeps its end value. The surprising choice: the
factor depends on t alone and never on the factor before, so a resumed run has exactly the rates of
one that was never interrupted, and the saved state is a handful of plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from leadline.core.config import check, in_range
from leadline.core.names import did_you_mean

ScheduleName = Literal["constant", "cosine", "linear", "step", "one_cycle"]

ONE_CYCLE_START = 1 / 25
"""Where one_cycle begins, as a fraction of the peak: torch's default `div_factor` of 25."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """How the learning rate changes over a training; every length is a fraction of all steps.

    >>> ScheduleOptions(schedule="linear", warmup=0.2).lr_min
    0.0
    """

    schedule: ScheduleName = "cosine"
    """which shape"""
    warmup: float = 0.05
    """length of the rising part; for one_cycle 0.3 is the classic choice"""
    lr_min: float = 0.0
    """where cosine, linear and one_cycle end, as a fraction of the peak"""
    step_milestones: tuple[float, ...] = (0.5, 0.75)
    """where the step schedule lowers the rate"""
    step_gamma: float = 0.1
    """by which factor it does so"""

    def __post_init__(self) -> None:
        names = get_args(ScheduleName)
        unknown = None
        if self.schedule not in names:
            hint = did_you_mean(self.schedule, names)
            unknown = f"schedule must be one of {', '.join(names)}, received {self.schedule!r}"
            unknown += hint
        check(
            self,
            unknown,
            in_range("warmup", self.warmup, 0, 1, open_high=True),
            in_range("lr_min", self.lr_min, 0, 1),
            *(
                in_range(f"step_milestones[{i}]", milestone, 0, 1)
                for i, milestone in enumerate(self.step_milestones)
            ),
            in_range("step_gamma", self.step_gamma, 0, 1, open_low=True),
        )


def schedule_factor(options: ScheduleOptions, step: int, *, total_steps: int) -> float:
    """The factor of the peak learning rate used by step number `step`, counted from 0.

    >>> halfway = schedule_factor(ScheduleOptions(warmup=0.0), 50, total_steps=100)
    >>> round(halfway, 12)
    0.5
    """
    step = min(step, total_steps)
    warming = min(round(options.warmup * total_steps), total_steps - 1)
    if step < warming:
        if options.schedule == "one_cycle":
            return _cosine(ONE_CYCLE_START, 1.0, done=step / warming)
        return (step + 1) / (warming + 1)
    done = (step - warming) / (total_steps - warming)
    if options.schedule == "constant":
        return 1.0
    if options.schedule == "linear":
        return options.lr_min + (1 - options.lr_min) * (1 - done)
    if options.schedule == "step":
        passed = sum(step >= round(at * total_steps) for at in options.step_milestones)
        return float(options.step_gamma**passed)
    return _cosine(1.0, options.lr_min, done=done)


def make_schedule(
    optimizer: Optimizer, options: ScheduleOptions, *, total_steps: int
) -> LRScheduler:
    """The schedule for `optimizer`: call its `step` once after each optimizer step.

    It multiplies the rate of every parameter group, as that stands now, by the same factor, and
    sets that of the first step at once. Its `state_dict` is plain numbers. To resume: make
    optimizer and schedule anew, load both states. `total_steps` below 1 is a ConfigError.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    >>> schedule = make_schedule(
    ...     optimizer, ScheduleOptions(schedule="linear", warmup=0.0), total_steps=4
    ... )
    >>> for _ in range(5):
    ...     print(round(schedule.get_last_lr()[0], 12))
    ...     optimizer.step()
    ...     schedule.step()
    0.4
    0.3
    0.2
    0.1
    0.0
    """
    check(options, in_range("total_steps", total_steps, 1))
    return LambdaLR(optimizer, _factor_function(options, total_steps=total_steps))


def _factor_function(options: ScheduleOptions, *, total_steps: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        return schedule_factor(options, step, total_steps=total_steps)

    return factor


def _cosine(start: float, end: float, *, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
