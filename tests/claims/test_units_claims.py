"""What the literature says of dead units, attention and similar layers, each with its number."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from leadline.measure.representations.rank import representation_rank
from leadline.measure.representations.similarity import layer_similarity
from leadline.measure.units.attention import attention_heads
from leadline.measure.units.units import duplicate_units, units

LAYERS = ("relu1", "relu2", "relu3", "relu4")


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    inputs = torch.tensor(data.data, dtype=torch.float32)
    return (inputs - inputs.mean()) / inputs.std(), torch.tensor(data.target)


def perceptron(seed: int, *, width: int = 64) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential()
    for depth, fan_in in enumerate((64, *(width,) * 3), start=1):
        model.add_module(f"linear{depth}", nn.Linear(fan_in, width))
        nn.init.kaiming_normal_(model[-1].weight, nonlinearity="relu")
        nn.init.zeros_(model[-1].bias)
        model.add_module(f"relu{depth}", nn.ReLU())
    model.add_module("head", nn.Linear(width, 10))
    return model


def train(model: nn.Module, *, lr: float, steps: int, seed: int = 0) -> nn.Module:
    inputs, targets = digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (64,), generator=generator)
        loss = functional.cross_entropy(model(inputs[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_at_the_start_half_of_the_entries_after_a_relu_are_zero(seed: int) -> None:
    """Glorot, Bordes & Bengio 2011: 'around 50% of hidden units continuous output values are real
    zeros'."""
    model = perceptron(seed, width=512)
    profile = units(model, torch.randn(256, 64, generator=torch.Generator().manual_seed(seed)))
    for layer in LAYERS:
        # 512 units whose weights' signs agree with the input by chance: 0.5 +- 0.02 each, and
        # a mean over units of the earlier layers' positive outputs that moves all of them.
        assert profile.at(layer)["zeros"] == pytest.approx(0.5, abs=0.08)
    assert profile.at("relu1")["dead"] < 0.01


def test_a_large_negative_bias_kills_every_unit() -> None:
    """The dying ReLU (Lu et al. 2019): zero output and slope for all inputs, hence for good."""
    model = perceptron(0)
    with torch.no_grad():
        model.get_submodule("linear2").bias.fill_(-100.0)  # type: ignore[union-attr,operator]
    inputs, targets = digits()
    profile = units(model, inputs)
    assert profile.at("relu2")["dead"] == 1.0
    assert profile.at("relu2")["zeros"] == 1.0
    assert profile.at("relu1")["dead"] < 0.1
    functional.cross_entropy(model(inputs), targets).backward()
    gradient = model.get_submodule("linear1").weight.grad
    assert isinstance(gradient, Tensor) and not gradient.any()


def test_a_huge_learning_rate_kills_units_that_a_moderate_one_keeps() -> None:
    """CS231n, neural networks 1: 'as much as 40 %' of a network can be dead 'if the learning rate
    is set too high'; here, at a thousand times the moderate one, a whole layer."""
    inputs, _ = digits()
    healthy = units(train(perceptron(0), lr=0.01, steps=30), inputs).column("dead")
    killed = units(train(perceptron(0), lr=10.0, steps=30), inputs).column("dead")
    assert max(healthy) < 0.4
    assert max(killed) == 1.0


def test_a_constant_layer_keeps_all_its_units_alike_through_training() -> None:
    """Goodfellow et al. 2016, 8.4: training 'will constantly update both of these units in the
    same way'."""
    model = perceptron(0)
    layer = model.get_submodule("linear2")
    nn.init.constant_(layer.weight, 0.02)  # type: ignore[arg-type]
    for name in ("linear3", "linear4", "head"):  # else what comes back breaks the symmetry
        nn.init.constant_(model.get_submodule(name).weight, 0.02)  # type: ignore[arg-type]
    inputs, _ = digits()
    before = duplicate_units(model, inputs)
    assert before.at("linear1")["duplicate"] == 0.0
    assert before.at("linear2")["duplicate"] == 1.0
    trained = train(model, lr=0.01, steps=20)
    assert duplicate_units(trained, inputs).at("linear2")["duplicate"] == 1.0
    assert units(trained, inputs).at("relu2")["duplicate"] == 1.0


def test_large_weights_saturate_a_sigmoid() -> None:
    """Glorot & Bengio 2010: saturated units pass hardly a gradient; the slope is y (1 - y)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.Sigmoid())
    inputs = torch.randn(256, 64)
    nn.init.normal_(model[0].weight, std=1 / 8)
    calm = units(model, inputs).at("1")
    nn.init.normal_(model[0].weight, std=100.0)
    wild = units(model, inputs).at("1")
    # Inputs of the sigmoid are N(0, 800^2): beyond 4.36, where 4 y (1 - y) = 0.05, in all but
    # 4.36 sqrt(2 / pi) / 800 = 0.43 % of the entries.
    assert wild["flat"] == pytest.approx(1 - 0.0043, abs=0.001)
    assert wild["saturated"] + wild["dead"] == pytest.approx(1.0)
    assert calm["flat"] < 0.001
    assert calm["saturated"] == calm["dead"] == 0.0


def test_the_same_layers_of_two_trainings_correspond_and_more_so_when_wide() -> None:
    """Kornblith et al. 2019, figures 2 and 5: CKA finds a layer again in another run; it grows
    with the width. There ten convolutions on CIFAR-10, here four layers on digits."""
    inputs, _ = digits()
    diagonal, rightly = {}, {}
    for width in (32, 256):
        runs = [train(perceptron(s, width=width), lr=0.02, steps=250, seed=s) for s in range(3)]
        matrices = [
            layer_similarity(first, inputs[:400], other=second, layers=LAYERS)
            for first, second in itertools.permutations(runs, 2)
        ]
        mean = torch.tensor([matrix.values for matrix in matrices]).mean(0)
        diagonal[width] = mean.diagonal()
        found = [row == best for m in matrices for row, best in m.most_similar().items()]
        rightly[width] = sum(found) / len(found)
    assert rightly[256] > 0.6  # by chance 0.25
    assert mean.argmax(1).tolist() == [0, 1, 2, 3]
    assert (mean.diagonal() > (mean.sum(1) - mean.diagonal()) / 3 + 0.01).all()
    assert (diagonal[256] > diagonal[32]).all()


class AttentionStack(nn.Module):
    """Layers of self-attention alone, with or without skip connections (Dong et al. 2021)."""

    def __init__(self, *, depth: int, width: int, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.values = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.queries = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        for layer in (*self.values, *self.queries):
            nn.init.orthogonal_(layer.weight)
        self.ends = nn.ModuleList(nn.Identity() for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for value, query, end in zip(self.values, self.queries, self.ends, strict=True):
            mixed = functional.scaled_dot_product_attention(query(x), x, value(x))
            x = end(x + mixed if self.skip else mixed)
        return x


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_attention_without_skips_loses_rank_doubly_exponentially(seed: int) -> None:
    """Dong et al. 2021: without skips the distance to rank 1 cubes in each layer; with, it stays.

    The residual, X less its mean token, is `spread` times |X|; from |res| to C |res|^3 per layer,
    the logarithm of the spread falls by more and more.
    """
    torch.manual_seed(seed)
    tokens = torch.randn(1, 32, 64, dtype=torch.float64)
    depth = 8
    spreads = {}
    for skip in (False, True):
        torch.manual_seed(seed)
        model = AttentionStack(depth=depth, width=64, skip=skip).double()
        profile = representation_rank(model, tokens)
        spreads[skip] = [profile.at(f"ends.{i}")["spread"] for i in range(depth)]
    logs = [math.log(spread) for spread in spreads[False][:3]]
    # Of an exponential decay the two steps would be the same; the third layer is near rounding.
    assert logs[2] - logs[1] < 2 * (logs[1] - logs[0])
    assert spreads[False][3] < 1e-12
    assert min(spreads[True]) > 0.2


def test_scores_of_growing_size_collapse_the_entropy_of_attention() -> None:
    """Zhai et al. 2023: the entropy falls to 0 as the spectral norm of Q K^T grows."""
    torch.manual_seed(0)
    tokens = torch.randn(2, 1, 64, 16)

    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, x: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(x, x, x, scale=self.scale)

    ratios = [
        attention_heads(Scaled(scale), tokens).values["ratio"][0]
        for scale in (0.0, 0.1, 0.3, 1.0, 10.0)
    ]
    assert ratios[0] == pytest.approx(1.0, abs=1e-6)
    assert all(later < earlier for earlier, later in itertools.pairwise(ratios))
    assert ratios[-1] < 0.01
    assert math.isfinite(sum(ratios))
