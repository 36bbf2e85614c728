"""Tests of the update-to-weight ratio against a step that is really taken."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.gradients.updates import update_ratio
from leadline.optim.optimizers import OptimizerOptions, make_optimizer

BATCH = (
    torch.randn(8, 4, generator=torch.Generator().manual_seed(1)),
    torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]),
)

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd with momentum": lambda model: torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01),
    "fused adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, fused=True),
    "muon and adamw": lambda model: make_optimizer(
        model, OptimizerOptions(optimizer="muon", lr=0.02)
    ),
    "two groups": lambda model: torch.optim.RMSprop(
        [
            {"params": list(model.parameters())[:2], "lr": 0.1},
            {"params": list(model.parameters())[2:], "lr": 0.001},
        ]
    ),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def backward(model: nn.Module) -> None:
    model.zero_grad()
    functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()


def trained(name: str) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """A model and its optimizer after three steps, so that there is a state to spoil."""
    model = network()
    optimizer = OPTIMIZERS[name](model)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    for _ in range(3):
        backward(model)
        optimizer.step()
        schedule.step()
    return model, optimizer


def tensors(state: Any) -> list[Tensor]:
    return [t for entry in state["state"].values() for t in entry.values() if torch.is_tensor(t)]


@pytest.mark.parametrize("from_batch", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_ratio_is_that_of_the_step_taken_next(name: str, from_batch: bool) -> None:
    model, optimizer = trained(name)
    backward(model)
    if from_batch:
        profile = update_ratio(model, BATCH, optimizer=optimizer, loss=functional.cross_entropy)
    else:
        profile = update_ratio(model, optimizer=optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    for (parameter, entry), old in zip(model.named_parameters(), before, strict=True):
        row = profile.at(parameter)
        update = float((entry.detach() - old).norm())
        assert row["update_norm"] == pytest.approx(update, rel=1e-4)
        assert row["weight_norm"] == pytest.approx(float(old.norm()), rel=1e-5)
        assert row["ratio"] == pytest.approx(update / float(old.norm()), rel=1e-4)
        assert row["in_optimizer"] == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_gradients_and_the_optimizer_are_bit_for_bit_as_before(name: str) -> None:
    model, optimizer = trained(name)
    backward(model)
    weights = [p.detach().clone() for p in model.parameters()]
    gradients = [(p.grad, copy.deepcopy(p.grad)) for p in model.parameters()]
    state = copy.deepcopy(optimizer.state_dict())
    random = torch.get_rng_state()
    update_ratio(model, BATCH, optimizer=optimizer, loss=functional.cross_entropy)
    update_ratio(model, optimizer=optimizer)
    assert torch.equal(torch.get_rng_state(), random)
    for parameter, weight, (gradient, values) in zip(
        model.parameters(), weights, gradients, strict=True
    ):
        assert torch.equal(parameter, weight)
        assert parameter.grad is gradient
        assert gradient is not None and values is not None and torch.equal(gradient, values)
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    pairs = list(zip(tensors(after), tensors(state), strict=True))
    assert all(torch.equal(new, old) for new, old in pairs)
    assert pairs


def test_a_parameter_that_the_optimizer_does_not_know_is_marked() -> None:
    model = network()
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
    profile = update_ratio(model, BATCH, optimizer=optimizer, loss=functional.cross_entropy)
    assert profile.column("in_optimizer") == (0, 0, 0, 0, 1, 1)
    assert math.isnan(profile.at("0.weight")["ratio"])
    assert profile.at("4.weight")["ratio"] > 0


def test_a_weight_at_zero_has_an_infinite_ratio() -> None:
    model = network()
    nn.init.zeros_(model[4].weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    profile = update_ratio(model, BATCH, optimizer=optimizer, loss=functional.cross_entropy)
    assert profile.at("4.weight")["ratio"] == math.inf


def test_what_cannot_be_measured_is_said() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(MeasurementError, match=r"between loss\.backward\(\) and optimizer"):
        update_ratio(model, optimizer=optimizer)
    stranger = torch.optim.SGD(network().parameters(), lr=0.1)
    with pytest.raises(MeasurementError, match="SGD, which has none of them"):
        update_ratio(model, BATCH, optimizer=stranger, loss=functional.cross_entropy)
    newton = torch.optim.LBFGS(model.parameters())
    with pytest.raises(MeasurementError, match=r"closure[\s\S]*from LBFGS"):
        update_ratio(model, BATCH, optimizer=newton, loss=functional.cross_entropy)


def test_a_loss_that_is_not_finite_is_said() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(MeasurementError, match="a finite loss"):
        update_ratio(model, BATCH, optimizer=optimizer, loss=lambda o, t: o.sum() * math.nan)
