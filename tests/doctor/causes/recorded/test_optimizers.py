"""Tests that weights without an optimizer, and optimizers made anew, are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from leadline.doctor.causes.recorded.optimizers import signs
from leadline.doctor.record import record

Network = Callable[..., nn.Sequential]
Loader = DataLoader[Any]
Proven = Callable[[Callable[[], object], str], None]
Verdict = Callable[[Callable[[], object]], list[str]]


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> None:
    for inputs, targets in loader:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def test_an_optimizer_that_is_made_for_each_batch_is_proven(
    network: Network, loader: Loader, proven: Proven
) -> None:
    def train() -> None:
        model = network()
        for inputs, targets in loader:
            optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

    with record() as tape:
        train()
    (finding,) = signs(tape)
    assert (finding.cause, finding.severity) == ("optimizer_recreated", "error")
    assert finding.change is not None and finding.change.rerun is not None
    states = []
    with finding.change.rerun():
        model = network()
        for inputs, targets in loader:
            optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            states.append(int(optimizer.state[model[0].weight]["step"]))
    assert states == list(range(1, 17))


def test_an_optimizer_that_is_made_for_each_epoch_is_a_warning(
    network: Network, loader: Loader, verdict: Verdict
) -> None:
    def train() -> None:
        model = network()
        for _ in range(4):
            epoch(model, torch.optim.Adam(model.parameters(), lr=0.001), loader)

    assert verdict(train) == ["warning optimizer_recreated"]


def test_another_optimizer_for_another_stage_is_none_made_anew(
    network: Network, loader: Loader, verdict: Verdict
) -> None:
    def train() -> None:
        model = network()
        for rate in (0.1, 0.01, 0.001):
            epoch(model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9), loader)

    assert verdict(train) == []


def test_a_model_that_is_made_for_each_epoch_is_found(
    network: Network, loader: Loader, verdict: Verdict
) -> None:
    def train() -> None:
        for _ in range(4):
            model = network()
            epoch(model, torch.optim.Adam(model.parameters(), lr=0.001), loader)

    with record() as tape:
        train()
    (finding,) = [f for f in signs(tape) if f.severity != "note"]
    assert (finding.cause, finding.severity) == ("model_recreated", "warning")
    assert finding.change is not None and finding.change.rerun is not None
    with record() as healed, finding.change.rerun():
        train()
    assert healed.losses[-1] < tape.losses[-1]


def test_a_model_and_a_loader_made_for_each_epoch_are_found(
    network: Network, digits: tuple[Tensor, Tensor]
) -> None:
    with record() as tape:
        for _ in range(4):
            model = network()
            loader = DataLoader(TensorDataset(*digits), batch_size=32)
            epoch(model, torch.optim.Adam(model.parameters(), lr=0.001), loader)
    assert "model_recreated" in [f.cause for f in signs(tape)]


@pytest.mark.parametrize("what", ["rates", "folds"])
def test_a_search_and_folds_are_no_model_made_anew(
    network: Network, digits: tuple[Tensor, Tensor], what: str
) -> None:
    inputs, targets = digits
    with record() as tape:
        for number in range(4):
            rate = 0.001 * (number + 1) if what == "rates" else 0.001
            kept = slice(None) if what == "rates" else slice(number, None, 4)
            loader = DataLoader(TensorDataset(inputs[kept], targets[kept]), batch_size=32)
            model = network()
            epoch(model, torch.optim.Adam(model.parameters(), lr=rate), loader)
    assert "model_recreated" not in [f.cause for f in signs(tape)]


def test_an_optimizer_of_another_model_is_proven(network: Network, loader: Loader) -> None:
    with record() as tape:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        model = network()
        for inputs, targets in loader:
            model.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    found = [f for f in signs(tape) if f.severity != "note"]
    assert [(f.cause, f.severity) for f in found] == [("optimizer_missing_params", "error")]
    assert "made for another model" in found[0].summary
    assert len(found[0].layers) == 6


def test_layers_that_the_optimizer_does_not_hold_are_named(
    network: Network, loader: Loader
) -> None:
    with record() as tape:
        model = nn.Sequential(nn.Linear(64, 8), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 10)))
        last = model[1]
        assert isinstance(last, nn.Sequential)
        held = [*model[0].parameters(), *last[0].parameters()]
        epoch(model, torch.optim.SGD(held, lr=0.1), loader)
    (finding,) = signs(tape)
    assert finding.layers == ("1.1.weight", "1.1.bias") and finding.severity == "error"


def test_a_head_that_is_trained_alone_may_be_meant(network: Network, loader: Loader) -> None:
    with record() as tape:
        model = network()
        epoch(model, torch.optim.SGD(model[4].parameters(), lr=0.1), loader)
    assert [(f.cause, f.severity) for f in signs(tape)] == [("optimizer_missing_params", "warning")]


def test_frozen_weights_in_the_optimizer_are_named(network: Network, loader: Loader) -> None:
    with record() as tape:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model[0].requires_grad_(False)
        epoch(model, optimizer, loader)
    assert [(f.cause, f.layers) for f in signs(tape)] == [("params_frozen", ("0.weight", "0.bias"))]
