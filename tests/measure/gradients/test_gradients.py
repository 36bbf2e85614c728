"""Tests of gradient flow against gradients that are computed one by one and in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.gradients.gradients import (
    gradient_flow,
    gradients_of,
    parameter_gradients,
    relative_size,
)


def total(outputs: Any, targets: Any) -> Tensor:
    return outputs.sum()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    )


BATCH = (
    torch.randn(6, 5, generator=torch.Generator().manual_seed(1)),
    torch.tensor([0, 1, 2, 0, 1, 2]),
)


def test_gradients_of_layers_are_those_of_autograd() -> None:
    model = network()
    profile = gradient_flow(model, BATCH, loss=functional.cross_entropy)
    outputs: list[Tensor] = []
    values = BATCH[0]
    for module in model:
        values = torch.relu(values) if isinstance(module, nn.ReLU) else module(values)
        outputs.append(values)
    gradients = torch.autograd.grad(functional.cross_entropy(values, BATCH[1]), outputs)
    norms = [float(gradient.double().norm()) for gradient in gradients]
    assert profile.column("norm") == pytest.approx(norms, rel=1e-5)
    assert profile.column("ratio") == pytest.approx([n / norms[-1] for n in norms], rel=1e-5)
    assert profile.column("root_mean_square") == pytest.approx(
        [float(gradient.double().square().mean().sqrt()) for gradient in gradients], rel=1e-5
    )
    zeros = [float((gradient == 0).double().mean()) for gradient in gradients]
    assert profile.column("zeros") == pytest.approx(zeros)
    assert zeros[0] > 0  # where ReLU is off


def test_gradients_of_parameters_are_those_of_backward() -> None:
    model = network()
    profile = parameter_gradients(model, BATCH, loss=functional.cross_entropy)
    assert all(parameter.grad is None for parameter in model.parameters())
    functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        row = profile.at(name)
        norm, weight = float(parameter.grad.norm()), float(parameter.detach().norm())
        assert row["norm"] == pytest.approx(norm, rel=1e-5)
        assert row["weight_norm"] == pytest.approx(weight, rel=1e-5)
        assert row["gradient_to_weight"] == pytest.approx(norm / weight, rel=1e-5)
        assert row["reached"] == 1


def test_a_chain_of_forty_sigmoids_is_measured_beyond_the_reach_of_a_square() -> None:
    """0.25^40 = 10^-24, whose square float32 does not have."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), *(nn.Sigmoid() for _ in range(40)))
    nn.init.zeros_(model[0].weight)
    slopes, value = [], torch.zeros((), dtype=torch.float64)
    for _ in range(40):
        value = torch.sigmoid(value)
        slopes.append(float(value * (1 - value)))
    profile = gradient_flow(model, torch.ones(1, 1), loss=total)
    assert profile.column("norm")[0] == pytest.approx(math.prod(slopes), rel=1e-4)


def test_a_linear_chain_of_slope_a_has_the_ratio_a_to_the_depth() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(61)))
    for layer in model:
        nn.init.eye_(layer.weight)
        layer.weight.data *= 0.25
    profile = gradient_flow(model, torch.ones(2, 3), loss=total)
    assert profile.column("ratio")[0] == pytest.approx(0.25**60, rel=1e-4)
    assert profile.column("ratio")[-1] == 1


def test_a_layer_beside_the_loss_has_no_gradient_and_one_before_all_weights_needs_none() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(5, 5).requires_grad_(False)
            self.used = nn.Linear(5, 2)
            self.unused = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.frozen(x)
            return self.used(x), self.unused(x)

    model = Beside()
    profile = gradient_flow(model, BATCH, loss=lambda outputs, targets: outputs[0].sum())
    assert math.isnan(profile.at("frozen")["norm"])
    assert profile.at("unused") == {"norm": 0, "root_mean_square": 0, "ratio": 0, "zeros": 1}
    assert profile.at("used")["ratio"] == 1
    weights = parameter_gradients(model, BATCH, loss=lambda outputs, targets: outputs[0].sum())
    assert weights.layers == ("used.weight", "used.bias", "unused.weight", "unused.bias")
    assert weights.column("reached") == (1, 1, 0, 0)
    assert math.isnan(weights.at("unused.weight")["norm"])


def test_tied_and_sparse_weights_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4, sparse=True)
            self.head = nn.Linear(4, 3)
            self.again = self.head

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.head.weight.sum() * self.embedding(x).mean(dim=1))

    torch.manual_seed(0)
    model = Tied()
    tokens = torch.tensor([[1, 2], [2, 2]])
    profile = parameter_gradients(model, tokens, loss=total)
    assert profile.layers == ("embedding.weight", "head.weight", "head.bias")
    model(tokens).sum().backward()
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert profile.column("norm")[0] == pytest.approx(float(gradient.to_dense().norm()), rel=1e-5)
    assert profile.column("zeros")[0] == pytest.approx(0.8)


def test_the_model_its_own_loss_and_a_compiled_model_are_understood() -> None:
    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 3)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.linear(x)
            return {"loss": functional.cross_entropy(logits, labels), "logits": logits}

    batch = {"x": BATCH[0], "labels": BATCH[1]}
    model = WithLoss()
    plain = gradient_flow(model, batch)
    compiled = torch.compile(model, backend="eager")
    assert gradient_flow(compiled, batch) == plain  # type: ignore[arg-type]
    assert parameter_gradients(compiled, batch).layers == ("linear.weight", "linear.bias")  # type: ignore[arg-type]


def test_gradients_running_statistics_and_random_streams_are_as_before() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [p.grad for p in model.parameters()]
    copies = [None if g is None else g.clone() for g in gradients]
    random = torch.get_rng_state()
    with torch.no_grad():
        for measure in (gradient_flow, parameter_gradients):
            measure(model, BATCH, loss=functional.cross_entropy)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for parameter, gradient, values in zip(model.parameters(), gradients, copies, strict=True):
        assert parameter.grad is gradient
        assert gradient is not None and values is not None and torch.equal(gradient, values)


class _BrokenBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient * math.nan


def test_a_gradient_that_is_not_finite_is_shown_as_nan() -> None:
    model = nn.Linear(5, 3)
    profile = gradient_flow(
        model, BATCH, loss=lambda outputs, targets: _BrokenBackward.apply(outputs).sum()
    )
    assert not math.isfinite(profile.column("norm")[0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("measure", [gradient_flow, parameter_gradients])
def test_a_loss_that_is_not_finite_is_said(measure: Any, value: float) -> None:
    with pytest.raises(MeasurementError, match="a finite loss"):
        measure(nn.Linear(5, 3), BATCH, loss=lambda outputs, targets: outputs.sum() * 0 + value)


@pytest.mark.parametrize("measure", [gradient_flow, parameter_gradients])
def test_what_cannot_be_measured_is_said(measure: Any) -> None:
    with pytest.raises(MeasurementError, match=r"no_grad\(\) or argmax between"):
        measure(network(), BATCH, loss=lambda outputs, targets: outputs.detach().sum())
    with pytest.raises(MeasurementError, match="all frozen"):
        measure(network().requires_grad_(False), BATCH, loss=total)
    with pytest.raises(MeasurementError, match="one number"):
        measure(network(), BATCH, loss=lambda outputs, targets: outputs)
    with pytest.raises(MeasurementError, match="a loss function, or a model"):
        measure(network(), BATCH)


def test_a_loss_of_other_weights_reaches_none() -> None:
    other, own = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    with pytest.raises(MeasurementError, match="reaches none of them"):
        gradients_of(other.sum(), [own])


def test_a_relative_size_follows_the_arithmetic_of_numbers() -> None:
    assert relative_size(1.0, 2.0) == 0.5
    assert relative_size(1.0, 0.0) == math.inf
    assert math.isnan(relative_size(0.0, 0.0))
