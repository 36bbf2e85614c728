"""Tests of what a gradient costs, against counts by hand and gradients by both ways."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from leadline.core.errors import MeasurementError
from leadline.measure.efficiency import CostGrowth, Timing, cost_growth, gradient_cost


def dense(*widths: int, bias: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=bias), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def test_the_counts_of_a_dense_network_are_those_by_hand() -> None:
    widths, examples = (5, 7, 11, 3), 4
    batch = (torch.randn(examples, 5), torch.randn(examples, 3))
    cost = gradient_cost(dense(*widths), batch, loss=nn.MSELoss(), sample=2, repeats=1)
    matrices = [a * b for a, b in pairwise(widths)]
    assert cost.weights == sum(matrices) + 7 + 11 + 3
    assert cost.forward == examples * sum(matrices)
    # backwards every matrix is multiplied twice, but for the first: nobody asks for the input's
    assert cost.gradient == examples * (3 * sum(matrices) - matrices[0])
    assert cost.differences == 2 * cost.weights * cost.forward
    assert cost.ratio == pytest.approx(3 - matrices[0] / sum(matrices))
    assert cost.saving == pytest.approx(2 * cost.weights / cost.ratio)


def test_the_counts_of_a_convolution_are_those_by_hand() -> None:
    model = nn.Conv2d(3, 8, 3, bias=False)
    batch = (torch.randn(2, 3, 10, 10), torch.randn(2, 8, 8, 8))
    cost = gradient_cost(model, batch, loss=nn.MSELoss(), sample=1, repeats=1)
    assert cost.forward == 2 * 8 * 8 * 8 * 27
    assert cost.gradient == 2 * cost.forward


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_differences_agree_with_backpropagation_over_all_weights(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.GELU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(32, 3),
    ).to(memory_format=torch.channels_last)
    batch = (torch.randn(4, 1, 6, 6), torch.randint(3, (4,)))
    cost = gradient_cost(model, batch, loss=functional.cross_entropy, sample=1000, repeats=1)
    assert cost.differences_run == cost.weights == sum(p.numel() for p in model.parameters())
    assert cost.disagreement < 1e-6


def test_a_wrong_derivative_disagrees() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * 3

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = Wrong.apply(self.layer(x))
            return result

    batch = (torch.randn(4, 3), torch.randn(4, 2))
    cost = gradient_cost(Model(), batch, loss=nn.MSELoss(), sample=8, repeats=1)
    assert cost.disagreement == pytest.approx(1 / 3, abs=0.01)


def test_tied_and_frozen_weights_are_counted_once_or_not_at_all() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(6, 4)
            self.frozen = nn.Linear(4, 4).requires_grad_(False)
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> dict[str, Tensor]:
            logits = self.head(self.frozen(self.embedding(tokens)))
            return {"loss": functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())}

    tokens = torch.randint(6, (2, 5))
    cost = gradient_cost(Tied(), {"tokens": tokens}, sample=100, repeats=1)
    assert cost.weights == cost.differences_run == 24
    assert cost.disagreement < 1e-6


def test_times_are_quartiles_and_the_differences_are_scaled_to_all_weights() -> None:
    batch = (torch.randn(32, 64), torch.randn(32, 64))
    cost = gradient_cost(dense(64, 64, 64), batch, loss=nn.MSELoss(), sample=4, repeats=9)
    for timing in (cost.forward_time, cost.gradient_time, cost.differences_time):
        assert 0 < timing.lower <= timing.median <= timing.upper
    assert cost.differences_run == 4
    # two forward passes for each of 8,320 weights, a factor of three left to the machine
    assert cost.differences_time.median > 2 * cost.weights * cost.forward_time.median / 3
    assert cost.time_ratio == cost.gradient_time.median / cost.forward_time.median


def test_the_exponents_are_those_of_powers() -> None:
    batch = (torch.randn(2, 4), torch.randn(2, 4))
    one = gradient_cost(dense(4, 4), batch, loss=nn.MSELoss(), sample=1, repeats=1)

    def grown(size: int) -> Timing:
        return Timing(median=3.0 * size**1.5, lower=0.0, upper=0.0)

    costs = [
        dataclasses.replace(
            one,
            weights=size,
            forward=2 * size,
            gradient=6 * size,
            differences=4 * size**2,
            forward_time=grown(size),
            gradient_time=grown(size),
            differences_time=grown(size),
        )
        for size in (10, 100, 1000)
    ]
    growth = cost_growth(costs)
    assert dataclasses.astuple(growth) == pytest.approx((1, 1, 2, 1.5, 1.5, 1.5))
    assert isinstance(growth, CostGrowth)
    with pytest.raises(MeasurementError, match="two different numbers of weights"):
        cost_growth(costs[:1] * 3)


def test_the_model_and_the_random_streams_are_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    batch = (torch.randn(8, 4), torch.randn(8, 4))
    model(batch[0]).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [(p.grad, p.grad.clone()) for p in model.parameters() if p.grad is not None]
    stream = torch.get_rng_state()
    gradient_cost(model, batch, loss=nn.MSELoss(), repeats=1)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    kept = zip(model.parameters(), gradients, strict=True)
    assert all(parameter.grad is found for parameter, (found, _) in kept)
    assert all(torch.equal(found, copy) for found, copy in gradients)
    assert all(module.training for module in model.modules())


def test_what_cannot_be_measured_says_why() -> None:
    batch = (torch.randn(4, 3), torch.randn(4, 3))
    with pytest.raises(MeasurementError, match="no parameters"):
        gradient_cost(nn.Tanh(), batch, loss=nn.MSELoss())
    with pytest.raises(MeasurementError, match="all frozen"):
        gradient_cost(nn.Linear(3, 3).requires_grad_(False), batch, loss=nn.MSELoss())
    with pytest.raises(MeasurementError, match="whose cost can be counted"):
        gradient_cost(nn.LayerNorm(3), batch, loss=nn.MSELoss())
    with pytest.raises(MeasurementError, match="one number"):
        gradient_cost(nn.Linear(3, 3), batch, loss=nn.MSELoss(reduction="none"))
    with pytest.raises(MeasurementError, match="sample=0, repeats=5"):
        gradient_cost(nn.Linear(3, 3), batch, loss=nn.MSELoss(), sample=0)
    with pytest.raises(MeasurementError, match="RuntimeError in Linear"):
        gradient_cost(nn.Linear(4, 3), batch, loss=nn.MSELoss())


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrised_weights_are_measured(kind: str) -> None:
    torch.manual_seed(0)
    model = getattr(nn.utils.parametrizations, kind)(nn.Linear(3, 3)).eval()
    batch = (torch.randn(4, 3), torch.randn(4, 3))
    cost = gradient_cost(model, batch, loss=nn.MSELoss(), repeats=1)
    assert cost.gradient > cost.forward >= 4 * 9
    assert cost.disagreement < 1e-6


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_refused_with_a_word_on_what_to_do(reentrant: bool) -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.first, self.last = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            hidden = checkpoint(self.first, self.before(x), use_reentrant=reentrant)
            answer: Tensor = self.last(torch.tanh(hidden))
            return answer

    batch = (torch.randn(4, 3), torch.randn(4, 3))
    with pytest.raises(MeasurementError, match="turn gradient checkpointing off"):
        gradient_cost(Saving(), batch, loss=nn.MSELoss(), repeats=1)
