"""Tests that half precision that fails, and losses that are no number, are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from leadline.doctor.causes.recorded.numerics import signs
from leadline.doctor.record import record

Network = Callable[..., nn.Sequential]
Loader = DataLoader[Any]


def in_half(model: nn.Module, loader: Loader, *, factor: float) -> list[float]:
    """Losses in float16, made larger by a factor that a user put there."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")
    losses = []
    for inputs, targets in loader:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = functional.cross_entropy(model(inputs) * factor, targets)
        losses.append(float(loss.detach()))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return losses


def test_float16_that_overflows_is_an_error_that_bfloat16_heals(loader: Loader) -> None:
    with record() as tape:
        in_half(nn.Linear(64, 10), loader, factor=1e6)
    (finding,) = [f for f in signs(tape) if f.cause == "low_precision_overflow"]
    assert finding.severity == "error"
    assert finding.change is not None and finding.change.rerun is not None
    with record() as healed, finding.change.rerun():
        in_half(nn.Linear(64, 10), loader, factor=1e6)
    assert list(signs(healed)) == []


def test_a_scaler_that_halves_now_and_then_is_healthy(loader: Loader) -> None:
    with record() as tape:
        in_half(nn.Linear(64, 10), loader, factor=1.0)
    assert len(tape.of("scale_update")) == 16
    assert list(signs(tape)) == []


@pytest.mark.parametrize(("rate", "found"), [(1e-4, True), (1.0, False)])
def test_updates_that_bfloat16_rounds_away_are_found(
    network: Network, loader: Loader, rate: float, found: bool
) -> None:
    with record() as tape:
        model = network(norm=False).to(torch.bfloat16)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs.bfloat16()), targets).backward()
            optimizer.step()
    causes = [(f.cause, f.severity) for f in signs(tape)]
    assert causes == ([("low_precision_update_lost", "error")] if found else [])


def test_a_loss_that_becomes_nan_is_named_with_its_step(loader: Loader) -> None:
    with record() as tape:
        model = nn.Linear(64, 10)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for number, (inputs, targets) in enumerate(loader):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), targets)
            (loss * (float("nan") if number >= 4 else 1.0)).backward()
            optimizer.step()
    (finding,) = signs(tape)
    assert finding.cause == "nonfinite_value" and "backward pass 5" in finding.summary
