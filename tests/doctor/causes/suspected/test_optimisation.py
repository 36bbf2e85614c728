"""Tests of the suspicions about optimisation: options, rates, optimizers, batch sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop

from leadline.doctor.arm import Outcome
from leadline.doctor.causes.suspected.optimisation import (
    goes_further,
    options,
    other_batches,
    other_optimizer,
    plain_descent,
    rate_of,
    restless,
    too_high,
    too_low,
)
from leadline.doctor.problem import Verdict

Patients = Callable[..., Any]
INPUTS = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
CLASSES = INPUTS[:, :3].argmax(dim=1)
DATA = (INPUTS, CLASSES)


def linear() -> nn.Module:
    return nn.Linear(8, 3)


def made(kind: Any, **given: Any) -> dict[str, Any]:
    return {"optimizer": lambda model: kind(model.parameters(), **given)}


def outcome(losses: tuple[float, ...], *, error: float = 0.5, ended: str = "") -> Outcome:
    verdict = Verdict(error=error, surprise=error)
    return Outcome(
        steps=len(losses),
        losses=losses,
        norms=losses,
        training=verdict,
        held_out=None,
        halfway=None,
        in_training=None,
        ended=ended,
        seconds=0.1,
        model=None,
    )


# ------------------------------------------------------------------------------------- its options


@pytest.mark.parametrize(
    ("kind", "given", "key", "mended"),
    [
        (Adam, {"eps": 1e-15}, "eps", 1e-8),
        (AdamW, {"eps": 0.0}, "eps", 1e-8),
        (Adam, {"betas": (0.99, 0.999)}, "betas", (0.9, 0.999)),
        (Adam, {"betas": (0.9, 0.1)}, "betas", (0.9, 0.999)),
        (SGD, {"lr": 0.1, "momentum": 0.999}, "momentum", 0.9),
        (SGD, {"lr": 0.1, "momentum": 1.0}, "momentum", 0.9),
    ],
)
def test_options_far_from_what_they_are_for_are_found(
    patient_for: Patients, kind: Any, given: dict[str, Any], key: str, mended: Any
) -> None:
    patient = patient_for(linear, DATA, **made(kind, **given))
    (finding,) = options(patient)
    assert (finding.cause, finding.severity) == ("optimizer_params_wrong", "warning")
    assert finding.evidence[0].quantity == key
    assert finding.change is not None
    optimizer = finding.change(patient.setup).optimizer(linear())
    assert optimizer.param_groups[0][key] == mended


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Adam, {}),
        (AdamW, {"betas": (0.9, 0.95)}),
        (Adam, {"betas": (0.5, 0.999)}),
        (Adam, {"eps": 1e-9}),
        (NAdam, {}),
        (RMSprop, {"eps": 1e-12}),
        (Adagrad, {"eps": 1e-10}),
        (SGD, {"lr": 0.1, "momentum": 0.99}),
    ],
)
def test_usual_options_are_not(patient_for: Patients, kind: Any, given: dict[str, Any]) -> None:
    assert not list(options(patient_for(linear, DATA, **made(kind, **given))))


# --------------------------------------------------------------------------------------- its rate


def test_the_rate_is_the_largest_of_the_groups(patient_for: Patients) -> None:
    def make(model: Any) -> Any:
        return SGD([{"params": [model.weight], "lr": 0.3}, {"params": [model.bias]}], lr=0.1)

    assert rate_of(patient_for(linear, DATA, optimizer=make)) == 0.3


@pytest.mark.parametrize(
    ("suspect", "cause", "factor"), [(too_high, "lr_too_high", 0.01), (too_low, "lr_too_low", 100)]
)
def test_a_rate_is_suspected_by_a_factor(
    patient_for: Patients, suspect: Any, cause: str, factor: float
) -> None:
    patient = patient_for(linear, DATA, lr=0.5)
    finding = suspect(patient, factor)
    assert finding.cause == cause
    assert finding.evidence[0].measured == 0.5
    assert finding.evidence[0].expected == f"about {0.5 * factor:.3g}"
    optimizer = finding.change(patient.setup).optimizer(linear())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * factor)


FALLING = tuple(1 / n for n in range(1, 41))


@pytest.mark.parametrize(
    ("losses", "ended", "answer"),
    [
        (FALLING, "", False),
        (tuple(0.95**n for n in range(40)), "", False),
        ((1.0,) * 40, "", False),  # it stands still: the rate may as well be too low
        (tuple(1 + 0.01 * n for n in range(40)), "", True),
        ((*FALLING[:20], 2.5, *FALLING[21:]), "", True),
        (tuple(1.0 if n % 2 else 0.3 for n in range(40)), "", True),
        (tuple(1.0 if n % 2 else 0.97 for n in range(40)), "", False),
        (FALLING, "loss nan at step 41", True),
        ((), "", True),
    ],
)
def test_a_training_that_jumps_rises_or_breaks_off_is_restless(
    losses: tuple[float, ...], ended: str, answer: bool
) -> None:
    assert restless(outcome(losses, ended=ended)) is answer


def gradient_flow(rate: float, steps: int) -> tuple[float, ...]:
    """The loss of plain descent on a parabola: what n steps at f times the rate are is exact."""
    return tuple(math.exp(-2 * rate * n) for n in range(steps))


@pytest.mark.parametrize(("total", "further"), [(40, True), (10_000, False)])
def test_a_higher_rate_counts_where_the_whole_training_does_not_come_as_far(
    patient_for: Patients, total: int, further: bool
) -> None:
    """At 10 times the rate, 100 steps are worth 1,000: more than a training of 40 or of 10,000."""
    patient = patient_for(linear, DATA, lr=1e-4)
    patient.total_steps, patient.steps = total, 1
    slow = outcome(gradient_flow(1e-4, 100), error=0.98)
    fast = outcome(gradient_flow(1e-2, 100), error=0.1)
    assert goes_further(patient, fast, slow, 10.0) is further


def test_a_higher_rate_that_helps_no_more_goes_no_further(patient_for: Patients) -> None:
    patient = patient_for(linear, DATA)
    same = outcome(FALLING, error=0.5)
    assert not goes_further(patient, same, same, 10.0)


def test_in_an_arm_that_is_the_whole_training_what_is_better_goes_further(
    patient_for: Patients,
) -> None:
    patient = patient_for(linear, DATA, epochs=1)
    assert patient.whole
    assert goes_further(patient, outcome(FALLING, error=0.1), outcome(FALLING, error=0.9), 10.0)


# ----------------------------------------------------------------------------------- the optimizer


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (SGD, {"lr": 0.1}, "SGD without momentum"),
        (SGD, {"lr": 0.1, "momentum": 0.9}, "SGD with momentum"),
        (Adagrad, {}, "Adagrad"),
        (Adam, {}, None),
        (AdamW, {}, None),
    ],
)
def test_another_optimizer_is_suspected_where_it_is_not_adam(
    patient_for: Patients, kind: Any, given: dict[str, Any], said: str | None
) -> None:
    patient = patient_for(linear, DATA, **made(kind, **given))
    finding = other_optimizer(patient)
    assert (finding and finding.evidence[0].measured) == said
    if finding is not None and finding.change is not None:
        assert isinstance(finding.change(patient.setup).optimizer(linear()), Adam)


@pytest.mark.parametrize(
    ("kind", "given", "answer"),
    [
        (SGD, {"lr": 1e-2}, True),
        (SGD, {"lr": 1e-4}, True),
        (SGD, {"lr": 1e-3}, False),
        (SGD, {"lr": 1e-2, "momentum": 0.9}, False),
        (Adam, {"lr": 1e-2}, False),
    ],
)
def test_plain_descent_is_without_momentum_at_a_usual_rate(
    patient_for: Patients, kind: Any, given: dict[str, Any], answer: bool
) -> None:
    assert plain_descent(patient_for(linear, DATA, **made(kind, **given))) is answer


# ------------------------------------------------------------------------------ length and batches


@pytest.mark.parametrize(
    ("size", "cause", "cut"),
    [
        (1, "batch_size_too_small", 32),
        (4, "batch_size_too_small", 32),
        (8, None, 0),
        (64, None, 0),
        (128, "batch_size_too_large", 25),
        (512, "batch_size_too_large", 25),
    ],
)
def test_batches_that_hold_nearly_everything_or_hardly_anything_are_suspected(
    patient_for: Patients, size: int, cause: str | None, cut: int
) -> None:
    batches = list(zip(INPUTS.split(size), CLASSES.split(size), strict=True))
    patient = patient_for(linear, DATA, batches=batches, epochs=1)
    found = list(other_batches(patient))
    assert [f.cause for f in found] == ([] if cause is None else [cause])
    if found:
        assert found[0].evidence[0].measured == float(size)
        assert found[0].change is not None
        assert len(next(iter(found[0].change(patient.setup).batches))[0]) == cut


def test_a_small_table_in_one_batch_is_no_matter(patient_for: Patients) -> None:
    batches = [(INPUTS[:200], CLASSES[:200])]
    assert not list(other_batches(patient_for(linear, DATA, batches=batches)))
