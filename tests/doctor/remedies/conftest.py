"""A small Setup for the remedies' tests, and a way to compare two of them step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.core.seeds import seed_everything
from leadline.training.setup import Setup


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test begins with the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture
def make_setup() -> Callable[..., Setup]:
    """A Setup of a small classifier, 4 numbers to 3 classes, with whatever is changed in it."""

    def make(**changes: Any) -> Setup:
        data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(4)]
        parts: dict[str, Any] = {
            "model": lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
            "batches": data,
            "loss": nn.CrossEntropyLoss(),
            "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        }
        return Setup(**(parts | changes))

    return make


@pytest.fixture
def gradients_of() -> Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Outputs, loss and gradients of a Setup's first batch, its model drawn from its seed."""

    def run(setup: Setup) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        seed_everything(setup.seed)
        model = setup.model()
        inputs, targets = next(iter(setup.batches))
        outputs = model(inputs)
        loss = setup.loss(outputs, targets)
        loss.backward()
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return outputs.detach(), loss.detach(), found

    return run


@pytest.fixture
def alike(gradients_of: Any) -> Callable[[Setup, Setup], None]:
    """Two Setups give the same outputs, the same loss and, in order, the same gradients."""

    def compare(mended: Setup, by_hand: Setup) -> None:
        outputs, loss, gradients = gradients_of(mended)
        expected, expected_loss, wanted = gradients_of(by_hand)
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(loss, expected_loss)
        assert len(gradients) == len(wanted) > 0
        for gradient, other in zip(gradients.values(), wanted.values(), strict=True):
            torch.testing.assert_close(gradient, other)

    return compare
