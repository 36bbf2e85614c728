"""Tests that schedules are found that are stepped too often, too rarely, too early, or never."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer, lr_scheduler
from torch.utils.data import DataLoader

from leadline.doctor.causes.recorded.schedules import signs
from leadline.doctor.record import record

Network = Callable[..., nn.Sequential]
Loader = DataLoader[Any]
Proven = Callable[[Callable[[], object], str], None]
Made = Callable[[Optimizer], Any]


@pytest.fixture(autouse=True)
def _torch_may_warn() -> Iterator[None]:
    """torch itself warns of a schedule that comes before the optimizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def train(
    model: nn.Module,
    loader: Loader,
    made: Made,
    *,
    per: str,
    epochs: int = 3,
) -> list[float]:
    """The learning rate at each step; `per` says where the schedule steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = made(optimizer)
    rates = []
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            if per == "batch, before the update":
                schedule.step()
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            for _ in range({"batch": 1, "batch, twice": 2}.get(per, 0)):
                schedule.step()
        if per == "epoch":
            schedule.step()
    return rates


@pytest.mark.parametrize(
    "made",
    [
        lambda optimizer: lr_scheduler.StepLR(optimizer, 1, gamma=0.1),
        lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.5),
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [1, 2, 3], gamma=0.05),
    ],
)
def test_a_schedule_for_epochs_that_is_stepped_per_batch_is_proven(
    network: Network, loader: Loader, proven: Proven, made: Made
) -> None:
    proven(lambda: train(network(), loader, made, per="batch"), "scheduler_misused")


def test_run_again_with_its_remedy_the_rate_falls_once_per_epoch(
    network: Network, loader: Loader
) -> None:
    def made(optimizer: Optimizer) -> Any:
        return lr_scheduler.StepLR(optimizer, 1, gamma=0.1)

    with record() as tape:
        train(network(), loader, made, per="batch")
    (finding,) = signs(tape)
    assert finding.change is not None and finding.change.rerun is not None
    with finding.change.rerun():
        rates = train(network(), loader, made, per="batch")
    assert rates == pytest.approx([0.1] * 16 + [0.01] * 16 + [0.001] * 16)


def test_a_cosine_that_goes_up_and_down_many_times_is_found(
    network: Network, loader: Loader
) -> None:
    with record() as tape:
        train(network(), loader, lambda o: lr_scheduler.CosineAnnealingLR(o, 3), per="batch")
    (finding,) = signs(tape)
    assert finding.cause == "scheduler_misused" and "down and up 8 times" in finding.summary


def test_a_schedule_that_never_steps_is_found(network: Network, loader: Loader) -> None:
    with record() as tape:
        train(network(), loader, lambda o: lr_scheduler.StepLR(o, 1), per="never")
    (finding,) = signs(tape)
    assert "never stepped" in finding.summary
    assert finding.change is not None and finding.change.rerun is not None
    with finding.change.rerun():
        rates = train(network(), loader, lambda o: lr_scheduler.StepLR(o, 1), per="never")
    assert rates == pytest.approx([0.1] * 16 + [0.01] * 16 + [0.001] * 16)


def test_a_schedule_that_steps_before_the_optimizer_is_found(
    network: Network, loader: Loader, proven: Proven
) -> None:
    def made(optimizer: Optimizer) -> Any:
        return lr_scheduler.ExponentialLR(optimizer, 0.99)

    proven(
        lambda: train(network(), loader, made, per="batch, before the update"), "scheduler_misused"
    )


def test_a_schedule_that_steps_twice_is_found(
    network: Network, loader: Loader, proven: Proven
) -> None:
    def made(optimizer: Optimizer) -> Any:
        return lr_scheduler.CosineAnnealingLR(optimizer, 96)

    proven(lambda: train(network(), loader, made, per="batch, twice"), "scheduler_misused")


def test_one_cycle_that_is_stepped_per_epoch_stays_at_its_start(
    network: Network, loader: Loader
) -> None:
    def made(optimizer: Optimizer) -> Any:
        return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=48)

    with record() as tape:
        train(network(), loader, made, per="epoch")
    (finding,) = signs(tape)
    assert "made for 48 steps and stepped 3 times" in finding.summary


@pytest.mark.parametrize(
    ("made", "per"),
    [
        (lambda o: lr_scheduler.StepLR(o, 1), "epoch"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 3), "epoch"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 48), "batch"),
        (lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=48), "batch"),
        (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 12), "batch"),
        (lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, step_size_up=8), "batch"),
        (
            lambda o: lr_scheduler.ChainedScheduler(
                [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)]
            ),
            "epoch",
        ),
    ],
)
def test_a_schedule_as_long_as_the_training_is_healthy(
    network: Network, loader: Loader, made: Made, per: str
) -> None:
    with record() as tape:
        train(network(), loader, made, per=per)
    assert list(signs(tape)) == []
