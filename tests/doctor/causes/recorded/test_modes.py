"""Tests that training in evaluation mode, and evaluation in training mode, are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

Network = Callable[..., nn.Sequential]
Loader = DataLoader[Any]
Proven = Callable[[Callable[[], object], str], None]
Verdict = Callable[[Callable[[], object]], list[str]]


def train(
    model: nn.Module,
    loader: Loader,
    held_out: Loader,
    *,
    before: Callable[[nn.Module], object] = nn.Module.train,
    evaluating: Callable[[nn.Module], object] = nn.Module.eval,
    grad: bool = False,
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        before(model)
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        evaluating(model)
        with torch.set_grad_enabled(grad):
            for inputs, _ in held_out:
                model(inputs).argmax(dim=1)


def nothing(model: nn.Module) -> None:
    """No switch."""


def test_training_that_goes_on_in_evaluation_mode_is_proven(
    network: Network, loader: Loader, held_out: Loader, proven: Proven
) -> None:
    proven(lambda: train(network(), loader, held_out, before=nothing), "eval_mode_in_training")


def test_evaluation_mode_from_the_start_is_a_warning(
    network: Network, loader: Loader, held_out: Loader, verdict: Verdict
) -> None:
    found = verdict(lambda: train(network().eval(), loader, held_out, before=nothing))
    assert found == ["warning eval_mode_in_training"]


def test_a_model_without_dropout_and_batch_norm_may_train_in_any_mode(
    loader: Loader, held_out: Loader, verdict: Verdict
) -> None:
    assert verdict(lambda: train(nn.Linear(64, 10), loader, held_out, before=nothing)) == []


def test_frozen_batch_norm_in_a_model_that_trains_is_meant(
    network: Network, loader: Loader, held_out: Loader, verdict: Verdict
) -> None:
    def frozen(model: nn.Module) -> None:
        model.train()
        assert isinstance(model, nn.Sequential)
        model[1].eval()

    assert verdict(lambda: train(network(), loader, held_out, before=frozen)) == []


def test_an_evaluation_in_training_mode_is_proven_where_there_is_batch_norm(
    network: Network, loader: Loader, held_out: Loader, proven: Proven
) -> None:
    proven(
        lambda: train(network(), loader, held_out, evaluating=nothing), "train_mode_in_evaluation"
    )


def test_an_evaluation_in_training_mode_is_seen_with_gradients_on_too(
    network: Network, loader: Loader, held_out: Loader, verdict: Verdict
) -> None:
    found = verdict(lambda: train(network(), loader, held_out, evaluating=nothing, grad=True))
    assert found == ["error train_mode_in_evaluation"]


def test_an_evaluation_with_dropout_alone_may_be_meant(
    network: Network, loader: Loader, held_out: Loader, verdict: Verdict
) -> None:
    found = verdict(lambda: train(network(norm=False), loader, held_out, evaluating=nothing))
    assert found == ["warning train_mode_in_evaluation"]


def test_an_evaluation_with_gradients_in_evaluation_mode_is_healthy(
    network: Network, loader: Loader, held_out: Loader, verdict: Verdict
) -> None:
    assert verdict(lambda: train(network(), loader, held_out, grad=True)) == []
