"""Tests of what a wider type shows: overflow, lost steps, rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.causes.suspected.numerics import certain, suspicions
from leadline.doctor.patient import Patient


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class Narrow(nn.Module):
    """A network with weights in half precision, into which its inputs are cast."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = network().to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.to(self.dtype))


class Overflowing(nn.Module):
    """Squares in float16 what is larger than 256."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = 1000 * self.inner(x).half()
        return self.head((h * h / 1e6).float())


class OwnNorm(nn.Module):
    """Normalises numbers about an offset by the mean of squares minus the squared mean."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(64, 32), nn.Linear(32, 10)
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x) + self.offset
        mean = h.mean(1, keepdim=True)
        variance = (h * h).mean(1, keepdim=True) - mean * mean
        return self.head((h - mean) / (variance.abs() + 1e-5).sqrt())


def test_steps_smaller_than_the_spacing_of_the_weights_are_named(
    patient_for: Any, named: Any, digits: Any
) -> None:
    patient = patient_for(lambda: Narrow(torch.bfloat16), digits, lr=1e-5)
    assert named(certain(patient)) == ["error low_precision_update_lost"]


def test_with_weights_in_float32_the_same_steps_count(patient_for: Any, digits: Any) -> None:
    patient = patient_for(lambda: Narrow(torch.bfloat16), digits, lr=1e-4)
    (finding,) = certain(patient)
    treated, without = patient.arm(finding.change), patient.arm()
    assert treated.losses[-1] < without.losses[-1] - 0.02
    assert not list(certain(Patient(finding.change(patient.setup), seconds=2)))


@pytest.mark.parametrize(
    ("dtype", "lr"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3), (torch.float32, 1e-6)]
)
def test_steps_that_the_weights_can_hold_are_healthy(
    patient_for: Any, digits: Any, dtype: torch.dtype, lr: float
) -> None:
    patient = patient_for(lambda: Narrow(dtype), digits, lr=lr)
    assert not [*certain(patient), *suspicions(patient)]


def test_a_warm_up_is_not_taken_for_lost_steps(patient_for: Any, digits: Any) -> None:
    patient = patient_for(
        lambda: Narrow(torch.bfloat16),
        digits,
        schedule=lambda o: torch.optim.lr_scheduler.LinearLR(o, 1e-6, total_iters=50),
    )
    assert not list(certain(patient))


def test_infinity_inside_a_float16_part_is_named(patient_for: Any, named: Any, digits: Any) -> None:
    assert named(certain(patient_for(Overflowing, digits))) == ["error low_precision_overflow"]


def test_a_training_that_overflowed_learns_in_float32(patient_for: Any, digits: Any) -> None:
    patient = patient_for(Overflowing, digits)
    (finding,) = certain(patient)
    assert patient.arm().ended and patient.arm(finding.change).training.error < 0.5


def test_a_gradient_that_overflows_in_float16_is_named(
    patient_for: Any, named: Any, digits: Any
) -> None:
    patient = patient_for(
        lambda: Narrow(torch.float16),
        digits,
        loss=lambda o, t: 1e9 * functional.cross_entropy(o.float(), t),
    )
    assert named(certain(patient)) == ["error low_precision_overflow"]


def test_infinity_that_float32_gives_as_well_is_no_matter_of_precision(
    patient_for: Any, digits: Any
) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.half() / torch.zeros((), dtype=torch.half), targets)

    assert not list(certain(patient_for(network, digits, loss=loss)))


def test_a_variance_that_is_lost_in_rounding_is_named_and_healed_in_float64(
    patient_for: Any, named: Any, digits: Any
) -> None:
    patient = patient_for(lambda: OwnNorm(3000.0), digits)
    assert named(certain(patient)) == ["error loss_numerically_unstable"]
    (finding,) = certain(patient)
    healed = finding.change(patient.setup)
    assert next(healed.model().parameters()).dtype == torch.float64
    assert patient.arm(finding.change).training.error < patient.arm().training.error


def test_a_loss_that_loses_its_digits_is_told_from_a_model_that_does(
    patient_for: Any, digits: Any
) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        chosen = outputs.softmax(1).gather(1, targets[:, None])
        return ((1e6 + chosen.square()) - 1e6).sub(1).square().mean()

    (finding,) = certain(patient_for(network, digits, loss=loss))
    assert finding.cause == "loss_numerically_unstable" and "in the loss" in finding.summary
    assert "cross" in finding.remedy.lower()


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_the_same_norm_of_small_numbers_is_healthy(
    patient_for: Any, digits: Any, offset: float
) -> None:
    assert not list(certain(patient_for(lambda: OwnNorm(offset), digits)))


def test_networks_of_every_kind_are_alike_in_both_types(
    patient_for: Any, conv_net: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    images = torch.randn(64, 3, 16, 16), torch.arange(64) % 10
    assert not list(certain(patient_for(conv_net, images)))
    assert not list(certain(patient_for(gpt, text, loss=language_loss)))
