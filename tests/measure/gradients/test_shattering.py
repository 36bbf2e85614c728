"""Tests of shattered gradients: against direct gradients, plain sums and simulated noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError, UnknownNameError
from leadline.core.seeds import capture_random_state
from leadline.measure.gradients.shattering import gradient_correlation, shattering


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, 20), nn.ReLU(inplace=True), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 1)
    )


def input_gradients(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    return gradient.double()


def test_the_correlation_is_the_mean_over_all_pairs() -> None:
    model, x = network(), torch.randn(6, 5)
    gradients = input_gradients(model, x)
    pairs = [gradients[i] @ gradients[j] for i in range(6) for j in range(6) if i != j]
    expected = torch.stack(pairs).mean() / gradients.square().sum(dim=1).mean()
    profile = gradient_correlation(model, x)
    assert profile.at("(input)")["correlation"] == pytest.approx(expected.item(), rel=1e-4)
    assert profile.layers == ("(input)", "0", "1", "2", "3", "4")


def test_each_layer_has_the_correlation_of_the_gradient_by_its_output() -> None:
    model, x = network(), torch.randn(6, 5)
    hidden = model[:2](x).detach()
    gradients = input_gradients(model[2:], hidden)
    profile = gradient_correlation(model, x)
    total = gradients.sum(dim=0).square().sum() - gradients.square().sum()
    expected = total / 5 / gradients.square().sum()
    assert profile.at("1")["correlation"] == pytest.approx(expected.item(), rel=1e-4)
    # Before the in-place ReLU, what it lets pass:
    masked = gradients * (hidden > 0)
    total = masked.sum(dim=0).square().sum() - masked.square().sum()
    expected = total / 5 / masked.square().sum()
    assert profile.at("0")["correlation"] == pytest.approx(expected.item(), rel=1e-4)


class Functional(nn.Module):
    """A batch norm called as a function."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, training=True)


class Constant(nn.Module):
    """A batch norm whose statistics are constants."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.detach().mean(dim=0), x.detach().var(dim=0, correction=0)
        return (x - mean) / (variance + 1e-5).sqrt()


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(32), nn.BatchNorm1d(32, affine=False), Functional()]
)
def test_batch_norms_in_training_have_constant_statistics(norm: nn.Module) -> None:
    """With the derivative of its statistics a batch norm leaves -1 / (B - 1), always."""
    torch.manual_seed(0)
    before, after = nn.Linear(5, 32), nn.Sequential(nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(8, 5)
    found, expected = (
        gradient_correlation(nn.Sequential(before, middle, *after), x).column("correlation")
        for middle in (norm, Constant())
    )
    gradients = input_gradients(nn.Sequential(before, Constant(), *after), x)
    total = gradients.sum(dim=0).square().sum() / gradients.square().sum()
    assert found[0] == pytest.approx((total.item() - 1) / 7, rel=1e-4)
    assert found[1:] == pytest.approx(expected[-len(found[1:]) :], rel=1e-4)
    assert found[0] > 0.1


def test_batch_norms_keep_the_output_and_average_over_pixels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1))
    images = torch.randn(5, 3, 6, 6)
    with torch.no_grad():
        model[1].weight.uniform_(0.5, 1.5)
        model[1].bias.uniform_(-1, 1)
    hidden = model[0](images).detach()
    variance, mean = torch.var_mean(hidden, dim=(0, 2, 3), correction=0)
    model.eval()  # the same statistics, constants by themselves
    model[1].running_mean, model[1].running_var = mean, variance
    expected = gradient_correlation(model, images).column("correlation")
    found = gradient_correlation(model.train(), images).column("correlation")
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_autocorrelation_is_the_sum_over_the_points_of_the_line() -> None:
    model, x = network(), 3 * torch.randn(4, 5)
    share = torch.linspace(0, 1, 40)[:, None]
    gradients = input_gradients(model, x[1] + share * (x[3] - x[1]))
    centred = gradients - gradients.mean(dim=0)
    expected = [
        (centred[: 40 - lag] * centred[lag:]).sum().item() / centred.square().sum().item()
        for lag in range(11)
    ]
    found = shattering(model, x, between=(1, 3), points=40)
    assert found.lags == tuple(range(11))
    assert found.correlation == pytest.approx(expected, rel=1e-4, abs=1e-5)
    row = found.profile.at("(input)")
    assert row["neighbours"] == pytest.approx(expected[1], rel=1e-4)
    assert row["whiteness"] == pytest.approx(found.whiteness)
    below = next(lag for lag, value in enumerate(expected) if value < 0.5)
    assert below - 1 <= row["half-length"] <= below


def test_white_and_brown_are_what_simulated_noise_has() -> None:
    found = shattering(network(), torch.randn(2, 5), points=64)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, 64, generator=generator, dtype=torch.float64)
    for series, expected in ((noise, found.white), (noise.cumsum(dim=1), found.brown)):
        centred = series - series.mean(dim=1, keepdim=True)
        for lag in (1, 5, 16):
            measured = (centred[:, :-lag] * centred[:, lag:]).sum() / centred.square().sum()
            assert measured.item() == pytest.approx(expected[lag], abs=0.01)


def test_whiteness_is_0_for_brown_and_1_for_white() -> None:
    class Given(nn.Module):
        """Its gradient at the points of the line is a given series."""

        def __init__(self, series: Tensor) -> None:
            super().__init__()
            self.series = series

        def forward(self, x: Tensor) -> Tensor:
            return x * self.series

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(256, 400, generator=generator)
    ends = torch.stack([torch.zeros(400), torch.ones(400)])
    assert shattering(Given(noise), ends).whiteness == pytest.approx(1.0, abs=0.02)
    assert shattering(Given(noise.cumsum(0)), ends).whiteness == pytest.approx(0.0, abs=0.1)


def test_a_linear_network_has_one_gradient_for_all() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    found = shattering(model, torch.randn(2, 3), points=16)
    assert found.correlation == (1.0,) * 5
    assert math.isinf(found.profile.at("(input)")["half-length"])


def test_a_gradient_of_zero_has_no_correlation() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.ReLU())
    nn.init.constant_(model[0].bias, -100.0)
    assert all(map(math.isnan, shattering(model, torch.zeros(2, 3), points=8).correlation))
    assert math.isnan(gradient_correlation(model, torch.zeros(2, 3)).column("correlation")[0])


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.head = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.embed(tokens)
        if mask is not None:
            hidden = hidden * mask[..., None]
        return self.head(hidden.mean(dim=1))


def test_tokens_are_interpolated_behind_the_embedding() -> None:
    torch.manual_seed(0)
    model, tokens = Tokens(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(MeasurementError, match="start='embed'"):
        shattering(model, tokens, points=16)
    found = shattering(model, tokens, points=16, start="embed")
    first, last = model.embed(tokens).detach()
    share = torch.linspace(0, 1, 16)[:, None, None]
    line = first + share * (last - first)
    gradients = input_gradients(lambda x: model.head(x.mean(dim=1)), line).flatten(1)  # type: ignore[arg-type]
    centred = gradients - gradients.mean(dim=0)
    expected = (centred[:-1] * centred[1:]).sum() / centred.square().sum()
    assert found.correlation[1] == pytest.approx(expected.item(), rel=1e-4)
    assert found.profile.layers[0] == "embed"


def test_the_other_inputs_are_those_of_the_first_example() -> None:
    torch.manual_seed(0)
    model = Tokens()
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    half = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    mixed = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    one, two = (
        shattering(model, {"tokens": tokens, "mask": mask}, points=16, start="embed")
        for mask in (half, mixed)
    )
    assert one.correlation == two.correlation


def test_layers_without_a_row_for_each_example_are_nan() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.transpose(0, 1)).sum(dim=0)  # [B, T, D] runs as [T, B, D]

    profile = gradient_correlation(Turned(), torch.randn(3, 5, 2))
    assert math.isnan(profile.at("linear")["correlation"])
    assert profile.at("(input)")["correlation"] == pytest.approx(1.0)


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    x = torch.randn(3, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random, given = capture_random_state(), x.clone()
    shattering(model, x, points=8)
    gradient_correlation(model, x)
    assert torch.equal(capture_random_state().torch, random.torch)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(x, given) and not x.requires_grad and model.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": 7}, "8 points or more"),
        ({"between": (0, 2)}, "between two of the 2 examples"),
    ],
)
def test_arguments_out_of_range_are_described(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        shattering(network(), torch.randn(2, 5), **arguments)


def test_what_cannot_be_compared_is_described() -> None:
    with pytest.raises(MeasurementError, match="two examples or more"):
        gradient_correlation(network(), torch.randn(1, 5))
    with pytest.raises(UnknownNameError, match="layer"):
        gradient_correlation(network(), torch.randn(2, 5), start="zero")
    with pytest.raises(MeasurementError, match=r"a row for each of the 2 examples[\s\S]*\(5, 2\)"):
        gradient_correlation(Sideways(), torch.randn(2, 5))
    with pytest.raises(MeasurementError, match="no path of gradients"):
        gradient_correlation(Detached(), torch.randn(2, 5))
    with pytest.raises(MeasurementError, match="'unused' was not called"):
        shattering(Detached(), torch.randn(2, 5), start="unused")
    with pytest.raises(MeasurementError, match="finite inputs"):
        shattering(network(), torch.full((2, 5), math.nan))


class Sideways(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.t()


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x.detach()
