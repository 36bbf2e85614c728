"""Tests of the first step: what it says is what a real one does, and nothing of it remains."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from leadline.core.errors import MeasurementError
from leadline.doctor.first_step import FirstStep, first_step
from leadline.measure.batch import Batch, read_batch

LOSS = nn.CrossEntropyLoss()


def take(network: nn.Module, batch: Batch, optimizer: Optimizer) -> FirstStep:
    loss = LOSS(network(*batch.args), batch.targets)
    named = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()))
    return first_step(
        network,
        batch,
        loss=LOSS,
        optimizer=optimizer,
        gradients=dict(zip(named, gradients, strict=True)),
        before=loss.item(),
    )


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, lr=1e-2),
    "adam, all at once": lambda p: Adam(p, lr=1e-2, foreach=True),
    "adamw, fused": lambda p: AdamW(p, lr=1e-2, weight_decay=0.1, fused=True),
    "adam, amsgrad": lambda p: Adam(p, lr=1e-2, amsgrad=True),
    "rmsprop": lambda p: RMSprop(p, lr=1e-3, centered=True),
    "adagrad": lambda p: Adagrad(p, lr=1e-2),  # has its state from the start
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("begun", [False, True])
def test_the_step_is_the_one_that_a_training_takes_and_all_is_put_back(
    mlp: Any, rows: Any, left_as_found: Any, kind: str, begun: bool
) -> None:
    network, batch = mlp(), read_batch(rows)
    optimizer = OPTIMIZERS[kind](network.parameters())
    if begun:
        LOSS(network(rows[0]), rows[1]).backward()
        optimizer.step()
    twin, twins = copy.deepcopy((network, optimizer))
    unchanged = left_as_found(network, optimizer)
    step = take(network, batch, optimizer)
    unchanged()
    twins.zero_grad()
    loss = LOSS(twin(rows[0]), rows[1])
    loss.backward()
    twins.step()
    assert step.before == pytest.approx(loss.item(), rel=1e-6)
    assert step.after == pytest.approx(LOSS(twin(rows[0]), rows[1]).item(), rel=1e-5)
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2:
            assert name not in step.ratios
            continue
        change = (dict(twin.named_parameters())[name] - parameter).norm() / parameter.norm()
        assert step.ratios[name] == pytest.approx(change.item(), rel=1e-3)


def test_the_typical_ratio_is_the_median() -> None:
    ratios = {"a": 3.0, "b": 1.0, "c": 2.0}
    assert FirstStep(before=1, after=1, ratios=ratios).typical == 2.0
    assert math.isnan(FirstStep(before=1, after=1, ratios={}).typical)


def test_of_two_ratios_the_lower_is_typical() -> None:
    assert FirstStep(before=1, after=1, ratios={"a": 3.0, "b": 1e-3}).typical == 1e-3


def test_a_step_during_the_warm_up_is_taken_at_the_rate_it_leads_to(mlp: Any, rows: Any) -> None:
    network, batch = mlp(), read_batch(rows)
    plain = take(network, batch, SGD(network.parameters(), lr=0.1))
    warm = SGD(network.parameters(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(warm, lambda step: step / 100)
    assert warm.param_groups[0]["lr"] == 0
    step = take(network, batch, warm)
    assert step.rate == plain.rate == 0.1
    assert step.ratios == plain.ratios
    assert warm.param_groups[0]["lr"] == 0


def test_a_rate_that_a_schedule_has_lowered_is_taken_as_it_is(mlp: Any, rows: Any) -> None:
    network, batch = mlp(), read_batch(rows)
    optimizer = Adam(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.01)
    LOSS(network(rows[0]), rows[1]).backward()
    optimizer.step()
    schedule.step()
    assert take(network, batch, optimizer).rate == pytest.approx(1e-3)


def test_a_graph_that_waits_for_its_backward_pass_stays_valid(mlp: Any, rows: Any) -> None:
    network = mlp()
    named = dict(network.named_parameters())
    loss = LOSS(network(rows[0]), rows[1])
    expected = torch.autograd.grad(loss, list(named.values()), retain_graph=True)
    versions = [p._version for p in named.values()]
    take(network, read_batch(rows), Adam(network.parameters(), lr=0.1))
    assert [p._version for p in named.values()] == versions
    found = torch.autograd.grad(loss, list(named.values()))
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def test_hooks_and_the_counter_of_a_schedule_stay_out_of_it(mlp: Any, rows: Any) -> None:
    network, heard = mlp(), []
    optimizer = SGD(network.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *args: heard.append("before"))
    optimizer.register_step_post_hook(lambda *args: heard.append("after"))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    take(network, read_batch(rows), optimizer)
    assert heard == []
    assert not getattr(
        optimizer, "_opt_called", False
    )  # else the scheduler believes that the training has begun
    assert schedule.last_epoch == 0


def test_an_optimizer_of_ones_own_takes_its_own_step(mlp: Any, rows: Any) -> None:
    class Signs(Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": 0.001})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["lr"] * p.grad.sign()

    network = mlp()
    step = take(network, read_batch(rows), Signs(network.parameters()))
    assert step.after < step.before
    weight = network[0].weight
    expected = 0.001 * math.sqrt(weight.numel()) / float(weight.detach().norm())
    assert step.ratios["0.weight"] == pytest.approx(expected, rel=0.05)


def test_a_step_that_fails_is_put_back_too(mlp: Any, rows: Any, left_as_found: Any) -> None:
    class Breaks(SGD):
        def step(self, closure: Any = None) -> None:
            with torch.no_grad():
                self.param_groups[0]["params"][0].zero_()
                self.param_groups[0]["lr"] = 7.0
            raise RuntimeError("half a step")

    network = mlp()
    optimizer = Breaks(network.parameters(), lr=0.1)
    unchanged = left_as_found(network, optimizer)
    with pytest.raises(MeasurementError, match="half a step"):
        take(network, read_batch(rows), optimizer)
    unchanged()


def test_parameters_of_another_model_in_the_optimizer_do_not_move(mlp: Any, rows: Any) -> None:
    network, other = mlp(), mlp()
    before = [p.detach().clone() for p in other.parameters()]
    other[0].weight.grad = torch.ones_like(other[0].weight)
    kept = other[0].weight.grad
    step = take(network, read_batch(rows), SGD(other.parameters(), lr=0.1))
    assert step.after == pytest.approx(step.before)
    assert step.ratios == {}
    assert all(torch.equal(p, b) for p, b in zip(other.parameters(), before, strict=True))
    assert other[0].weight.grad is kept
    assert isinstance(kept, Tensor) and bool((kept == 1).all())
