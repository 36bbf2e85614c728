"""Tests of suspicions about widths and depths, and of the trials that decide."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.causes.suspected.architecture import certain, chains_of, suspicions
from leadline.doctor.comparison import better, hurries


def helped(patient: Any, cause: str) -> bool:
    """Whether the trial of the suspicion of this cause shows that it is right."""
    (finding,) = (f for f in suspicions(patient) if f.cause == cause)
    return better(patient.arm(finding.change), patient.arm())


def test_two_hidden_units_for_ten_classes_are_too_few(
    patient_for: Any, named: Any, mlp: Any, digits: Any
) -> None:
    patient = patient_for(lambda: mlp(64, 10, depth=2, width=2), digits)
    assert named(suspicions(patient)) == ["note capacity_too_small"]
    assert helped(patient, "capacity_too_small")


def test_one_narrow_layer_among_wide_ones_is_found(patient_for: Any, digits: Any) -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.ReLU()),
            *(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 10)),
        )

    (finding,) = suspicions(patient_for(build, digits))
    assert finding.layers == ("2",)


def test_narrow_convolutions_are_widened_with_their_norms(patient_for: Any, digits: Any) -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)),
            *(nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(48, 10)),
        )

    patient = patient_for(build, digits)
    (finding,) = suspicions(patient)
    healed = finding.change(patient.setup).model()
    assert (healed[1].out_channels, healed[2].num_features, healed[8].in_features) == (32, 32, 512)
    assert helped(patient, "capacity_too_small")


def test_a_narrow_recurrent_network_is_widened(patient_for: Any) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRU(8, 2, batch_first=True), nn.Linear(2, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x)[0].mean(1))

    series = torch.randn(512, 5, 8)
    patient = patient_for(Counter, (series, series[:, -1].argmax(1)), epochs=20)
    (finding,) = suspicions(patient)
    assert finding.cause == "capacity_too_small" and finding.layers == ("cell",)
    assert helped(patient, "capacity_too_small")


def test_the_bottleneck_of_an_autoencoder_is_meant(patient_for: Any, digits: Any) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 3), nn.Tanh(), nn.Linear(3, 64))

    patient = patient_for(build, (digits[0], digits[0]), loss=functional.mse_loss)
    assert not list(suspicions(patient))


def test_a_narrow_layer_that_something_joins_is_said_not_to_be_rebuilt(
    patient_for: Any, digits: Any
) -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(64, 4), nn.Linear(4, 10)
            self.gains = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x).relu() * self.gains)

    patient = patient_for(Joined, digits)
    assert not list(suspicions(patient))
    assert any("cannot be rebuilt" in limit for limit in patient.limits)


def test_a_single_linear_layer_cannot_learn_xor(patient_for: Any, named: Any) -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).repeat(64, 1)
    wanted = (corners.sum(1, keepdim=True) == 1).float()
    patient = patient_for(
        lambda: nn.Linear(2, 1),
        (corners, wanted),
        loss=functional.binary_cross_entropy_with_logits,
        epochs=40,
    )
    assert named(suspicions(patient)) == ["note layer_missing"]
    assert helped(patient, "layer_missing")


def test_a_single_linear_layer_that_suits_the_digits_is_ruled_out(
    patient_for: Any, digits: Any
) -> None:
    patient = patient_for(lambda: nn.Linear(64, 10), digits, epochs=8)
    (finding,) = suspicions(patient)
    assert not hurries(patient.arm(finding.change), patient.arm())


def test_more_equal_layers_than_the_gradient_bears_are_found(
    patient_for: Any, mlp: Any, digits: Any
) -> None:
    patient = patient_for(lambda: mlp(64, 10, depth=16), digits, lr=1e-3, epochs=4)
    assert [f.cause for f in suspicions(patient)] == ["layer_extra", "norm_missing"]
    assert helped(patient, "layer_extra")


def test_deep_networks_with_norms_are_not_suspected(patient_for: Any, digits: Any) -> None:
    def build() -> nn.Module:
        middle = [(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()) for _ in range(10)]
        return nn.Sequential(*(m for part in middle for m in part), nn.Linear(64, 10))

    assert not list(suspicions(patient_for(build, digits)))


@pytest.mark.parametrize(("part", "found"), [("conv", ["norm_missing"]), ("dense", [])])
def test_of_residual_networks_those_of_convolutions_are_suspected_without_norms(
    patient_for: Any, digits: Any, part: str, found: list[str]
) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            square = nn.Conv2d(1, 1, 3, padding=1) if part == "conv" else nn.Linear(8, 8)
            self.blocks = nn.ModuleList(copy.deepcopy(square) for _ in range(8))
            self.relu, self.head = nn.ReLU(), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = x.unflatten(1, (1, 8, 8))
            for block in self.blocks:
                x = x + self.relu(block(x))
            return self.head(x.flatten(1))

    assert [f.cause for f in suspicions(patient_for(Residual, digits))] == found


def test_residual_and_attention_networks_are_not_suspected(
    patient_for: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    assert not list(suspicions(patient_for(gpt, text, loss=language_loss)))


def test_convolutions_over_what_pooling_left_of_a_picture_are_found(
    patient_for: Any, digits: Any
) -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Unflatten(1, (1, 8, 8)), nn.MaxPool2d(4), nn.Conv2d(1, 8, 3, padding=1)),
            *(nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(16, 10)),
        )

    patient = patient_for(build, digits)
    found = {f.cause: f for f in suspicions(patient)}
    assert set(found) == {"layer_extra"}
    healed = found["layer_extra"].change(patient.setup).model()
    assert healed(digits[0][:3]).shape == (3, 10)


def test_pooling_ahead_of_the_first_weights_is_found_and_left_out(
    patient_for: Any, digits: Any
) -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Unflatten(1, (1, 8, 8)), nn.AdaptiveAvgPool2d(1), nn.Upsample(size=8)),
            *(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)),
        )

    patient = patient_for(build, digits)
    (finding,) = suspicions(patient)
    assert (finding.cause, finding.layers) == ("layer_extra", ("1",))
    assert helped(patient, "layer_extra")


def test_pooling_to_one_pixel_at_the_end_is_healthy(patient_for: Any, conv_net: Any) -> None:
    images = torch.randn(64, 3, 16, 16), torch.arange(64) % 10
    patient = patient_for(conv_net, images)
    assert not [*certain(patient), *suspicions(patient)]


@pytest.mark.parametrize("kind", [nn.ReLU, nn.Tanh])
def test_an_activation_twice_in_a_row_is_noted(
    patient_for: Any, named: Any, digits: Any, kind: type[nn.Module]
) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 32), kind(), kind(), nn.Linear(32, 10))

    patient = patient_for(build, digits)
    assert named(certain(patient)) == ["note activation_extra"]
    (finding,) = certain(patient)
    assert isinstance(finding.change(patient.setup).model()[2], nn.Identity)


def test_activations_with_a_layer_between_them_are_healthy(
    patient_for: Any, mlp: Any, digits: Any
) -> None:
    assert not list(certain(patient_for(lambda: mlp(64, 10), digits)))


def test_chains_name_what_a_layer_is_read_by(patient_for: Any, conv_net: Any) -> None:
    images = torch.randn(64, 3, 16, 16), torch.arange(64) % 10
    first, second = chains_of(patient_for(conv_net, images))
    assert (first.layer, first.norms, first.reader, first.units) == ("0", ("1",), "4", 16)
    assert (second.layer, second.reader, second.units) == ("4", "9", 32)
