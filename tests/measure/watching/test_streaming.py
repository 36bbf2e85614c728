"""Tests of the streaming statistics: against the same numbers taken by hand, on any module."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from leadline.core.profile import Profile
from leadline.measure.watching import streaming
from leadline.measure.watching.streaming import StepSampler, activation_sums


def sampled(model: nn.Module, inputs: Any, *, lr: Any = 0.1, steps: int = 1) -> Profile:
    """One step of gradient descent on the sum of squares of the output, sampled."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=lr)
    for _ in range(steps):
        sampler = StepSampler(model, optimizer)
        optimizer.zero_grad()
        outputs = model(inputs)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        outputs.square().mean().backward()
        optimizer.step()
        sample = sampler.finish()
    return sample.to_profile()


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((8, 5), 1), ((4, 3, 6, 6), 1), ((6, 7, 5), 2), ((9,), 0), ((), 0)],
)
def test_the_statistics_of_an_activation_are_those_taken_by_hand(
    shape: tuple[int, ...], axis: int
) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = (values + 1).relu()
    if len(shape) > 1:
        values.select(axis, 0).zero_()  # a dead unit
    found = activation_sums(values.float(), unit_axis=axis)
    count = values.numel()
    units = values.movedim(axis, 0).flatten(1) if len(shape) > 1 else values.reshape(-1, 1)
    assert found.mean.item() == pytest.approx(values.mean().item(), rel=1e-5)
    deviation = found.deviation.item() / math.sqrt(count)
    assert deviation == pytest.approx(values.std(correction=0).item(), rel=1e-5, abs=1e-7)
    assert found.nonzero.item() == int((values != 0).sum())
    assert found.alive.item() == int((units != 0).any(dim=1).sum())
    assert (found.values, found.units) == (count, len(units))


def test_the_spread_around_a_large_mean_is_exact() -> None:
    values = 1000 + 0.01 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    found = activation_sums(values, unit_axis=1)
    spread = values.double().std(correction=0).item()
    assert found.deviation.item() / math.sqrt(values.numel()) == pytest.approx(spread, rel=1e-3)


def test_units_with_nan_or_infinity_are_counted_and_are_not_dead() -> None:
    values = torch.zeros(4, 5)
    values[1, 0], values[2, 1], values[3, 2] = math.nan, math.inf, 1.0
    found = activation_sums(values, unit_axis=1)
    assert (found.nonfinite.item(), found.alive.item()) == (2, 3)


def test_of_a_large_activation_examples_all_over_the_batch_are_looked_at() -> None:
    values = torch.arange(1024.0).reshape(1024, 1).expand(1024, 1024)
    found = activation_sums(values, unit_axis=1)
    assert found.values == streaming.VALUES
    assert found.mean.item() == pytest.approx(511.5, rel=0.04)
    wide = activation_sums(torch.ones(16, 4, 256, 256), unit_axis=1)
    assert wide.values == streaming.FEWEST_EXAMPLES * 4 * 256 * 256


def test_weights_gradients_and_updates_have_the_norms_taken_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2, bias=False)).double()
    inputs = torch.randn(5, 4, dtype=torch.float64)
    before = [p.detach().clone() for p in model.parameters()]
    gradients = torch.autograd.grad(model(inputs).square().mean(), list(model.parameters()))
    found = sampled(model, inputs)
    for layer, own in (("0", slice(0, 2)), ("2", slice(2, 3))):
        weight = math.hypot(*(p.norm().item() for p in before[own]))
        gradient = math.hypot(*(g.norm().item() for g in gradients[own]))
        row = found.at(layer)
        assert row["weight_norm"] == pytest.approx(weight, rel=1e-6)
        assert row["gradient_norm"] == pytest.approx(gradient, rel=1e-6)
        assert row["update_ratio"] == pytest.approx(0.1 * gradient / weight, rel=1e-5)
        assert row["lr"] == pytest.approx(0.1)
    assert math.isnan(found.at("1")["weight_norm"])


def test_the_layers_come_in_the_order_in_which_they_run() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.unused, self.first = nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(3, 3)
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x)) * self.scale

    found = sampled(Backwards(), torch.randn(4, 3))
    assert found.layers == ("first", "last", "(model)", "unused")
    assert math.isnan(found.at("unused")["gradient_norm"])
    assert found.at("unused")["update_ratio"] == 0
    assert found.at("(model)")["weight_norm"] == pytest.approx(math.sqrt(2))


def test_a_module_that_is_called_several_times_is_one_layer_of_all_its_values() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.relu = nn.Linear(3, 3), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.linear(self.relu(self.linear(x))))

    torch.manual_seed(0)
    model, inputs = Twice(), torch.randn(6, 3)
    first = model.linear(inputs)
    both = torch.stack((first, model.linear(first.relu())))
    found = sampled(model, inputs)
    assert found.layers == ("linear", "relu")
    assert found.at("linear")["mean"] == pytest.approx(both.mean().item(), rel=1e-5)
    assert found.at("linear")["std"] == pytest.approx(both.std(correction=0).item(), rel=1e-5)
    assert found.at("relu")["zeros"] == pytest.approx((both <= 0).float().mean().item())


def test_tied_weights_belong_to_the_first_layer_that_has_them() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    model[2].weight = model[0].weight
    found = sampled(model, torch.randn(4, 3))
    assert found.at("0")["weight_norm"] == pytest.approx(model[0].weight.norm().item(), rel=0.1)
    assert math.isnan(found.at("2")["weight_norm"])
    assert found.at("2")["std"] > 0


class Unusual(nn.Module):
    """Sparse gradients, a parametrised layer, a tuple, a complex and a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4, sparse=True)
        self.lstm = nn.LSTM(4, 5)
        self.normed = parametrizations.weight_norm(nn.Linear(5, 3))
        self.phase = nn.Parameter(torch.ones(3, dtype=torch.complex64))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        out, _ = self.lstm(self.embedding(tokens))
        return self.frozen(self.normed(out) * self.phase.abs())


def test_sparse_gradients_parametrised_complex_and_frozen_weights_are_read() -> None:
    found = sampled(Unusual(), torch.randint(7, (2, 3)))
    assert found.layers == ("embedding", "lstm", "normed", "frozen", "(model)")
    assert all(found.at(layer)["gradient_norm"] > 0 for layer in ("embedding", "lstm", "normed"))
    assert found.at("(model)")["weight_norm"] == pytest.approx(math.sqrt(3))
    assert math.isnan(found.at("frozen")["weight_norm"])
    assert found.at("normed")["std"] > 0


def test_a_learning_rate_that_is_a_tensor_is_not_waited_for() -> None:
    model = nn.Linear(2, 1)
    assert sampled(model, torch.ones(3, 2), lr=torch.tensor(0.25)).at("(model)")["lr"] == 0.25


def test_a_weight_that_is_replaced_in_the_step_has_no_update() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    sampler = StepSampler(model)
    model(torch.ones(1, 2)).sum().backward()
    model[0].weight.data = torch.zeros(3, 2)
    found = sampler.finish().to_profile()
    assert math.isnan(found.at("0")["update_ratio"])
    assert found.at("1")["update_ratio"] == 0


def test_a_step_in_which_nothing_ran_tells_the_weights_only() -> None:
    found = StepSampler(nn.Sequential(nn.Linear(2, 2))).finish().to_profile()
    assert found.at("0")["weight_norm"] > 0
    assert math.isnan(found.at("0")["update_ratio"])


def test_per_example_gradients_and_borrowed_weights_are_not_the_models_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    sampler = StepSampler(model)
    weights = dict(model.named_parameters())

    def loss(given: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, given, (x,)).sum()

    torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, torch.ones(3, 2))
    torch.func.functional_call(model, {n: w + 1 for n, w in weights.items()}, (torch.ones(3, 2),))
    functional.mse_loss(model(torch.ones(3, 2)), torch.ones(3, 2)).backward()
    found = sampler.finish().to_profile().at("0")
    length = math.hypot(*(p.norm().item() for p in model.parameters()))
    assert found["weight_norm"] == pytest.approx(length, rel=1e-5)
    assert found["update_ratio"] == 0 and found["std"] > 0


def test_a_model_in_half_precision_is_measured_in_single() -> None:
    model = nn.Sequential(nn.Linear(64, 64)).to(torch.bfloat16)
    length = math.hypot(*(p.double().norm().item() for p in model.parameters()))
    found = sampled(model, torch.ones(4, 64, dtype=torch.bfloat16))
    assert found.at("0")["weight_norm"] == pytest.approx(length, rel=1e-5)


def test_the_time_spent_is_counted() -> None:
    sampler = StepSampler(model := nn.Linear(2, 2))
    begun = sampler.seconds
    model(torch.ones(1, 2)).sum().backward()
    sampler.finish()
    assert 0 < begun < sampler.seconds < 5


@pytest.mark.parametrize("size", [1e-35, 1e-25, 1.0, 1e25])
def test_the_spread_of_an_activation_of_any_size_is_measured(size: float) -> None:
    output = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)) * size
    exact = output.double()
    sums = activation_sums(output, unit_axis=1)
    wanted = (exact - exact.mean()).norm().item()
    assert sums.deviation.item() == pytest.approx(wanted, rel=1e-4)
