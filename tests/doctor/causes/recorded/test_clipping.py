"""Tests that clipping is found that does nothing, or too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from leadline.doctor.causes.recorded.clipping import signs
from leadline.doctor.record import record

Network = Callable[..., nn.Sequential]
Loader = DataLoader[Any]
Proven = Callable[[Callable[[], object], str], None]


def train(
    model: nn.Module, loader: Loader, *, where: str, most: float = 0.5, lr: float = 0.1
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for inputs, targets in loader:
        optimizer.zero_grad()
        if where == "before backward":
            clip_grad_norm_(model.parameters(), most)
        functional.cross_entropy(model(inputs), targets).backward()
        if where == "before the step":
            clip_grad_norm_(model.parameters(), max_norm=most)
        optimizer.step()
        if where == "behind the step":
            nn.utils.clip_grad_value_(model.parameters(), most)


@pytest.mark.parametrize("where", ["before backward", "behind the step"])
def test_clipping_that_no_step_sees_is_proven(
    network: Network, loader: Loader, proven: Proven, where: str
) -> None:
    proven(lambda: train(network(), loader, where=where), "clip_misplaced")


@pytest.mark.parametrize(("lr", "severity"), [(0.1, "warning"), (1e30, "error")])
def test_it_is_an_error_where_the_loss_breaks_off(
    network: Network, loader: Loader, lr: float, severity: str
) -> None:
    with record() as tape:
        train(network(), loader, where="behind the step", lr=lr)
    assert [f.severity for f in signs(tape)] == [severity]


def test_clipping_between_backward_and_step_is_healthy(network: Network, loader: Loader) -> None:
    with record() as tape:
        train(network(), loader, where="before the step")
    assert len(tape.of("clip")) == 16
    assert list(signs(tape)) == []


def scaled(model: nn.Module, loader: Loader, *, unscale: bool) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    losses = []
    for _ in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), targets)
            losses.append(float(loss.detach()))
            scaler.scale(loss).backward()
            if unscale:
                scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
    return losses


def test_clipping_of_scaled_gradients_is_an_error_that_its_remedy_heals(
    network: Network, loader: Loader
) -> None:
    with record() as tape:
        bad = scaled(network(), loader, unscale=False)
    (finding,) = signs(tape)
    assert (finding.cause, finding.severity) == ("clip_misplaced", "error")
    assert finding.change is not None and finding.change.rerun is not None
    with finding.change.rerun():
        good = scaled(network(), loader, unscale=False)
    assert good[-1] < 0.8 * bad[-1]
    with record() as tape:
        scaled(network(), loader, unscale=True)
    assert list(signs(tape)) == []


def test_a_limit_far_below_every_norm_is_found_where_the_weights_stand_still(
    network: Network, loader: Loader
) -> None:
    with record() as tape:
        train(network(), loader, where="before the step", most=1e-4)
    (finding,) = signs(tape)
    assert (finding.cause, finding.severity) == ("clip_too_small", "error")
    assert finding.change is not None and finding.change.rerun is not None
    assert finding.change(tape.setup()).clip_grad > 0.1
    with record() as healed, finding.change.rerun():
        train(network(), loader, where="before the step", most=1e-4)
    assert list(signs(healed)) == []


def test_a_low_limit_is_nothing_to_an_optimizer_that_scales_by_itself(
    network: Network, loader: Loader
) -> None:
    with record() as tape:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            clip_grad_norm_(model.parameters(), 1e-4)
            optimizer.step()
    assert list(signs(tape)) == []
