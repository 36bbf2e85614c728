"""Tests of the suspicions about the loop: schedules, frozen parameters, clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from leadline.doctor.causes.suspected.training_loop import (
    certain,
    rates_over_training,
    suspicions,
)

Patients = Callable[..., Any]
INPUTS = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
CLASSES = INPUTS[:, :3].argmax(dim=1)
DATA = (INPUTS, CLASSES)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def scheduled(patient_for: Patients, make: Any, *, epochs: int = 10) -> Any:
    return patient_for(
        network,
        DATA,
        epochs=epochs,
        optimizer=lambda model: SGD(model.parameters(), lr=0.1),
        schedule=make,
    )


# ------------------------------------------------------------------------------------- the schedule


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: CosineAnnealingLR(optimizer, 80),
        lambda optimizer: StepLR(optimizer, 7, 0.5),
        lambda optimizer: OneCycleLR(optimizer, 0.5, total_steps=80),
    ],
)
def test_the_rates_are_those_of_the_schedule_stepped_by_hand(
    patient_for: Patients, make: Any
) -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule, expected = make(optimizer), []
    for _ in range(80):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates_over_training(scheduled(patient_for, make)) == pytest.approx(expected)


def test_without_a_schedule_there_are_no_rates(patient_for: Patients) -> None:
    patient = patient_for(network, DATA)
    assert rates_over_training(patient) is None
    assert not list(certain(patient))


def test_asking_for_the_rates_moves_no_weight(patient_for: Patients) -> None:
    patient = scheduled(patient_for, lambda optimizer: CosineAnnealingLR(optimizer, 80))
    before = [p.detach().clone() for p in patient.seen.model.parameters()]
    rates_over_training(patient)
    for parameter, kept in zip(patient.seen.model.parameters(), before, strict=True):
        assert torch.equal(parameter, kept)


@pytest.mark.parametrize(
    ("make", "severity"),
    [
        (lambda optimizer: StepLR(optimizer, 2, 0.1), "error"),  # 0.001 of it after 6 steps
        (lambda optimizer: ExponentialLR(optimizer, 0.5), "error"),
        (lambda optimizer: LambdaLR(optimizer, lambda n: 0.1 ** (n / 10)), "warning"),
        (lambda optimizer: CosineAnnealingLR(optimizer, 80), None),
        (lambda optimizer: CosineAnnealingLR(optimizer, 10), None),  # it comes up again
        (lambda optimizer: StepLR(optimizer, 30, 0.1), None),
        (lambda optimizer: LambdaLR(optimizer, lambda n: float(n < 50)), None),
    ],
)
def test_a_schedule_that_ends_long_before_the_training_is_found(
    patient_for: Patients, make: Any, severity: str | None
) -> None:
    patient = scheduled(patient_for, make)
    found = list(certain(patient))
    assert [f.severity for f in found] == ([] if severity is None else [severity])
    if found:
        rates = rates_over_training(patient)
        assert rates is not None
        share = sum(rate < 1e-3 * max(rates) for rate in rates) / len(rates)
        assert found[0].cause == "scheduler_misused"
        assert found[0].evidence[0].measured == pytest.approx(share)


def test_the_remedy_steps_it_once_per_epoch(patient_for: Patients) -> None:
    patient = scheduled(patient_for, lambda optimizer: ExponentialLR(optimizer, 0.5))
    (finding,) = certain(patient)
    treated = finding.change(patient.setup)  # type: ignore[misc]
    optimizer = treated.optimizer(network())
    schedule, rates = treated.schedule(optimizer), []
    for _ in range(24):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.1] * 8 + [0.05] * 8 + [0.025] * 8)


def test_a_schedule_that_cannot_be_run_to_its_end_is_said(patient_for: Patients) -> None:
    patient = scheduled(patient_for, lambda optimizer: OneCycleLR(optimizer, 0.5, total_steps=20))
    assert rates_over_training(patient) is None
    assert any("Tried to step" in limit for limit in patient.limits)
    patient = scheduled(patient_for, lambda optimizer: ReduceLROnPlateau(optimizer))
    assert rates_over_training(patient) is None
    assert any("metrics" in limit for limit in patient.limits)


# -------------------------------------------------------------------------- frozen and clipped ones


def test_frozen_parameters_are_suspected_by_their_share(patient_for: Patients) -> None:
    def build() -> nn.Module:
        model = network()
        model[0].requires_grad_(False)  # type: ignore[index]
        return model

    (finding,) = suspicions(patient_for(build, DATA))
    assert (finding.cause, finding.layers) == ("params_frozen", ("0.weight", "0.bias"))
    assert finding.evidence[0].measured == pytest.approx((8 * 16 + 16) / (8 * 16 + 16 + 16 * 3 + 3))


def test_a_network_that_learns_whole_is_not_suspected(patient_for: Patients) -> None:
    assert not list(suspicions(patient_for(network, DATA)))


@pytest.mark.parametrize(("bound", "found"), [(1e-3, True), (0.5, False), (10.0, False)])
def test_a_bound_far_below_the_gradient_is_suspected(
    patient_for: Patients, bound: float, found: bool
) -> None:
    patient = patient_for(network, DATA, clip_grad=bound)
    gradients = [g for g in patient.seen.survey.gradients.values() if g is not None]
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()
    suspected = list(suspicions(patient))
    assert [f.cause for f in suspected] == ["clip_too_small"] * found
    if suspected:
        assert suspected[0].evidence[0].measured == pytest.approx(norm / bound)
        assert suspected[0].change is not None
        assert suspected[0].change(patient.setup).clip_grad == 1.0
