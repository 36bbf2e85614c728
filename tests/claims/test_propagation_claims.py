"""The literature's statements on signal propagation, each with its number.

Tolerances come from sampling: through a layer of N units whose activation has the excess
k = E[f^4] / E[f^2]^2 - 1 (5 for ReLU, 2 for a linear layer) the logarithm of the mean square
wanders by sqrt(k / N), through L layers by sqrt(L k / N).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.measure.signals.gaussian_expectation import gaussian_mean
from leadline.measure.signals.mean_field import MeanField, edge_of_chaos, mean_field_of
from leadline.measure.signals.propagation import signal_propagation
from leadline.nn.initialisation import initialise
from leadline.nn.residual import ResidualAdd, ResidualBlock


class Dense(nn.Module):
    """A plain dense network of `depth` layers, an activation behind each."""

    def __init__(self, activation: Callable[[Tensor], Tensor], *, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.activation(functional.linear(x, layer.weight, layer.bias))
        return x


def sums(model: nn.Module, inputs: Tensor, column: str) -> list[float]:
    """A column at the linear layers."""
    profile = signal_propagation(model, inputs)
    rows = zip(profile.layers, profile.column(column), strict=True)
    return [value for name, value in rows if name.startswith("linear")]


def draw(model: nn.Module, field: MeanField, width: int) -> None:
    """Draw all weights and biases of a network from the theory's variances."""
    for parameter in model.parameters():
        variance = field.weight_variance / width if parameter.ndim == 2 else field.bias_variance
        nn.init.normal_(parameter, std=variance**0.5)


def test_he_keeps_relu_s_variance_ratio_between_a_half_and_two_over_50_layers() -> None:
    """He et al. 2015, section 2.2. The mean over 24 networks errs by sqrt(e^(5 50 / N) - 1) / sqrt
    24 = 0.16 at the last layer: three of these fit between 1 and 0.5.
    """
    width, depth = 512, 50
    ratios = []
    model = Dense(torch.relu, width=width, depth=depth)
    for seed in range(24):
        torch.manual_seed(seed)
        initialise(model, scheme="he", activation="relu")
        ratio = torch.tensor(sums(model, torch.randn(4, width), "second_moment"))
        ratios.append(ratio / ratio[0])
        layers = torch.arange(1, depth + 1)
        wandered = (5 * layers / width).sqrt()
        assert bool((ratios[-1].log().abs() < 5 * wandered + wandered.square() / 2).all())
    mean = torch.stack(ratios).mean(dim=0)
    assert float(mean.min()) > 0.5
    assert float(mean.max()) < 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "activation", "factor", "excess"),
    [("relu", torch.relu, 0.5, 5), ("linear", nn.Identity(), 1.0, 2)],
)
def test_xavier_keeps_a_linear_network_s_variance_and_relu_halves_it_each_layer(
    name: str, activation: Callable[[Tensor], Tensor], factor: float, excess: float, seed: int
) -> None:
    """Glorot & Bengio 2010; the half is He et al. 2015, equation 10 against 14."""
    torch.manual_seed(seed)
    width, depth = 512, 30
    model = Dense(activation, width=width, depth=depth)
    initialise(model, scheme="xavier", activation="relu")
    found = sums(model, torch.randn(4, width), "second_moment")
    per_layer = (found[-1] / found[0]) ** (1 / (depth - 1))
    assert per_layer == pytest.approx(factor, rel=5 * math.sqrt(excess / width / depth))


def test_xavier_with_tanh_keeps_small_signals_and_large_ones_decay_slowly() -> None:
    """Glorot & Bengio 2010 near 0, where tanh is linear. With sw = 1 is q' = q - 2 q^2 + ...,
    hence q = 1 / (2 l): a power law, the sign of criticality (Schoenholz et al. 2017, section 3).
    """
    field = mean_field_of("xavier", activation="tanh")
    assert field.fixed_point().phase == "critical"
    variance = 1.0
    for _ in range(999):
        variance = field.variance_map(variance)
    assert variance == pytest.approx(1 / 2000, rel=0.02)
    width = 512
    torch.manual_seed(0)
    model = Dense(torch.tanh, width=width, depth=50)
    initialise(model, scheme="xavier", activation="tanh")
    inputs = torch.randn(4, width)
    wandered = 5 * (2 * 50 / width) ** 0.5
    small = sums(model, 0.01 * inputs, "second_moment")
    assert abs(math.log(small[-1] / small[0])) < wandered
    large = sums(model, inputs, "second_moment")
    assert abs(math.log(large[-1] * 100)) < wandered


def test_selu_with_lecun_s_weights_tends_to_mean_0_and_variance_1() -> None:
    """Klambauer et al. 2017, arXiv:1706.02515, theorem 1; the slope 0.782648 is their J(0, 1)."""
    selu = nn.SELU()
    assert float(gaussian_mean(selu)) == pytest.approx(0, abs=1e-6)
    field = mean_field_of("lecun", activation="selu")
    assert field.variance_map(1.0) == pytest.approx(1, abs=1e-6)
    slope = (field.variance_map(1 + 1e-5) - field.variance_map(1 - 1e-5)) / 2e-5
    assert slope == pytest.approx(0.782648, abs=1e-5)
    width = 1000
    excess = float(gaussian_mean(lambda x: selu(x) ** 4)) - 1
    wandered = math.sqrt(excess / width / (1 - slope**2))  # deviations fade by the slope
    for seed, start in enumerate((0.3, 1.0, 3.0)):
        torch.manual_seed(seed)
        model = Dense(functional.selu, width=width, depth=40)
        initialise(model, scheme="lecun", activation="selu")
        profile = signal_propagation(model, start * torch.randn(4, width) + 0.3)
        last = profile.at(profile.layers[-1])
        assert last["second_moment"] == pytest.approx(1, abs=5 * wandered)
        assert last["mean"] == pytest.approx(0, abs=5 / math.sqrt(width))


def test_orthogonal_weights_keep_every_norm_of_a_deep_linear_network() -> None:
    """Saxe et al. 2013, arXiv:1312.6120: dynamical isometry at any depth."""
    torch.manual_seed(0)
    model = Dense(nn.Identity(), width=64, depth=200)
    initialise(model, scheme="orthogonal", activation="selu")  # gain 1
    inputs = torch.randn(8, 64)
    found = sums(model, inputs, "second_moment")
    assert found == pytest.approx([float(inputs.square().mean())] * 200, rel=1e-4)
    cosines = sums(model, inputs, "cosine")
    assert cosines == pytest.approx([cosines[0]] * 200, abs=1e-4)


@pytest.mark.parametrize(
    ("deviation", "phase"), [(1.3, "ordered"), (2.5, "chaotic"), (4.0, "chaotic")]
)
def test_tanh_is_ordered_at_1_3_and_chaotic_at_2_5(deviation: float, phase: str) -> None:
    """Poole et al. 2016, arXiv:1606.05340, figure 2: sb = 0.3, sw = 1.3, 2.5 and 4."""
    field = MeanField(activation="tanh", weight_variance=deviation**2, bias_variance=0.09)
    point = field.fixed_point()
    assert point.phase == phase
    assert (point.correlation == 1) == (phase == "ordered")
    width, depth, start = 1000, 40, 0.6
    torch.manual_seed(0)
    model = Dense(torch.tanh, width=width, depth=depth)
    draw(model, field, width)
    shared, own = torch.randn(1, width), torch.randn(8, width)
    inputs = (start**0.5 * shared + (1 - start) ** 0.5 * own) * point.variance**0.5
    found = sums(model, inputs, "cosine")
    if phase == "ordered":  # all inputs become alike
        assert found[-1] > 0.97
        assert found[-1] > found[0]
    else:  # neighbours part, down to c*
        assert found[-1] == pytest.approx(point.correlation, abs=5 / width**0.5)
        assert found[-1] < found[0]


def test_relu_is_critical_at_sw2_two_and_no_biases_alone() -> None:
    """Schoenholz et al. 2017; Hayou et al. 2019, arXiv:1902.06853: the edge of chaos is a point."""
    for variance in (0.1, 1.0, 30.0):
        point = edge_of_chaos("relu", variance=variance)
        assert (point.weight_variance, point.bias_variance) == (pytest.approx(2.0), 0.0)
    point = mean_field_of("he", activation="relu").fixed_point(start=3.0)
    assert (point.variance, point.slope, point.correlation) == (3.0, pytest.approx(1.0), 1.0)
    assert point.correlation_depth == math.inf


def test_on_relu_s_critical_line_inputs_become_alike_by_a_power_law() -> None:
    """Hayou et al. 2019, proposition 1: 1 - c is about 9 pi^2 / (2 l^2) at depth l."""
    field = mean_field_of("he", activation="relu")
    depth = 1000
    last = 0.0
    for _ in range(depth - 1):
        last = field.correlation_map(last, variance=1.0)
    assert (1 - last) * depth**2 == pytest.approx(9 * math.pi**2 / 2, rel=0.05)


class Block(ResidualBlock):
    """x + scale f(norm(x)) with f of two linear layers and a ReLU between them."""

    def __init__(self, width: int, *, scale: float, norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.join = ResidualAdd()
        self.scale = scale

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return ((self.first, self.second),)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.first(self.norm(x)))
        result: Tensor = self.join(self.scale * self.second(hidden), shortcut=x)
        return result


def stream(
    *, blocks: int, scale: float = 1.0, norm: bool = False, scheme: str = "he"
) -> tuple[Tensor, Tensor]:
    """The mean square of the residual stream behind each block relative to the input's.

    Mean over eight networks and its standard error. He's gain on the branch's last layer, behind
    which no ReLU comes, is taken back, so that a branch keeps the variance of its input.
    """
    width, found = 256, []
    model = nn.Sequential(*(Block(width, scale=scale, norm=norm) for _ in range(blocks)))
    for seed in range(8):
        torch.manual_seed(seed)
        initialise(model, scheme=scheme, activation="relu")
        for block in model:
            block.second.weight.data /= 2**0.5
        inputs = torch.randn(64, width)
        profile = signal_propagation(model, inputs)
        start = float(inputs.square().mean())
        found.append([profile.at(f"{i}.join/add")["second_moment"] / start for i in range(blocks)])
    table = torch.tensor(found)
    return table.mean(dim=0), table.std(dim=0) / len(table) ** 0.5


def test_a_residual_stream_without_norm_doubles_its_variance_in_every_block() -> None:
    """Zhang et al. 2019 (Fixup, arXiv:1901.09321), section 2: Var x_l = 2^l Var x_0."""
    blocks = 8
    mean, error = stream(blocks=blocks)
    expected = 2.0 ** torch.arange(1, blocks + 1)
    assert bool(((mean - expected).abs() < 4 * error).all())
    assert bool((error < 0.1 * expected).all())


def test_a_normalised_branch_lets_the_variance_grow_by_one_per_block() -> None:
    """De & Smith 2020, arXiv:2002.10444: Var x_l = l + 1."""
    blocks = 12
    mean, error = stream(blocks=blocks, norm=True)
    expected = torch.arange(2.0, blocks + 2)
    assert bool(((mean - expected).abs() < 4 * error + 0.01).all())
    assert bool((error < 0.05 * expected).all())


def test_a_branch_divided_by_the_root_of_the_depth_keeps_the_variance_below_e() -> None:
    """(1 + 1/L)^L < e: Arpit et al. 2019, arXiv:1906.02341; Hayou et al. 2021, arXiv:2010.12859."""
    blocks = 12
    mean, error = stream(blocks=blocks, scale=blocks**-0.5)
    assert float(mean[-1]) == pytest.approx((1 + 1 / blocks) ** blocks, abs=4 * float(error[-1]))
    assert float(mean[-1]) < math.e + 4 * float(error[-1])
    assert float(error[-1]) < 0.2


@pytest.mark.parametrize("scheme", ["fixup", "zero_last"])
def test_a_branch_that_starts_at_zero_keeps_the_signal_exactly(scheme: str) -> None:
    """Goyal et al. 2017, arXiv:1706.02677, section 5.1; Zhang et al. 2019."""
    mean, _ = stream(blocks=6, scheme=scheme)
    assert mean.tolist() == pytest.approx([1.0] * 6, rel=1e-5)


def test_a_layer_scale_of_one_in_ten_thousand_keeps_the_signal_nearly() -> None:
    """Touvron et al. 2021 (CaiT, arXiv:2103.17239): layer scale starts at 1e-4 and below."""
    mean, _ = stream(blocks=6, scale=1e-4)
    assert mean.tolist() == pytest.approx([1.0] * 6, rel=1e-4)
