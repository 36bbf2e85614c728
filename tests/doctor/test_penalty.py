"""Tests of the penalty's share: against gradients worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.penalty import penalty_share
from leadline.training.setup import Setup


class Holding:
    """A Setup of one linear layer w, whose loss can read the weights of the model made last."""

    def __init__(self, penalty: Callable[[nn.Module], Tensor] | None) -> None:
        self.penalty = penalty
        self.model: nn.Module = nn.Linear(3, 1, bias=False)
        self.batch = (torch.randn(5, 3), torch.randn(5, 1))

    def build(self) -> nn.Module:
        torch.manual_seed(1)
        self.model = nn.Linear(3, 1, bias=False)
        return self.model

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        value = (outputs - targets).square().mean()
        return value if self.penalty is None else value + self.penalty(self.model)

    @property
    def setup(self) -> Setup:
        return Setup(
            model=self.build,
            batches=[self.batch],
            loss=self.loss,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        )

    def by_hand(self) -> tuple[Tensor, Tensor]:
        """The weights [3], and the gradient 2/B xᵀ(xw - y) of the data's part."""
        x, y = self.batch
        w = self.build().weight.detach().flatten()
        return w, 2 / len(x) * x.T @ (x @ w - y.flatten())


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_the_share_of_a_squared_penalty_is_that_of_its_gradient(strength: float) -> None:
    holding = Holding(lambda model: strength * model.weight.square().sum())
    w, data = holding.by_hand()
    share = penalty_share(holding.setup, holding.batch)
    assert share == pytest.approx(float(2 * strength * w.norm() / data.norm()), rel=1e-5)


def test_the_share_of_an_absolute_penalty_is_that_of_its_signs() -> None:
    holding = Holding(lambda model: 0.1 * model.weight.abs().sum())
    w, data = holding.by_hand()
    share = penalty_share(holding.setup, holding.batch)
    assert share == pytest.approx(float(0.1 * w.sign().norm() / data.norm()), rel=1e-5)


def test_a_loss_of_outputs_and_targets_has_no_penalty() -> None:
    holding = Holding(None)
    assert penalty_share(holding.setup, holding.batch) is None


def test_a_penalty_that_no_gradient_follows_is_none() -> None:
    holding = Holding(lambda model: model.weight.detach().square().sum())
    assert penalty_share(holding.setup, holding.batch) is None


def test_frozen_weights_have_no_share() -> None:
    holding = Holding(lambda model: model.weight.square().sum())
    plain = holding.build

    def frozen() -> nn.Module:
        return plain().requires_grad_(False)

    holding.build = frozen  # type: ignore[method-assign]
    assert penalty_share(holding.setup, holding.batch) is None


def test_a_loss_that_raises_has_none_to_tell() -> None:
    def fails(outputs: Tensor, targets: Tensor) -> Tensor:
        raise KeyError("weight")

    holding = Holding(None)
    holding.loss = fails  # type: ignore[method-assign]
    assert penalty_share(holding.setup, holding.batch) is None


def test_a_model_that_cannot_be_made_has_none_to_tell() -> None:
    def fails() -> nn.Module:
        raise FileNotFoundError("weights.pt")

    holding = Holding(None)
    holding.build = fails  # type: ignore[method-assign]
    assert penalty_share(holding.setup, holding.batch) is None


def test_sparse_gradients_are_counted_like_dense_ones() -> None:
    """An embedding whose rows 0 and 1 are asked: d(data)/dE = 2/B (E[i] - y) on each row."""
    built: list[nn.Embedding] = []

    def build() -> nn.Module:
        built.append(nn.Embedding(4, 1, sparse=True))
        return built[-1]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean() + 3 * built[-1](torch.tensor([2])).square().sum()

    batch = (torch.tensor([0, 1]), torch.zeros(2, 1))
    setup = Setup(
        model=build,
        batches=[batch],
        loss=loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    share = penalty_share(setup, batch)
    rows = built[-1].weight.detach().flatten()
    assert share == pytest.approx(float(6 * rows[2].abs() / rows[:2].norm()), rel=1e-5)


def test_the_batch_and_the_random_streams_are_left_as_they_were() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Any:
            x.mul_(2)
            return self.layer(torch.nn.functional.dropout(x))

    batch = (torch.ones(5, 3), torch.zeros(5, 1))
    setup = Setup(
        model=Writing,
        batches=[batch],
        loss=nn.MSELoss(),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    before = torch.get_rng_state()
    penalty_share(setup, batch)
    assert torch.equal(batch[0], torch.ones(5, 3))
    assert torch.equal(torch.get_rng_state(), before)
