"""The literature's statements on the gradient's way back, each with its number.

Where weights are drawn at random, several networks are; the tolerance is four standard errors of
their mean, and the error itself is bounded, so that a wide spread cannot hide a wrong mean.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.measure.gradients.gradient_noise import gradient_noise_scale
from leadline.measure.gradients.gradients import gradient_flow, parameter_gradients
from leadline.measure.gradients.updates import update_ratio
from leadline.measure.signals.mean_field import MeanField
from leadline.nn.initialisation import initialise


def total(outputs: Any, targets: Any) -> Tensor:
    return outputs.sum()


def random_direction(outputs: Tensor, targets: Any) -> Tensor:
    """A loss whose gradient by the outputs is Gaussian: none of the network's own directions."""
    generator = torch.Generator().manual_seed(0)
    return (outputs * torch.randn(outputs.shape, generator=generator)).sum()


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5


class Stack(nn.Module):
    """`depth` times linear, norm, activation, called as functions."""

    def __init__(
        self, activation: Callable[[Tensor], Tensor], *, width: int, depth: int, norm: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.activation = activation
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = functional.linear(x, layer.weight, layer.bias)
            if self.norm:
                x = functional.batch_norm(x, None, None, training=True)
            x = self.activation(x)
        return x


def squared_ratios(model: nn.Module, inputs: Tensor) -> list[float]:
    """|g_l|^2 / |g_last|^2 with respect to the outputs of the linear layers, first to last."""
    profile = gradient_flow(model, inputs, loss=random_direction)
    norms = [
        norm
        for name, norm in zip(profile.layers, profile.column("norm"), strict=True)
        if name.startswith("linear")
    ]
    return [(norm / norms[-1]) ** 2 for norm in norms]


def test_a_sigmoid_s_slope_is_at_most_a_quarter() -> None:
    """s (1 - s), largest at 0 (LeCun et al. 1998, Efficient BackProp; Glorot & Bengio 2010)."""
    places = torch.linspace(-20, 20, 4001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.sigmoid(places).sum(), places)
    assert float(slope.max()) == 0.25
    assert float(places.detach()[slope.argmax()]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ten_sigmoids_pass_at_most_a_quarter_to_the_tenth_times_the_weights(seed: int) -> None:
    """Hochreiter 1991; Bengio et al. 1994: slopes times weights bound the gradient."""
    torch.manual_seed(seed)
    blocks = (nn.Sequential(nn.Sigmoid(), nn.Linear(8, 8)) for _ in range(10))
    model = nn.Sequential(nn.Linear(8, 8), *blocks)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    sizes = [float(torch.linalg.matrix_norm(block[1].weight.detach(), 2)) for block in model[1:]]
    ratio = gradient_flow(model, torch.randn(4, 8), loss=total).column("ratio")[0]
    assert 0 < ratio <= 0.25**10 * math.prod(sizes)


def test_a_chain_of_ten_sigmoids_at_zero_passes_a_quarter_to_the_tenth() -> None:
    """The bound is met where every sum is 0: biases of -w / 2 and weights of 1."""
    model = nn.Sequential(*(nn.Sequential(nn.Sigmoid(), nn.Linear(1, 1)) for _ in range(10)))
    for block in model:
        nn.init.constant_(block[1].weight, 1.0)
        nn.init.constant_(block[1].bias, -0.5)
    model.insert(0, nn.Linear(1, 1, bias=False))
    ratio = gradient_flow(model, torch.zeros(1, 1), loss=total).column("ratio")[0]
    assert ratio == pytest.approx(0.25**10, rel=1e-5)
    assert ratio == pytest.approx(9.54e-7, rel=1e-3)


def test_ten_layers_at_nine_tenths_each_pass_thirty_five_percent() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(11)))
    for layer in model:
        nn.init.eye_(layer.weight)
        layer.weight.data *= 0.9
    ratio = gradient_flow(model, torch.randn(2, 4), loss=total).column("ratio")[0]
    assert ratio == pytest.approx(0.35, abs=0.005)


def test_orthogonal_weights_keep_the_gradient_s_norm_at_any_depth() -> None:
    """Saxe et al. 2013, arXiv:1312.6120."""
    torch.manual_seed(0)
    model = Stack(nn.Identity(), width=64, depth=200)
    initialise(model, scheme="orthogonal", activation="selu")  # gain 1
    assert squared_ratios(model, torch.randn(8, 64)) == pytest.approx([1.0] * 200, rel=1e-4)


@pytest.mark.parametrize(("deviation", "grows"), [(1.3, False), (2.5, True)])
def test_the_gradient_s_mean_square_changes_by_chi_in_every_layer(
    deviation: float, grows: bool
) -> None:
    """Schoenholz et al. 2017, arXiv:1611.01232, section 4: it vanishes in the ordered phase,
    explodes in the chaotic one.
    """
    field = MeanField(activation="tanh", weight_variance=deviation**2, bias_variance=0.09)
    point = field.fixed_point()
    width, depth, per_layer = 400, 20, []
    for seed in range(8):
        torch.manual_seed(seed)
        model = Stack(torch.tanh, width=width, depth=depth)
        for layer in model.layers:
            nn.init.normal_(layer.weight, std=deviation / width**0.5)  # type: ignore[arg-type]
            nn.init.normal_(layer.bias, std=0.3)  # type: ignore[arg-type]
        inputs = torch.randn(8, width) * point.variance**0.5
        # One layer in, its size has settled; both ends count the same kind of gradient.
        first = squared_ratios(model, inputs)[1]
        per_layer.append(math.log(first) / (depth - 2))
    mean, error = mean_and_error(per_layer)
    assert (mean > 0) == grows
    assert mean == pytest.approx(math.log(point.slope), abs=4 * error + 0.01)
    assert error < 0.03


def test_batch_norm_makes_the_gradient_of_a_plain_relu_network_explode() -> None:
    """Yang et al. 2019, arXiv:1902.08129: its mean square grows by pi / (pi - 1) = 1.467 per layer
    for large batches, its norm by the root of that, 1.21. The reason: before the
    norm only the share 1 - 1/pi of the signal's mean square varies over the batch.
    """
    width, depth, per_layer = 512, 30, []
    for seed in range(5):
        torch.manual_seed(seed)
        model = Stack(torch.relu, width=width, depth=depth, norm=True)
        initialise(model, scheme="he", activation="relu")
        first = squared_ratios(model, torch.randn(256, width))[5]
        per_layer.append(first ** (1 / (depth - 6)))
    mean, error = mean_and_error(per_layer)
    # A batch of B and a width of N leave a share of the order of 1/B and 1/N.
    assert mean == pytest.approx(math.pi / (math.pi - 1), abs=4 * error + 0.02)
    assert mean**0.5 == pytest.approx(1.21, abs=0.02)
    assert error < 0.02


def test_without_the_norm_the_same_network_keeps_its_gradient() -> None:
    """The control experiment: He's weights, the mean square within a factor of chance."""
    width, depth, found = 512, 30, []
    for seed in range(5):
        torch.manual_seed(seed)
        model = Stack(torch.relu, width=width, depth=depth)
        initialise(model, scheme="he", activation="relu")
        first = squared_ratios(model, torch.randn(16, width))[5]
        found.append(first ** (1 / (depth - 6)))
    mean, error = mean_and_error(found)
    assert mean == pytest.approx(1, abs=4 * error + 0.01)
    assert error < 0.02


def transformer_gradients(*, layers: int, norm_first: bool, seed: int) -> tuple[float, float]:
    """The gradient's norm at the last linear map of the first and of the last transformer layer.

    As in the paper's section 3.3: one head of uniform attention, a feed-forward part as wide as the
    stream, all other matrices of variance 1 / d, a norm behind the last layer with the norm first.
    """
    width, vocabulary = 32, 50
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(
        width, 1, width, dropout=0.0, batch_first=True, norm_first=norm_first
    )
    encoder = nn.TransformerEncoder(
        layer,
        layers,
        norm=nn.LayerNorm(width) if norm_first else None,
        enable_nested_tensor=False,
    )
    model = nn.Sequential(encoder, nn.Linear(width, vocabulary))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=width**-0.5)
        if name.endswith("in_proj_weight"):
            parameter.data[: 2 * width] = 0  # queries and keys
    inputs = torch.randn(8, 8, width)
    targets = torch.randint(vocabulary, (8, 8))
    profile = parameter_gradients(
        model,
        (inputs, targets),
        loss=lambda outputs, targets: functional.cross_entropy(outputs.transpose(1, 2), targets),
    )
    first, last = (f"0.layers.{number}.linear2.weight" for number in (0, layers - 1))
    return profile.at(first)["norm"], profile.at(last)["norm"]


def exponent(depths: list[int], values: list[float]) -> float:
    """The slope of log value over log depth, by least squares."""
    x = torch.tensor(depths).double().log()
    y = torch.tensor(values).double().log()
    x = x - x.mean()
    return float((x @ (y - y.mean())) / (x @ x))


@pytest.mark.parametrize("norm_first", [True, False])
def test_gradients_of_the_last_layer_fall_with_depth_when_the_norm_comes_first(
    norm_first: bool,
) -> None:
    """Xiong et al. 2020, arXiv:2002.04745, theorem 1: of the order of d sqrt(ln d / L) with the
    norm first (pre-norm), of d sqrt(ln d) at any number L of layers with the norm last.
    """
    depths, found = [4, 8, 16, 32], []
    for seed in range(8):
        last = [
            transformer_gradients(layers=depth, norm_first=norm_first, seed=seed)[1]
            for depth in depths
        ]
        found.append(exponent(depths, last))
    mean, error = mean_and_error(found)
    assert error < 0.1
    if norm_first:
        # The stream's mean square is 1 + L/2 to 1 + 3L/2, whose -1/2 has a slope of -0.44 here.
        assert mean == pytest.approx(-0.44, abs=4 * error)
        assert mean + 2 * error < -0.25
    else:  # nearer to 0 than to -1/2, or growing
        assert mean - 2 * error > -0.25


def test_with_the_norm_last_gradients_die_out_towards_the_input_of_a_deep_transformer() -> None:
    """Xiong et al. 2020, section 3.3: by up to 2^-((L - l) / 2), hence the warm-up it needs."""
    for seed in range(3):
        first, last = transformer_gradients(layers=64, norm_first=True, seed=seed)
        assert first / last > 0.5
        first, last = transformer_gradients(layers=64, norm_first=False, seed=seed)
        assert first / last < 0.2


def test_at_the_noise_scale_half_of_a_gradient_s_square_is_noise() -> None:
    """McCandlish et al. 2018, arXiv:1812.06162, appendix A: E|g_B|^2 = |G|^2 + tr(Sigma) / B."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(20000, 8, generator=generator)
    targets = inputs[:, :1] + 3 * torch.randn(20000, 1, generator=generator)
    noise = gradient_noise_scale(model, (inputs, targets), loss=functional.mse_loss, parts=200)
    size = round(noise.noise_scale)
    assert 10 < size < 1000
    squares = []
    for _ in range(300):
        chosen = torch.randint(20000, (size,), generator=generator)
        loss = functional.mse_loss(model(inputs[chosen]), targets[chosen])
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        squares.append(sum(float(part.square().sum()) for part in gradient))
    mean, error = mean_and_error([square / noise.squared_norm for square in squares])
    own_error = noise.standard_error / noise.noise_scale
    assert mean == pytest.approx(2, abs=4 * error + 4 * own_error)
    assert 4 * error + 4 * own_error < 0.7


def test_adam_s_first_step_moves_every_weight_by_the_learning_rate() -> None:
    """Kingma & Ba 2015, arXiv:1412.6980, section 2.1: hence ratio = lr / rms(w)."""
    torch.manual_seed(0)
    model = nn.Linear(30, 20)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=0.0)
    profile = update_ratio(model, torch.randn(5, 30), optimizer=optimizer, loss=total)
    size = float(model.weight.detach().square().mean().sqrt())
    assert profile.at("weight")["ratio"] == pytest.approx(1e-3 / size, rel=1e-3)
