"""Tests of the numerical faults: NaN, the places where it waits, answers that do not repeat."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.check import check


class Through(nn.Module):
    """A network whose hidden numbers go through any function on their way."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 32), nn.Linear(32, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


def test_a_logarithm_of_negative_numbers_is_not_finite_and_its_place_is_named(
    verdict: Any, rows: Any
) -> None:
    assert verdict(Through(torch.log), rows, nn.CrossEntropyLoss()) == ["error nonfinite_value"]
    healthy = Through(lambda x: torch.log1p(functional.relu(x)))
    assert verdict(healthy, rows, nn.CrossEntropyLoss()) == []


def test_the_layer_with_a_weight_that_is_no_number_is_named(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp()
    with torch.no_grad():
        network[2].weight[3, 4] = math.nan
    assert verdict(network, rows, nn.CrossEntropyLoss()) == ["error nonfinite_value"]
    assert check(network, rows, nn.CrossEntropyLoss()).findings[0].layers == ("2",)


def test_a_loss_that_is_not_finite_by_itself_is_said_to_be_the_loss(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.log(outputs - 1e9).mean()

    assert verdict(mlp(), rows, loss) == ["error nonfinite_value"]
    finding = check(mlp(), rows, loss).findings[0]
    assert "the loss function" in finding.summary
    assert finding.layers == ()


ROOTS = {
    "a distance from itself": lambda x: functional.relu(x - ((x - x) ** 2).sum(1, True).sqrt()),
    "sqrt behind a where": lambda x: torch.where(x > 0, torch.sqrt(x), torch.zeros_like(x)),
    "a quotient behind a where": lambda x: torch.where(
        x > 0, (1 / (x * (x > 0))).clamp(max=1.0), torch.zeros_like(x)
    ),
    "a power of a half": lambda x: (x * (x > 0)) ** 0.5,
}


@pytest.mark.parametrize("kind", ROOTS)
def test_a_finite_loss_with_a_gradient_that_is_not_is_found(
    verdict: Any, rows: Any, kind: str
) -> None:
    network = Through(ROOTS[kind])
    assert math.isfinite(nn.CrossEntropyLoss()(network(rows[0]), rows[1]).item())
    found = verdict(network, rows, nn.CrossEntropyLoss())
    assert found[0] == "error gradient_of_sqrt_at_zero"


MENDED = {
    "a small number inside the root": lambda x: torch.sqrt(functional.relu(x) + 1e-6),
    "where inside the root": lambda x: torch.sqrt(torch.where(x > 0.01, x, torch.ones_like(x))),
    "a norm with a floor": lambda x: x / x.norm(dim=1, keepdim=True).clamp(min=1e-6),
}


@pytest.mark.parametrize("kind", MENDED)
def test_the_mended_root_gives_nothing(verdict: Any, rows: Any, kind: str) -> None:
    assert verdict(Through(MENDED[kind]), rows, nn.CrossEntropyLoss()) == []


def test_a_root_mean_square_loss_has_no_gradient_where_it_is_perfect(
    verdict: Any, mlp: Any
) -> None:
    inputs = torch.randn(64, 20)
    batch = inputs, inputs[:, :1]

    def root(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.sqrt(functional.mse_loss(outputs, targets))

    def safe(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.sqrt(functional.mse_loss(outputs, targets) + 1e-12)

    assert verdict(mlp(outputs=1), batch, root) == ["warning gradient_of_sqrt_at_zero"]
    assert verdict(mlp(outputs=1), batch, safe) == []


def test_a_network_that_divides_by_the_norm_of_its_input_fails_on_zeros(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    class Unit(nn.Module):
        def __init__(self, floor: float) -> None:
            super().__init__()
            self.network, self.floor = mlp(), floor

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x * 4 / (x.norm(dim=1, keepdim=True) + self.floor))

    assert verdict(Unit(0.0), rows, nn.CrossEntropyLoss()) == ["warning gradient_of_sqrt_at_zero"]
    assert verdict(Unit(1e-6), rows, nn.CrossEntropyLoss()) == []


def test_a_loss_that_takes_the_logarithm_of_a_softmax_overflows(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    def unstable(outputs: Tensor, targets: Tensor) -> Tensor:
        e = outputs.exp()
        return -(e / e.sum(dim=1, keepdim=True)).log().gather(1, targets[:, None]).mean()

    assert verdict(mlp(), rows, unstable) == ["warning loss_numerically_unstable"]
    assert verdict(mlp(), rows, nn.CrossEntropyLoss()) == []


def test_a_binary_loss_that_takes_the_logarithm_of_a_sigmoid_overflows(
    verdict: Any, mlp: Any
) -> None:
    batch = torch.randn(64, 20), (torch.rand(64, 1) > 0.4).float()

    def unstable(outputs: Tensor, targets: Tensor) -> Tensor:
        p = torch.sigmoid(outputs)
        return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()

    def probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
        return -(targets * outputs.log() + (1 - targets) * (1 - outputs).log()).mean()

    assert verdict(mlp(outputs=1), batch, unstable) == ["warning loss_numerically_unstable"]
    assert verdict(mlp(outputs=1), batch, nn.BCEWithLogitsLoss()) == []
    squashed = nn.Sequential(mlp(outputs=1), nn.Sigmoid())
    assert verdict(squashed, batch, probabilities) == ["warning loss_numerically_unstable"]
    assert verdict(squashed, batch, nn.BCELoss()) == []


def test_a_network_with_a_counter_gives_another_answer_each_time(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.count = mlp(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return self.network(x) + 0.01 * self.count

    assert verdict(Counting(), rows, nn.CrossEntropyLoss()) == ["warning nondeterministic"]
    assert verdict(mlp(), rows, nn.CrossEntropyLoss()) == []
