"""Tests of what fits together: the whole table of problems, losses and endings, cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.causes.suspected.fitting import OUTWEIGHS, certain, suspicions

Patients = Callable[..., Any]

INPUTS = torch.randn(128, 8, generator=torch.Generator().manual_seed(0))
CLASSES = INPUTS[:, :3].argmax(dim=1)
HOT = functional.one_hot(CLASSES, 3).float()
YES = (INPUTS[:, :1] > 0).float()
SEVERAL = (INPUTS[:, :3] > 0).float()
NUMBERS = INPUTS[:, :1] * 2

CROSS_ENTROPY, NLL, MSE, L1 = nn.CrossEntropyLoss(), nn.NLLLoss(), nn.MSELoss(), nn.L1Loss()
LOGITS, BINARY = nn.BCEWithLogitsLoss(), nn.BCELoss()


def log_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """A cross entropy of probabilities."""
    return functional.nll_loss(outputs.clamp_min(1e-9).log(), targets)


ENDINGS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "softmax": lambda: nn.Softmax(dim=1),
    "log_softmax": lambda: nn.LogSoftmax(dim=1),
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}


def chain(width: int, ending: str) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, width), ENDINGS[ending]()
    )


def patient_of(patient_for: Patients, targets: Tensor, ending: str, loss: Any) -> Any:
    width = 3 if targets.ndim == 1 else targets.shape[1]
    return patient_for(chain(width, ending), (INPUTS, targets), loss=loss)


@pytest.mark.parametrize(
    ("targets", "ending", "loss"),
    [
        (CLASSES, "linear", CROSS_ENTROPY),
        (HOT, "linear", CROSS_ENTROPY),
        (CLASSES, "log_softmax", NLL),
        (CLASSES, "softmax", log_of),
        (YES, "linear", LOGITS),
        (YES, "sigmoid", BINARY),
        (SEVERAL, "linear", LOGITS),
        (SEVERAL, "sigmoid", BINARY),
        (NUMBERS, "linear", MSE),
        (NUMBERS, "linear", L1),
        (NUMBERS, "linear", nn.SmoothL1Loss()),
        (NUMBERS, "linear", nn.HuberLoss()),
    ],
)
def test_what_fits_together_is_nothing(
    patient_for: Patients, targets: Tensor, ending: str, loss: Any
) -> None:
    patient = patient_of(patient_for, targets, ending, loss)
    assert not list(certain(patient))
    assert not list(suspicions(patient))


@pytest.mark.parametrize(
    ("targets", "ending", "loss", "cause"),
    [
        (SEVERAL, "softmax", BINARY, "output_activation_wrong"),
        (YES, "relu", BINARY, "output_activation_wrong"),
        (CLASSES, "sigmoid", log_of, "output_activation_wrong"),
        (CLASSES, "relu", log_of, "output_activation_wrong"),
    ],
)
def test_what_cannot_be_meant_is_an_error(
    patient_for: Patients, targets: Tensor, ending: str, loss: Any, cause: str
) -> None:
    if loss is BINARY and ending == "relu":
        targets, loss = YES, lambda o, t: functional.binary_cross_entropy(o.clamp(0, 1), t)
    patient = patient_of(patient_for, targets, ending, loss)
    (finding,) = certain(patient)
    assert (finding.cause, finding.severity) == (cause, "error")
    assert finding.change is not None
    outcome = patient.arm(finding.change)
    assert outcome.ended == "" and outcome.training.error < 0.9


@pytest.mark.parametrize(
    ("targets", "ending", "loss", "said"),
    [
        (HOT, "linear", MSE, "a squared error"),
        (HOT, "sigmoid", MSE, "a squared error"),
        (HOT, "softmax", MSE, "a squared error"),
        (HOT, "sigmoid", BINARY, "a binary cross entropy of probabilities"),
        (HOT, "linear", LOGITS, "a binary cross entropy of logits"),
        (HOT, "linear", L1, "an absolute error"),
        (YES, "linear", MSE, "a squared error"),
        (YES, "sigmoid", MSE, "a squared error"),
    ],
)
def test_what_works_all_the_same_is_tried_against_the_usual_loss(
    patient_for: Patients, targets: Tensor, ending: str, loss: Any, said: str
) -> None:
    patient = patient_of(patient_for, targets, ending, loss)
    assert not list(certain(patient))
    (finding,) = suspicions(patient)
    assert (finding.cause, finding.severity, finding.proven) == ("loss_wrong", "note", False)
    assert finding.evidence[0].measured == said
    assert finding.change is not None
    outcome = patient.arm(finding.change)
    assert outcome.ended == "" and outcome.training.error < 0.9


def test_a_cross_entropy_over_answers_that_may_all_be_right_is_named(
    patient_for: Patients,
) -> None:
    patient = patient_of(patient_for, SEVERAL, "linear", CROSS_ENTROPY)
    finding = next(iter([*certain(patient), *suspicions(patient)]))
    assert finding.cause == "loss_wrong" and finding.change is not None
    assert patient.arm(finding.change).training.error < 0.9


def test_a_sigmoid_over_exclusive_classes_makes_way_for_a_softmax(patient_for: Patients) -> None:
    patient = patient_of(patient_for, HOT, "sigmoid", MSE)
    (finding,) = suspicions(patient)
    assert finding.change is not None
    outputs = finding.change(patient.setup).model()(INPUTS)
    torch.testing.assert_close(outputs.sum(dim=1), torch.ones(len(INPUTS)))


@pytest.mark.parametrize(("strength", "certainly"), [(1e-4, False), (0.05, False), (1e3, True)])
def test_a_penalty_on_the_weights_is_an_error_when_it_outweighs_the_data(
    patient_for: Patients, strength: float, certainly: bool
) -> None:
    held: list[nn.Module] = []

    def build() -> nn.Module:
        held.append(chain(3, "linear")())
        return held[-1]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        size = torch.stack([p.square().sum() for p in held[-1].parameters()]).sum()
        return functional.cross_entropy(outputs, targets) + strength * size

    patient = patient_for(build, (INPUTS, CLASSES), loss=loss)
    sure, waiting = list(certain(patient)), list(suspicions(patient))
    (finding,) = sure if certainly else waiting
    assert finding.cause == "reg_too_strong"
    assert (finding.evidence[0].measured > OUTWEIGHS) is certainly  # type: ignore[operator]
    assert (finding.severity, finding.proven) == (("error", True) if certainly else ("note", False))
    assert not (waiting if certainly else sure)


def test_a_patient_whose_loss_cannot_be_computed_is_not_asked(patient_for: Patients) -> None:
    patient = patient_for(chain(3, "linear"), (INPUTS, CLASSES[:, None]))
    assert patient.seen is None
    assert not list(certain(patient)) and not list(suspicions(patient))
