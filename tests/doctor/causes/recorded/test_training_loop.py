"""Tests that the faults of clearing, stepping and scaling gradients are proven and told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from leadline.doctor.causes.recorded.signs import signs_of_tape
from leadline.doctor.causes.recorded.training_loop import signs
from leadline.doctor.record import record

Network = Callable[..., nn.Sequential]
Loader = DataLoader[Any]
Proven = Callable[[Callable[[], object], str], None]
Verdict = Callable[[Callable[[], object]], list[str]]


def loop(network: Network, loader: Loader, turn: Callable[..., None], *, lr: float = 0.1) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for inputs, targets in loader:
        turn(model, optimizer, inputs, targets)


def test_a_missing_zero_grad_is_proven(network: Network, loader: Loader, proven: Proven) -> None:
    def turn(model: nn.Module, optimizer: Any, inputs: Any, targets: Any) -> None:
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    proven(lambda: loop(network, loader, turn), "zero_grad_missing")


def test_a_zero_grad_once_per_epoch_is_a_missing_one(
    network: Network, loader: Loader, proven: Proven
) -> None:
    def train() -> None:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            for inputs, targets in loader:
                functional.cross_entropy(model(inputs), targets).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()

    proven(train, "zero_grad_missing")


def test_a_high_learning_rate_is_no_missing_zero_grad(
    network: Network, loader: Loader, verdict: Verdict
) -> None:
    def turn(model: nn.Module, optimizer: Any, inputs: Any, targets: Any) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    assert verdict(lambda: loop(network, loader, turn, lr=30.0)) == []


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_zero_grad_between_backward_and_step_is_proven(
    network: Network, loader: Loader, proven: Proven, set_to_none: bool
) -> None:
    def turn(model: nn.Module, optimizer: Any, inputs: Any, targets: Any) -> None:
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.zero_grad(set_to_none=set_to_none)
        optimizer.step()

    proven(lambda: loop(network, loader, turn), "zero_grad_misplaced")


def test_a_missing_step_is_proven(network: Network, loader: Loader, proven: Proven) -> None:
    def turn(model: nn.Module, optimizer: Any, inputs: Any, targets: Any) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()

    proven(lambda: loop(network, loader, turn), "optimizer_step_missing")


def test_a_schedule_that_steps_in_the_place_of_the_optimizer_is_a_missing_step(
    network: Network, loader: Loader
) -> None:
    def train() -> None:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            schedule.step()

    with pytest.warns(UserWarning, match="before"), record() as tape:
        train()
    (finding,) = [f for f in signs_of_tape(tape) if f.severity != "note"]
    assert finding.cause == "optimizer_step_missing"
    assert "the schedule's step() does not update" in finding.summary


def test_a_step_outside_of_the_loop_over_batches_is_a_missing_one(
    network: Network, loader: Loader, proven: Proven
) -> None:
    def train() -> None:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            for inputs, targets in loader:
                optimizer.zero_grad()
                functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

    with record() as tape:
        train()
    (finding,) = [f for f in signs_of_tape(tape) if f.severity != "note"]
    assert (finding.cause, finding.proven) == ("optimizer_step_missing", True)
    assert finding.evidence[0].measured == 48
    assert finding.change is not None and finding.change.rerun is not None
    with record() as healed, finding.change.rerun():
        train()
    assert healed.updates == 51


def test_a_flipped_sign_is_proven(network: Network, loader: Loader, proven: Proven) -> None:
    def turn(model: nn.Module, optimizer: Any, inputs: Any, targets: Any) -> None:
        optimizer.zero_grad()
        (-functional.cross_entropy(model(inputs), targets)).backward()
        optimizer.step()

    with record() as tape:
        loop(network, loader, turn)
    (finding,) = [f for f in signs_of_tape(tape) if f.severity != "note"]
    assert (finding.cause, finding.proven) == ("gradient_sign_flipped", True)


def test_batches_that_are_added_without_being_averaged_are_proven(
    network: Network, loader: Loader, proven: Proven
) -> None:
    def train() -> None:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for number, (inputs, targets) in enumerate(loader, start=1):
            functional.cross_entropy(model(inputs), targets).backward()
            if number % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()

    proven(train, "accumulation_not_scaled")


def test_two_loaders_that_feed_one_backward_pass_accumulate_nothing(
    network: Network, loader: Loader, verdict: Verdict
) -> None:
    def train() -> None:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            others = iter(loader)
            for inputs, targets in loader:
                optimizer.zero_grad()
                value = functional.cross_entropy(model(inputs), targets)
                value = value + 0.1 * model(next(others)[0]).square().mean()
                value.backward()
                optimizer.step()

    assert "warning accumulation_not_scaled" not in verdict(train)


def test_a_loss_that_is_torn_from_its_graph_is_proven(network: Network, loader: Loader) -> None:
    def turn(model: nn.Module, optimizer: Any, inputs: Any, targets: Any) -> None:
        optimizer.zero_grad()
        value = functional.cross_entropy(model(inputs), targets).item()
        torch.tensor(value, requires_grad=True).backward()
        optimizer.step()

    with record() as tape:
        loop(network, loader, turn)
    found = [f for f in signs_of_tape(tape) if f.severity != "note"]
    assert [(f.cause, f.proven) for f in found] == [("graph_cut", True)]


def test_a_loop_that_fails_for_want_of_a_graph_is_diagnosed_from_what_was_seen(
    network: Network, loader: Loader
) -> None:
    def turn(model: nn.Module, optimizer: Any, inputs: Any, targets: Any) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs).detach(), targets).backward()
        optimizer.step()

    with pytest.raises(RuntimeError, match="does not require grad"), record() as tape:
        loop(network, loader, turn)
    assert [f.cause for f in signs(tape)] == ["graph_cut"]
