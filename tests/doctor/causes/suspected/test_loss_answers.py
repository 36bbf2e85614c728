"""Tests of what losses and measures answer when asked about made-up answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.causes.suspected.loss_answers import certain, suspicions
from leadline.doctor.patient import Patient


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def asker() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))


def even(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits[0], (digits[1] % 2 == 0).float()[:, None]


def test_a_class_that_ignore_index_swallows_is_named(
    patient_for: Any, named: Any, digits: Any
) -> None:
    patient = patient_for(classifier, digits, loss=nn.CrossEntropyLoss(ignore_index=3))
    assert named(certain(patient)) == ["error ignore_index_hits_class"]


def test_with_its_remedy_the_swallowed_class_is_learned(patient_for: Any, digits: Any) -> None:
    patient = patient_for(classifier, digits, loss=nn.CrossEntropyLoss(ignore_index=3))
    (finding,) = certain(patient)
    treated = patient.arm(finding.change)
    assert treated.training.balanced < patient.arm().training.balanced - 0.05
    assert not list(certain(Patient(finding.change(patient.setup), seconds=3)))


def test_a_loss_of_ones_own_that_leaves_a_class_out_is_named(
    patient_for: Any, named: Any, digits: Any
) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.nll_loss(outputs.log_softmax(1), targets, ignore_index=0)

    assert named(certain(patient_for(classifier, digits, loss=loss))) == [
        "error ignore_index_hits_class"
    ]


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(ignore_index=255, label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=torch.linspace(0.1, 2, 10)),
    ],
)
def test_a_loss_that_counts_every_class_is_healthy(
    patient_for: Any, digits: Any, loss: nn.Module
) -> None:
    patient = patient_for(classifier, digits, loss=loss)
    assert not [*certain(patient), *suspicions(patient)]


def test_padding_of_a_language_model_may_be_ignored(patient_for: Any, gpt: Any) -> None:
    loss = nn.CrossEntropyLoss(ignore_index=0)
    patient = patient_for(gpt, padded_text(), loss=lambda o, t: loss(o.flatten(0, 1), t.flatten()))
    assert not list(certain(patient))


def padded_text() -> tuple[Tensor, Tensor]:
    """Sequences of 8 to 17 tokens from 1 on, 0 behind their ends, and the next of each place."""
    tokens = torch.randint(1, 50, (64, 17))
    lengths = 8 + torch.arange(64) % 10
    tokens[torch.arange(17)[None] >= lengths[:, None]] = 0
    return tokens[:, :-1], tokens[:, 1:]


def test_padding_that_the_loss_counts_is_named_without_a_name_for_it(
    patient_for: Any, named: Any, gpt: Any, language_loss: Any
) -> None:
    patient = patient_for(gpt, padded_text(), loss=language_loss)
    assert named(certain(patient)) == ["warning padding_in_loss"]


def test_the_remedy_leaves_just_the_padding_out_of_the_loss(
    patient_for: Any, gpt: Any, language_loss: Any
) -> None:
    patient = patient_for(gpt, padded_text(), loss=language_loss)
    (finding,) = certain(patient)
    outputs, (_, targets) = torch.randn(64, 16, 50), padded_text()
    healed = finding.change(patient.setup).loss(outputs, targets)
    expected = functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=0)
    assert healed.item() == pytest.approx(expected.item())


def test_series_of_numbers_with_padding_in_the_loss_are_named(patient_for: Any, named: Any) -> None:
    series = torch.randn(64, 12, 3)
    series[torch.arange(12)[None] >= (5 + torch.arange(64) % 8)[:, None]] = -1.0
    patient = patient_for(
        lambda: nn.Linear(3, 3), (series, series.clone()), loss=functional.mse_loss
    )
    assert named(certain(patient)) == ["warning padding_in_loss"]


def test_text_without_padding_is_healthy(
    patient_for: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    assert not list(certain(patient_for(gpt, text, loss=language_loss)))


def test_a_negated_cross_entropy_is_climbed(patient_for: Any, named: Any, digits: Any) -> None:
    patient = patient_for(classifier, digits, loss=lambda o, t: -functional.cross_entropy(o, t))
    assert named(certain(patient)) == ["error gradient_sign_flipped"]
    (finding,) = certain(patient)
    assert patient.arm(finding.change).training.error < 0.5


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: -functional.binary_cross_entropy_with_logits(o, t),
        lambda o, t: -functional.mse_loss(o, t),
        lambda o, t: (o.sigmoid() * t).mean() * 2,
    ],
)
def test_a_yes_or_no_loss_of_the_wrong_sign_is_named(
    patient_for: Any, named: Any, digits: Any, loss: Any
) -> None:
    patient = patient_for(asker, even(digits), loss=loss)
    assert named(certain(patient)) == ["error gradient_sign_flipped"]


def test_a_negated_squared_error_of_numbers_is_climbed(patient_for: Any, named: Any) -> None:
    inputs = torch.randn(256, 4)
    patient = patient_for(
        lambda: nn.Linear(4, 1),
        (inputs, inputs.sum(1, keepdim=True)),
        loss=lambda o, t: -(o - t).square().mean(),
    )
    assert named(certain(patient)) == ["error gradient_sign_flipped"]


def poisson(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.poisson_nll_loss(outputs, targets)


def test_losses_that_are_not_smallest_at_the_targets_are_not_accused(patient_for: Any) -> None:
    inputs = torch.rand(256, 4)
    counts = torch.poisson(4 * inputs.sum(1, keepdim=True))
    patient = patient_for(lambda: nn.Linear(4, 1), (inputs, counts), loss=poisson)
    assert not [*certain(patient), *suspicions(patient)]


def test_distances_as_outputs_are_not_accused(patient_for: Any, digits: Any) -> None:
    patient = patient_for(classifier, digits, loss=lambda o, t: functional.cross_entropy(-o, t))
    assert not [*certain(patient), *suspicions(patient)]


def test_an_optimizer_that_maximises_a_negated_loss_is_right(patient_for: Any, digits: Any) -> None:
    patient = patient_for(
        classifier,
        digits,
        loss=lambda o, t: -functional.cross_entropy(o, t),
        optimizer=lambda m: torch.optim.Adam(m.parameters(), lr=1e-2, maximize=True),
    )
    assert not [*certain(patient), *suspicions(patient)]


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-1.0, 1.0)])
def test_labels_that_are_not_zero_and_one_are_named_and_healed(
    patient_for: Any, named: Any, digits: Any, low: float, high: float
) -> None:
    inputs, yes = even(digits)
    data = inputs, low + (high - low) * yes
    patient = patient_for(asker, data, loss=functional.binary_cross_entropy_with_logits)
    assert named(certain(patient)) == ["error labels_shifted"]
    (finding,) = certain(patient)
    healed = finding.change(patient.setup).loss(torch.full((4, 1), 3.0), torch.full((4, 1), high))
    assert healed.item() == pytest.approx(functional.softplus(torch.tensor(-3.0)).item())


class Accuracy:
    """A task that compares outputs with a border."""

    main_metric, higher_is_better, head_size = "accuracy", True, 1

    def __init__(self, border: float) -> None:
        self.border = border

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, targets)

    def check_targets(self, targets: Tensor) -> None:
        assert targets.ndim == 2

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Any:
        right = (outputs > self.border) == (targets > 0.5)
        return SimpleNamespace(metrics=lambda: {"accuracy": float(right.float().mean())})


def probable() -> nn.Module:
    return nn.Sequential(asker(), nn.Sigmoid())


BINARY = functional.binary_cross_entropy_with_logits


def test_an_accuracy_that_compares_logits_with_a_half_is_named(
    patient_for: Any, named: Any, digits: Any
) -> None:
    patient = patient_for(asker, even(digits), loss=BINARY, task=Accuracy(0.5))
    assert named(certain(patient)) == ["error metric_on_logits"]
    healed = next(certain(patient)).change(patient.setup)
    assert not list(certain(Patient(healed, seconds=2)))


def test_an_accuracy_that_compares_probabilities_with_zero_is_named(
    patient_for: Any, named: Any, digits: Any
) -> None:
    patient = patient_for(
        probable, even(digits), loss=functional.binary_cross_entropy, task=Accuracy(0.0)
    )
    assert named(certain(patient)) == ["error metric_on_logits"]
    healed = next(certain(patient)).change(patient.setup)
    assert not list(certain(Patient(healed, seconds=2)))


def test_an_accuracy_with_the_right_border_is_healthy(patient_for: Any, digits: Any) -> None:
    logits = patient_for(asker, even(digits), loss=BINARY, task=Accuracy(0.0))
    shares = patient_for(
        probable, even(digits), loss=functional.binary_cross_entropy, task=Accuracy(0.5)
    )
    assert not [*certain(logits), *certain(shares)]
