"""Tests of the activation faults: each is found, and its mended twin gives nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.check import check


def test_a_softmax_before_cross_entropy_is_a_double_softmax(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network, loss = mlp(), nn.CrossEntropyLoss()
    double = nn.Sequential(network, nn.Softmax(dim=1))
    assert verdict(double, rows, loss) == ["error double_softmax"]
    assert verdict(network, rows, loss) == []


def test_the_lowest_loss_that_a_double_softmax_reaches_is_the_one_told(mlp: Any, rows: Any) -> None:
    finding = check(nn.Sequential(mlp(), nn.Softmax(dim=1)), rows, nn.CrossEntropyLoss()).findings[
        0
    ]
    best = functional.cross_entropy(torch.eye(5), torch.arange(5)).item()  # certain and right
    assert finding.evidence[1].measured == pytest.approx(best, rel=1e-6)


def test_a_softmax_after_a_convolutional_net_is_found_with_smoothing_and_soft_targets(
    verdict: Any, conv_net: Any, images: Any
) -> None:
    inputs, labels = images
    soft = functional.one_hot(labels, 10).float() * 0.8 + 0.02
    double = conv_net(nn.Softmax(dim=1))
    assert verdict(double, images, nn.CrossEntropyLoss(label_smoothing=0.1)) == [
        "error double_softmax"
    ]
    assert verdict(double, (inputs, soft), nn.CrossEntropyLoss()) == ["error double_softmax"]
    assert verdict(double[:-1], (inputs, soft), nn.CrossEntropyLoss()) == []


def test_a_softmax_over_the_classes_of_every_pixel_is_found(verdict: Any) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1)
    )
    batch = torch.randn(4, 3, 8, 8), torch.randint(0, 4, (4, 8, 8))
    loss = nn.CrossEntropyLoss()
    assert verdict(nn.Sequential(network, nn.Softmax(dim=1)), batch, loss) == [
        "error double_softmax"
    ]
    assert verdict(network, batch, loss) == []


def test_a_softmax_at_the_end_of_a_language_model_is_found(
    verdict: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    network = gpt()
    double = nn.Sequential(network, nn.Softmax(dim=-1))
    assert verdict(double, text, language_loss) == ["error double_softmax"]
    assert verdict(network, text, language_loss) == []


@pytest.mark.parametrize("loss", [functional.cross_entropy, nn.CrossEntropyLoss(reduction="sum")])
def test_a_softmax_inside_the_loss_is_a_double_softmax(
    verdict: Any, mlp: Any, rows: Any, loss: Any
) -> None:
    told = verdict(mlp(), rows, lambda outputs, y: loss(functional.softmax(outputs, dim=1), y))
    assert told[0] == "error double_softmax"


def test_a_softmax_inside_the_loss_of_a_language_model_is_found(
    verdict: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    def twice(outputs: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = language_loss(outputs.softmax(dim=-1), targets)
        return value

    assert verdict(gpt(), text, twice) == ["error double_softmax"]


def test_logits_that_lie_between_0_and_1_by_chance_are_not_probabilities(verdict: Any) -> None:
    network = nn.Linear(20, 5)
    with torch.no_grad():
        network.weight.mul_(0.01)
        network.bias.fill_(0.5)
    batch = torch.randn(64, 20), torch.arange(64) % 5
    assert verdict(network, batch, nn.CrossEntropyLoss()) == []


def test_a_sigmoid_before_cross_entropy_is_one_activation_too_many(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp()
    squashed = nn.Sequential(network, nn.Sigmoid())
    assert verdict(squashed, rows, nn.CrossEntropyLoss()) == ["error activation_extra"]
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []


@pytest.mark.parametrize("weight", [None, 3.0])
def test_a_sigmoid_before_the_binary_loss_of_logits_is_one_too_many(
    verdict: Any, mlp: Any, weight: float | None
) -> None:
    network = mlp(outputs=6)
    batch = torch.randn(64, 20), (torch.rand(64, 6) > 0.5).float()
    positive = None if weight is None else torch.full((6,), weight)
    loss = nn.BCEWithLogitsLoss(pos_weight=positive)
    squashed = nn.Sequential(network, nn.Sigmoid())
    assert verdict(squashed, batch, loss) == ["error activation_extra"]
    assert verdict(network, batch, loss) == []


def test_a_sigmoid_before_the_binary_loss_of_pixels_is_one_too_many(verdict: Any) -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    batch = torch.randn(4, 1, 8, 8), (torch.rand(4, 1, 8, 8) > 0.8).float()
    loss = nn.BCEWithLogitsLoss()
    squashed = nn.Sequential(network, nn.Sigmoid())
    assert verdict(squashed, batch, loss) == ["error activation_extra"]
    assert verdict(network, batch, loss) == []
    assert verdict(squashed, batch, nn.BCELoss()) == [], "there the sigmoid belongs"


@pytest.mark.parametrize("rectifier", [nn.ReLU, nn.ReLU6])
def test_a_rectifier_at_the_end_cuts_the_logits(
    verdict: Any, mlp: Any, rows: Any, rectifier: type[nn.Module]
) -> None:
    network = mlp()
    cut = nn.Sequential(network, rectifier())
    assert verdict(cut, rows, nn.CrossEntropyLoss()) == ["error output_activation_wrong"]
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []


def test_logits_in_the_loss_of_log_probabilities_lack_their_activation(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network, loss = mlp(), nn.NLLLoss()
    assert verdict(network, rows, loss) == ["error output_activation_wrong"]
    assert verdict(nn.Sequential(network, nn.LogSoftmax(dim=1)), rows, loss) == []


def test_probabilities_in_the_loss_of_log_probabilities_are_none(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network, loss = nn.Sequential(mlp(), nn.Softmax(dim=1)), nn.NLLLoss()
    assert verdict(network, rows, loss) == ["error output_activation_wrong"]


def test_logits_in_a_loss_that_takes_the_logarithm_lack_their_softmax(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.nll_loss(torch.log(outputs.clamp(min=1e-8)), targets)

    network = mlp()
    assert verdict(network, rows, loss)[:1] == ["error output_activation_wrong"]
    assert verdict(nn.Sequential(network, nn.Softmax(dim=1)), rows, loss) == []


def kill(layer: nn.Linear, *, share: float = 1.0) -> None:
    """Give a layer biases that no input outweighs."""
    with torch.no_grad():
        layer.bias[: round(share * len(layer.bias))] = -100.0


@pytest.mark.parametrize("inplace", [False, True])
def test_a_rectifier_that_is_0_for_every_example_is_dead(
    verdict: Any, mlp: Any, rows: Any, inplace: bool
) -> None:
    network = mlp(activation=lambda: nn.ReLU(inplace=inplace))
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []
    kill(network[2])
    assert verdict(network, rows, nn.CrossEntropyLoss())[:1] == ["error hidden_activation_wrong"]
    finding = check(network, rows, nn.CrossEntropyLoss()).findings[0]
    assert finding.layers == ("3",)
    assert finding.evidence[0].measured == 1.0


def test_a_rectifier_with_most_of_its_units_dead_is_a_warning(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp(width=100)
    kill(network[0], share=0.95)
    assert verdict(network, rows, nn.CrossEntropyLoss()) == ["warning hidden_activation_wrong"]


def test_a_rectifier_with_half_of_its_units_silent_is_healthy(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp(width=100)
    kill(network[0], share=0.5)
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []


def test_dead_channels_behind_a_convolution_are_found_in_a_functional_relu_too(
    verdict: Any,
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
            self.last = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.second(functional.relu(self.first(x))))
            return self.last(x.mean(dim=(2, 3)))

    network = Net()
    batch = torch.randn(8, 3, 10, 10), torch.arange(8)
    assert verdict(network, batch, nn.CrossEntropyLoss()) == []
    with torch.no_grad():
        network.first.bias.fill_(-50)
    assert verdict(network, batch, nn.CrossEntropyLoss())[:1] == ["error hidden_activation_wrong"]
    assert check(network, batch, nn.CrossEntropyLoss()).findings[0].layers[0] == "relu"


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid])
def test_units_at_the_ends_of_their_range_are_saturated(
    verdict: Any, mlp: Any, rows: Any, activation: type[nn.Module]
) -> None:
    network = mlp(activation=activation)
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []
    with torch.no_grad():
        network[0].weight.mul_(200)
    assert verdict(network, rows, nn.CrossEntropyLoss()) == ["warning hidden_activation_wrong"]
    assert check(network, rows, nn.CrossEntropyLoss()).findings[0].layers == ("1",)


def test_a_gate_that_is_saturated_at_the_output_of_a_classifier_is_not_a_hidden_one(
    verdict: Any, mlp: Any
) -> None:
    network = nn.Sequential(mlp(outputs=1), nn.Sigmoid())
    with torch.no_grad():
        network[0][-1].bias.fill_(-4.5)
    batch = torch.randn(256, 20), (torch.arange(256) % 90 == 0).float()[:, None]
    assert verdict(network, batch, nn.BCELoss()) == []


def test_layers_without_a_nonlinearity_between_them_are_one_layer(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    assert verdict(mlp(activation=nn.Identity), rows, nn.CrossEntropyLoss()) == [
        "warning activation_missing"
    ]
    assert verdict(mlp(activation=nn.GELU), rows, nn.CrossEntropyLoss()) == []


def test_a_deep_sigmoid_network_loses_its_gradient(verdict: Any, mlp: Any, rows: Any) -> None:
    loss = nn.CrossEntropyLoss()
    assert verdict(mlp(depth=9, activation=nn.Sigmoid), rows, loss) == [
        "warning hidden_activation_wrong"
    ]
    assert verdict(mlp(depth=16, activation=nn.Sigmoid), rows, loss) == [
        "error hidden_activation_wrong"
    ]
    assert verdict(mlp(depth=5, activation=nn.ReLU), rows, loss) == []


def test_the_floor_of_a_double_softmax_is_that_of_the_formula() -> None:
    """ln(1 + (C - 1)/e), the cross entropy of a certain, right answer."""
    certain = functional.cross_entropy(torch.eye(10), torch.arange(10)).item()
    assert certain == pytest.approx(math.log(1 + 9 / math.e), rel=1e-6)


class Squeezed(nn.Module):
    """A network with a nonlinearity and a squeeze at its end, both functions."""

    def __init__(self, network: nn.Module, end: Any) -> None:
        super().__init__()
        self.network, self.end = network, end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.network(x)).squeeze(-1)


def test_a_sigmoid_and_a_squeeze_before_a_loss_of_logits_are_found(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    inputs, labels = rows
    batch, loss = (inputs, (labels > 2).float()), nn.BCEWithLogitsLoss()
    network = mlp(outputs=1)
    assert verdict(Squeezed(network, torch.sigmoid), batch, loss) == ["error activation_extra"]
    assert verdict(Squeezed(network, lambda x: x), batch, loss) == []


@pytest.mark.parametrize("training", [True, False])
def test_a_rectifier_and_a_dropout_before_cross_entropy_are_found(
    verdict: Any, mlp: Any, rows: Any, training: bool
) -> None:
    network = nn.Sequential(mlp(), nn.ReLU(), nn.Dropout(0.1)).train(training)
    assert "error output_activation_wrong" in verdict(network, rows, nn.CrossEntropyLoss())
    hidden = mlp()
    assert "error output_activation_wrong" not in verdict(hidden, rows, nn.CrossEntropyLoss())


@pytest.mark.parametrize("end", [torch.relu, torch.sigmoid, torch.tanh])
@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss()])
def test_a_regression_cannot_leave_the_range_of_its_last_activation(
    verdict: Any, mlp: Any, rows: Any, end: Any, loss: nn.Module
) -> None:
    inputs, _ = rows
    targets = 2 * inputs[:, 0]
    network = mlp(outputs=1)
    bounded = Squeezed(network, end)
    assert verdict(bounded, (inputs, targets), loss) == ["error output_activation_wrong"]
    finding = check(bounded, (inputs, targets), loss).findings[0]
    assert finding.evidence[1].measured == f"{targets.min():.3g} to {targets.max():.3g}"
    free = Squeezed(network, lambda x: x)
    assert verdict(free, (inputs, targets), loss) == []
    assert verdict(bounded, (inputs, targets.sigmoid()), loss) == [], "targets within the range"
