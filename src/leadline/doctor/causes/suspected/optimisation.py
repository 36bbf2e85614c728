"""Suspicions about the optimisation: rates, the optimizer and its options, batch size, length.

A rate is too low when the whole training at it goes no further than a short one at a higher rate.
The whole is not run: under gradient flow n steps at f times the rate are f n steps at the rate, so
an arm at f times the rate shows after T/f of its steps where the training would end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from torch.optim import Optimizer

from leadline.doctor.arm import Outcome
from leadline.doctor.causes.suspected.training_loop import rates_over_training
from leadline.doctor.comparison import better
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedies import optimisation
from leadline.doctor.suspicion import suspect
from leadline.doctor.trial import smoothed

EPSILON = 1e-10
"""Adam's epsilon below which it no longer guards against gradients near 0; 1e-8 is usual."""

SPEED_UP = 0.7
"""What has to be left of the untreated training's final loss."""

BELIEVED = 0.25
"""Part of an arm within which the whole training would have to end: later, momentum blurs it."""

SOURCE_RATE = "Smith 2017, Cyclical Learning Rates: the learning-rate range test"


def options(patient: Patient) -> Iterator[Finding]:
    """Options that are far from what the optimizer is made for."""
    optimizer = optimizer_of(patient)
    if optimizer is None:
        return
    roots = type(optimizer).__name__ in ("RMSprop", "Adagrad")
    for group in optimizer.param_groups[:1]:
        eps = group.get("eps", 1e-8)  # Adafactor has two
        if isinstance(eps, float) and eps < EPSILON and not roots:
            yield Finding(
                cause="optimizer_params_wrong",
                severity="warning",
                summary=f"an epsilon of {eps:g} is below what float32 can add to the root of the "
                "squared gradient: parameters with tiny gradients take full steps",
                evidence=(Evidence(quantity="eps", measured=eps, expected="about 1e-8"),),
                remedy="leave eps at its default of 1e-8",
                source="Kingma & Ba 2015, section 2",
                change=optimisation.option("eps", 1e-8, was=eps),
            )
        yield from _memories(group)


def _memories(group: dict[str, object]) -> Iterator[Finding]:
    betas = group.get("betas")
    momentum = group.get("momentum", 0.0)
    if isinstance(betas, tuple) and len(betas) == 2 and (betas[0] > 0.98 or betas[1] < 0.5):
        yield Finding(
            cause="optimizer_params_wrong",
            severity="warning",
            summary="the betas are far from what Adam is made for",
            evidence=(Evidence(quantity="betas", measured=str(betas), expected="(0.9, 0.999)"),),
            remedy="leave betas at (0.9, 0.999)",
            source="Kingma & Ba 2015",
            change=optimisation.option("betas", (0.9, 0.999), was=betas),
        )
    if isinstance(momentum, float) and momentum > 0.995:
        yield Finding(
            cause="optimizer_params_wrong",
            severity="warning",
            summary=f"a momentum of {momentum:g} remembers {1 / (1 - momentum):,.0f} steps: the "
            "training overshoots"
            if momentum < 1
            else "a momentum of 1 or more never forgets: the steps grow without end",
            evidence=(Evidence(quantity="momentum", measured=momentum, expected="0.9 to 0.99"),),
            remedy="use a momentum of 0.9",
            source="Sutskever et al. 2013",
            change=optimisation.option("momentum", 0.9, was=momentum),
        )


def optimizer_of(patient: Patient) -> Optimizer | None:
    """The optimizer as built for the check."""
    return patient.seen.optimizer if patient.seen is not None else None


def rate_of(patient: Patient) -> float:
    """The largest learning rate, under a schedule the one it starts from; NaN without one."""
    optimizer = optimizer_of(patient)
    if optimizer is None:
        return math.nan
    groups = [group for group in optimizer.param_groups if "lr" in group]
    return max((float(g.get("initial_lr", g["lr"])) for g in groups), default=math.nan)


def too_high(patient: Patient, factor: float) -> Finding:
    """The suspicion that the rate is too high by this factor."""
    rate = rate_of(patient)
    return suspect(
        "lr_too_high",
        f"the steps at a rate of {rate:g} are too long: the training jumps about, or away",
        Evidence(quantity="lr", measured=rate, expected=f"about {rate * factor:.3g}"),
        change=optimisation.rate_times(factor, rate),
        source=SOURCE_RATE,
    )


def too_low(patient: Patient, factor: float) -> Finding:
    """The suspicion that the rate is too low by this factor."""
    rate = rate_of(patient)
    return suspect(
        "lr_too_low",
        f"at a rate of {rate:g} the whole training does not go as far as a few steps at a higher "
        "one",
        Evidence(quantity="lr", measured=rate, expected=f"about {rate * factor:.3g}"),
        change=optimisation.rate_times(factor, rate),
        source=SOURCE_RATE,
    )


def other_optimizer(patient: Patient) -> Finding | None:
    """The suspicion that plain gradient descent is the wrong optimizer here."""
    optimizer = optimizer_of(patient)
    if optimizer is None or type(optimizer).__name__ in ("Adam", "AdamW", "NAdam", "RAdam"):
        return None
    name = type(optimizer).__name__
    momentum = max(float(g.get("momentum", 0) or 0) for g in optimizer.param_groups)
    described = name if name != "SGD" else f"SGD {'with' if momentum else 'without'} momentum"
    return suspect(
        "optimizer_wrong",
        f"{described} hardly moves this network: its parameters need steps of different length",
        Evidence(quantity="optimizer", measured=described, expected="one that adapts its steps"),
        change=optimisation.adam(),
        source="Kingma & Ba 2015; Zhang et al. 2020, Why are Adaptive Methods Good",
    )


def plain_descent(patient: Patient) -> bool:
    """Whether it is gradient descent with little momentum at a rate that is usual for it."""
    optimizer = optimizer_of(patient)
    if optimizer is None or type(optimizer).__name__ != "SGD":
        return False
    momentum = max(float(g.get("momentum", 0) or 0) for g in optimizer.param_groups)
    return momentum < 0.5 and (rate_of(patient) >= 3e-3 or rate_of(patient) <= 3e-4)


def goes_further(patient: Patient, treated: Outcome, without: Outcome, factor: float) -> bool:
    """Whether the treated arm ends below where the whole training at the present rate would."""
    if not better(treated, without):
        return False
    if patient.whole or patient.total_steps is None:
        return True
    equal = _equal_steps(patient, treated.steps, factor)
    if equal > BELIEVED * treated.steps:
        return False
    there = smoothed(treated.losses[: max(5, round(equal))], last=8)
    return smoothed(treated.losses, last=8) < SPEED_UP * there


def _equal_steps(patient: Patient, steps: int, factor: float) -> float:
    """Steps of an arm at `factor` times the rate that go as far as the whole training does.

    Under a schedule the sums of the rates are compared: in a warm-up an arm goes hardly any way.
    """
    assert patient.total_steps is not None, "asked of trainings of known length"
    rates = rates_over_training(patient)
    if rates is None:
        scheduled = patient.setup.schedule is not None
        return math.inf if scheduled else patient.total_steps / factor
    gone = itertools.accumulate(factor * rate for rate in rates[:steps])
    whole = math.fsum(rates)
    return next((float(k) for k, way in enumerate(gone, start=1) if way >= whole), math.inf)


def restless(outcome: Outcome) -> bool:
    """Whether the training jumps about, leaps up or breaks off: the rate may be too high.

    One that stands still is not: it may as well be too low.
    """
    losses = outcome.losses
    if outcome.ended or not losses:
        return True
    start, end = smoothed(losses[:5], last=5), smoothed(losses, last=8)
    half = losses[len(losses) // 2 :]
    moves = [b - a for a, b in itertools.pairwise(half)]
    rises = math.fsum(move for move in moves if move > 0)
    jumpy = rises > 0.4 * math.fsum(map(abs, moves)) and max(half) > 2 * min(half)
    return end > 1.05 * start or jumpy or max(losses[5:], default=0.0) > 2 * start


def other_batches(patient: Patient) -> Iterator[Finding]:
    """Suspicions about batches that hold nearly everything, or hardly anything."""
    if patient.gathered is None or patient.drawn.per_epoch is None:
        return
    inputs = patient.drawn.take(1)[0][0]
    size = len(inputs)
    count = size * patient.drawn.per_epoch
    if size <= 4 and count > 64:
        yield suspect(
            "batch_size_too_small",
            f"{size} example{'s' * (size != 1)} in a batch: the gradient is mostly chance",
            Evidence(quantity="batch size", measured=float(size), expected="16 to 256"),
            change=optimisation.batches_of(32, size),
            source="Masters & Luschi 2018",
        )
    elif patient.drawn.per_epoch <= 4 and count >= 256:
        smaller = max(16, min(64, count // 20))
        yield suspect(
            "batch_size_too_large",
            f"only {patient.drawn.per_epoch} steps in an epoch: the weights hardly move before it "
            "is over",
            Evidence(quantity="batch size", measured=float(size), expected="16 to 256"),
            change=optimisation.batches_of(smaller, size),
            source="Keskar et al. 2017",
        )
