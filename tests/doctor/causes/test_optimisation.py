"""Tests of the optimisation faults that one step shows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR

from leadline.doctor.check import check


@pytest.fixture
def network(mlp: Any) -> nn.Module:
    """A healthy network."""
    built: nn.Module = mlp()
    return built


@pytest.mark.parametrize("rate", [1e-3, 0.01, 0.1])
def test_usual_rates_are_healthy(verdict: Any, network: Any, rows: Any, rate: float) -> None:
    plain = SGD(network.parameters(), lr=rate, momentum=0.9)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=plain) == []
    for kind in (Adam, AdamW):
        adaptive = kind(network.parameters(), lr=rate / 10)
        assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=adaptive) == []


@pytest.mark.parametrize(("kind", "rate"), [(SGD, 1e4), (Adam, 1.0), (Adam, 10.0), (AdamW, 1.0)])
def test_a_rate_that_throws_the_weights_off_is_too_high(
    verdict: Any, network: Any, rows: Any, kind: Any, rate: float
) -> None:
    optimizer = kind(network.parameters(), lr=rate)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == [
        "error lr_too_high"
    ]


def test_a_rate_that_makes_the_loss_infinite_is_too_high(verdict: Any, mlp: Any) -> None:
    network = mlp(outputs=1)
    batch = torch.randn(64, 20), torch.randn(64, 1)
    optimizer = SGD(network.parameters(), lr=1e25)
    assert verdict(network, batch, nn.MSELoss(), optimizer=optimizer) == ["error lr_too_high"]


def test_the_two_losses_of_a_step_are_those_of_the_step(network: Any, rows: Any) -> None:
    optimizer = SGD(network.parameters(), lr=1e4)
    finding = check(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer).findings[0]
    optimizer.zero_grad()
    nn.CrossEntropyLoss()(network(rows[0]), rows[1]).backward()
    optimizer.step()
    after = float(nn.CrossEntropyLoss()(network(rows[0]), rows[1]).detach())
    assert finding.evidence[1].measured == pytest.approx(after, rel=1e-4)


def test_a_rate_of_0_changes_nothing(verdict: Any, network: Any, rows: Any) -> None:
    optimizer = SGD(network.parameters(), lr=0.0)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == [
        "error lr_too_low"
    ]


@pytest.mark.parametrize("rate", [1e-10, 1e-8])
def test_a_step_near_the_resolution_of_float32_changes_nothing(
    verdict: Any, network: Any, rows: Any, rate: float
) -> None:
    optimizer = Adam(network.parameters(), lr=rate)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == [
        "warning lr_too_low"
    ]


def test_a_negative_rate_climbs(verdict: Any, network: Any, rows: Any) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = -0.1
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == [
        "error lr_negative"
    ]


def test_one_group_that_is_held_still_on_purpose_is_healthy(
    verdict: Any, network: Any, rows: Any
) -> None:
    groups = [
        {"params": list(network[0].parameters()), "lr": 0.0},
        {"params": list(network[2:].parameters())},
    ]
    optimizer = SGD(groups, lr=0.1)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == []


def test_an_optimizer_that_needs_a_closure_is_left_out(
    verdict: Any, network: Any, rows: Any
) -> None:
    optimizer = torch.optim.LBFGS(network.parameters())
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == []


def warm_up(step: int) -> float:
    """From 0 up to the rate itself."""
    return min(1.0, step / 100)


def test_a_warm_up_from_0_is_healthy(verdict: Any, network: Any, rows: Any) -> None:
    for optimizer in (SGD(network.parameters(), lr=0.1), Adam(network.parameters(), lr=1e-3)):
        LambdaLR(optimizer, warm_up)
        assert optimizer.param_groups[0]["lr"] == 0
        assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == []


def test_a_rate_that_is_too_high_shows_before_the_warm_up_reaches_it(
    verdict: Any, network: Any, rows: Any
) -> None:
    optimizer = Adam(network.parameters(), lr=10.0)
    LambdaLR(optimizer, warm_up)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == [
        "error lr_too_high"
    ]


def test_weights_that_grow_from_near_0_are_a_warning_unless_the_loss_rises(
    verdict: Any,
) -> None:
    network = nn.Linear(4, 1)
    with torch.no_grad():
        network.weight.mul_(1e-3)
    inputs = torch.randn(64, 4)
    batch = inputs, inputs @ torch.ones(4, 1)
    optimizer = SGD(network.parameters(), lr=0.1)
    assert verdict(network, batch, nn.MSELoss(), optimizer=optimizer) == ["warning lr_too_high"]


def test_one_matrix_of_two_that_grows_from_near_0_is_healthy(verdict: Any, rows: Any) -> None:
    network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
    with torch.no_grad():
        network[2].weight.mul_(1e-2)
    optimizer = SGD(network.parameters(), lr=0.1)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == []
