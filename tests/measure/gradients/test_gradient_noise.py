"""Tests of the noise scale against brute force in float64 and problems whose noise is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.gradients.gradient_noise import gradient_noise_scale


def gradients_of_parts(
    model: nn.Module, batch: tuple[Tensor, Tensor], parts: int
) -> list[list[Tensor]]:
    """The gradient of each part by each parameter, one backward pass at a time."""
    inputs, targets = batch
    size = len(inputs) // parts
    found = []
    for start in range(0, parts * size, size):
        part = slice(start, start + size)
        loss = functional.mse_loss(model(inputs[part]), targets[part])
        found.append(list(torch.autograd.grad(loss, list(model.parameters()))))
    return found


def brute_force(found: list[Tensor], size: int) -> tuple[float, float]:
    """tr(Sigma) and |G|^2 without bias, from the gradients of parts of `size` examples."""
    table = torch.stack([gradient.flatten() for gradient in found])
    covariance = table.T.cov() * size
    trace = float(torch.trace(covariance.reshape(table.shape[1], -1)))
    mean_square = float(table.mean(dim=0).square().sum())
    return trace, mean_square - trace / (size * len(found))


def small_problem() -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    inputs = torch.randn(60, 3).double()
    return model, (inputs, inputs[:, :2] * 2 + 3)


@pytest.mark.parametrize("parts", [3, 7, 60])
def test_trace_norm_and_error_are_those_of_brute_force(parts: int) -> None:
    model, batch = small_problem()
    noise = gradient_noise_scale(model, batch, loss=functional.mse_loss, parts=parts)
    size = 60 // parts
    order = torch.arange(60)
    if size > 1:
        order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    found = gradients_of_parts(model, (batch[0][order], batch[1][order]), parts)
    whole = [torch.cat([g.flatten() for g in gradient]) for gradient in found]
    trace, norm = brute_force(whole, size)
    assert (noise.parts, noise.part_size) == (parts, size)
    assert noise.trace == pytest.approx(trace, rel=1e-9)
    assert noise.squared_norm == pytest.approx(norm, rel=1e-9)
    assert noise.noise_scale == pytest.approx(trace / norm, rel=1e-9)
    for index, (name, _) in enumerate(model.named_parameters()):
        trace, norm = brute_force([gradient[index] for gradient in found], size)
        assert noise.layers.at(name)["trace"] == pytest.approx(trace, rel=1e-9)
        assert noise.layers.at(name)["squared_norm"] == pytest.approx(norm, rel=1e-9, abs=1e-12)
    ratios = []
    for left_out in range(parts):
        t, n = brute_force(whole[:left_out] + whole[left_out + 1 :], size)
        ratios.append(t / n)
    mean = sum(ratios) / parts
    jackknife = math.sqrt((parts - 1) / parts * sum((ratio - mean) ** 2 for ratio in ratios))
    assert noise.standard_error == pytest.approx(jackknife, rel=1e-6)


def test_a_linear_regression_has_the_noise_of_its_closed_form() -> None:
    """x ~ N(0, I_d), y = e ~ N(0, s^2), loss (w x - y)^2 / 2: the gradient of one example has the
    mean w and a covariance of trace d (|w|^2 + s^2) + |w|^2.
    """
    d, s = 10, 2.0
    model = nn.Linear(d, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    square = d * 0.25
    expected = (d * (square + s**2) + square) / square
    traces, norms, scales, errors = [], [], [], []
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(2000, d, generator=generator)
        targets = s * torch.randn(2000, 1, generator=generator)
        noise = gradient_noise_scale(
            model, (inputs, targets), loss=lambda o, t: functional.mse_loss(o, t) / 2, parts=40
        )
        traces.append(noise.trace)
        norms.append(noise.squared_norm)
        scales.append(noise.noise_scale)
        errors.append(noise.standard_error)

    def close(values: list[float], truth: float) -> bool:
        sample = torch.tensor(values)
        error = float(sample.std()) / len(values) ** 0.5
        return abs(float(sample.mean()) - truth) < 4 * error < 0.1 * truth

    assert close(traces, d * (square + s**2) + square)
    assert close(norms, square)
    assert float(torch.tensor(scales).median()) == pytest.approx(expected, rel=0.06)
    # The jackknife's error is that which 30 repetitions show, within the latter's own error.
    shown = float(torch.tensor(scales).std())
    assert float(torch.tensor(errors).mean()) == pytest.approx(shown, rel=4 / math.sqrt(2 * 29))


def test_equal_examples_have_no_noise() -> None:
    model = nn.Linear(2, 1)
    batch = (torch.ones(12, 2), torch.zeros(12, 1))
    noise = gradient_noise_scale(model, batch, loss=functional.mse_loss, parts=4)
    assert noise.noise_scale == pytest.approx(0, abs=1e-10)


def test_a_gradient_drowned_in_noise_has_an_infinite_noise_scale() -> None:
    model = nn.Linear(1, 1, bias=False)
    inputs = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    noise = gradient_noise_scale(model, inputs, loss=lambda o, t: o.mean(), parts=4)
    assert noise.noise_scale == math.inf
    assert noise.standard_error == math.inf
    assert noise.squared_norm == pytest.approx(-1 / 3)


def test_gradients_too_small_to_be_squared_are_measured() -> None:
    model, batch = small_problem()
    model.float()
    inputs, targets = (tensor.float() for tensor in batch)
    plain = gradient_noise_scale(model, (inputs, targets), loss=functional.mse_loss)
    small = gradient_noise_scale(
        model, (inputs, targets), loss=lambda o, t: functional.mse_loss(o, t) * 1e-28
    )
    assert small.noise_scale == pytest.approx(plain.noise_scale, rel=1e-4)
    assert small.trace == pytest.approx(plain.trace * 1e-56, rel=1e-4)


def test_dropout_draws_the_same_masks_both_times_and_the_stream_goes_on_as_before() -> None:
    """With other masks the second time, the deviations would be about another mean."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 2)).double()
    inputs = torch.ones(40, 3).double()
    random = torch.get_rng_state()
    noise = gradient_noise_scale(
        model, (inputs, torch.zeros(40, 2).double()), loss=functional.mse_loss, parts=8
    )
    assert torch.equal(torch.get_rng_state(), random)
    found = gradients_of_parts(model, (inputs, torch.zeros(40, 2).double()), 8)
    trace, _ = brute_force([torch.cat([g.flatten() for g in gradient]) for gradient in found], 5)
    assert noise.trace == pytest.approx(trace, rel=1e-9)


def test_a_parameter_beside_the_loss_has_no_gradient_and_no_noise() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})
    model.forward = model["used"].forward  # type: ignore[method-assign]
    noise = gradient_noise_scale(model, torch.randn(9, 2), loss=lambda o, t: o.mean(), parts=3)
    assert noise.layers.at("unused.weight")["trace"] == 0
    assert noise.layers.at("unused.weight")["noise_scale"] == math.inf


def test_what_cannot_be_measured_is_said() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(MeasurementError, match="16 parts of 2 examples"):
        gradient_noise_scale(model, torch.ones(2, 2), loss=lambda o, t: o.mean())
    with pytest.raises(MeasurementError, match="2 parts of 8 examples"):
        gradient_noise_scale(model, torch.ones(8, 2), loss=lambda o, t: o.mean(), parts=2)
    with pytest.raises(MeasurementError, match="reaches none"):
        gradient_noise_scale(model, torch.ones(8, 2), loss=lambda o, t: o.detach().mean())


def test_a_batch_sorted_by_class_has_the_noise_of_a_mixed_one() -> None:
    """Four classes in order, four parts: each part would be one class."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(400) % 4
    inputs = torch.randn(400, 3, generator=generator) + 3 * targets[:, None]
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    mixed = gradient_noise_scale(model, (inputs, targets), loss=functional.cross_entropy, parts=40)
    order = targets.argsort()
    batch = inputs[order], targets[order]
    in_order = gradient_noise_scale(model, batch, loss=functional.cross_entropy, parts=40)
    assert in_order.noise_scale == pytest.approx(mixed.noise_scale, rel=0.5)
    again = gradient_noise_scale(model, batch, loss=functional.cross_entropy, parts=40)
    assert again.noise_scale == in_order.noise_scale


def test_a_loss_that_is_not_finite_is_said() -> None:
    model, batch = small_problem()
    with pytest.raises(MeasurementError, match="a finite loss"):
        gradient_noise_scale(model, batch, loss=lambda o, t: o.sum() * math.nan)
