"""Claims that every course makes of neural networks, each with its number."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

DOUBLE = torch.float64


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_convolution_has_178_times_fewer_weights_than_a_dense_layer() -> None:
    """A CIFAR image of 32x32x3 = 3072 numbers: 100 dense units, or 64 kernels of 3x3x3."""
    dense = count(nn.Linear(32 * 32 * 3, 100, bias=False))
    convolution = count(nn.Conv2d(3, 64, 3, bias=False))
    assert (dense, convolution) == (307_200, 1_728)
    assert dense / convolution == pytest.approx(177.8, abs=0.05)


# ------------------------------------------------------------------ the worked two-layer example
# x = (2, 1), W1 = [[-1, 1], [0, -1], [1, -1]], b1 = 0, ReLU, w2 = (0.5, -2, 1), b2 = 0, sigmoid:
#     W1 x = (-1, -1, 1),   h1 = ReLU(W1 x) = (0, 0, 1),   z = w2 . h1 = 1,
#     y^ = 1 / (1 + e^-1) = 0.7310586
# and backwards, with the target 1 and the cross-entropy -ln y^ = 0.3132617:
#     dL/dz = y^ - 1 = -0.2689414,   dL/dw2 = dL/dz h1 = (0, 0, -0.2689414),   dL/db2 = dL/dz,
#     dL/d(W1 x) = (0, 0, dL/dz w2_3),   dL/dW1 = its outer product with x: only the third row,
#     (-0.5378828, -0.2689414); the two units that are off learn nothing.
EXAMPLE = torch.tensor([2.0, 1.0], dtype=DOUBLE)


def worked_example() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1), nn.Sigmoid()).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0, 1.0], [0.0, -1.0], [1.0, -1.0]]))
        model[2].weight.copy_(torch.tensor([[0.5, -2.0, 1.0]]))
        for layer in (model[0], model[2]):
            layer.bias.zero_()
    return model


def test_the_worked_example_gives_hidden_0_0_1_and_output_0_731() -> None:
    model = worked_example()
    assert model[:2](EXAMPLE).tolist() == [0.0, 0.0, 1.0]
    by_hand = 1 / (1 + math.exp(-1))
    assert by_hand == pytest.approx(0.7310586, abs=5e-8)
    assert model(EXAMPLE).item() == pytest.approx(by_hand, rel=1e-12)


def test_backpropagation_by_hand_on_the_worked_example_is_autograds() -> None:
    model = worked_example()
    loss = functional.binary_cross_entropy(model(EXAMPLE), torch.ones(1, dtype=DOUBLE))
    assert loss.item() == pytest.approx(0.3132617, abs=5e-8)
    loss.backward()
    slope = 1 / (1 + math.exp(-1)) - 1
    assert slope == pytest.approx(-0.2689414, abs=5e-8)
    assert model[2].weight.grad.tolist() == [pytest.approx([0, 0, slope])]
    assert model[2].bias.grad.tolist() == pytest.approx([slope])
    rows = [pytest.approx(row) for row in ([0, 0], [0, 0], [2 * slope, slope])]
    assert model[0].weight.grad.tolist() == rows
    assert model[0].bias.grad.tolist() == pytest.approx([0, 0, slope])


# ------------------------------------------------------------------------------------------ XOR
CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=DOUBLE)
XOR = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=DOUBLE)


def test_no_perceptron_fits_xor() -> None:
    """Minsky and Papert 1969: s(0,0) + s(1,1) = s(0,1) + s(1,0) for every linear s."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(100_000, 3, dtype=DOUBLE, generator=generator)
    scores = weights[:, :2] @ CORNERS.T + weights[:, 2:]
    torch.testing.assert_close(scores[:, 0] + scores[:, 3], scores[:, 1] + scores[:, 2])
    right = ((scores > 0).double() == XOR).sum(1)
    assert right.max() == 3
    # and the best that logistic regression can do is to say one half: a loss of ln 2
    w = torch.randn(3, dtype=DOUBLE, generator=generator).requires_grad_()
    optimizer = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(CORNERS @ w[:2] + w[2], XOR)
        value.backward()
        return value

    optimizer.step(loss)
    assert loss().item() == pytest.approx(math.log(2), abs=1e-6)


def test_two_layers_fit_xor_by_hand() -> None:
    """Goodfellow, Bengio and Courville 2016, section 6.1: ReLU(a + b) - 2 ReLU(a + b - 1)."""
    both = CORNERS.sum(1)
    assert torch.equal(both.relu() - 2 * (both - 1).relu(), XOR)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_layers_learn_xor(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(model(CORNERS)[:, 0], XOR)
        loss.backward()
        optimizer.step()
    assert loss < 0.02
    assert torch.equal((model(CORNERS)[:, 0] > 0).double(), XOR)


# ------------------------------------------------------------------- what one hidden layer can do
CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sine": lambda x: torch.sin(2 * math.pi * x),
    "absolute value": torch.abs,
    "smooth step": lambda x: torch.tanh(10 * x),
    "polynomial": lambda x: 8 * x**4 - 8 * x**2 + 1,
    "bump on a wave": lambda x: torch.exp(-20 * (x - 0.3) ** 2) + 0.3 * torch.sin(5 * x),
}
WIDE = (1, 50, 1)


class SigmoidNet:
    """A sigmoid network over one vector of weights, so that they can be fitted together."""

    def __init__(self, *widths: int) -> None:
        self.shapes = [shape for a, b in pairwise(widths) for shape in ((a, b), (b,))]
        self.sizes = [math.prod(shape) for shape in self.shapes]

    def initial(self, seed: int) -> Tensor:
        """Slopes wide enough for the interval from -1 to 1, places spread over it."""
        generator = torch.Generator().manual_seed(seed)
        scale = [6.0, 3.0] + [3 / math.sqrt(shape[0]) for shape in self.shapes[2:]]
        return torch.cat(
            [
                torch.randn(size, generator=generator, dtype=DOUBLE) * by
                for size, by in zip(self.sizes, scale, strict=True)
            ]
        )

    def __call__(self, weights: Tensor, x: Tensor) -> Tensor:
        parts = weights.split(self.sizes)
        parts = tuple(part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))
        for layer in range(0, len(parts), 2):
            x = (torch.sigmoid(x) if layer else x) @ parts[layer] + parts[layer + 1]
        return x[:, 0]


def fit(net: SigmoidNet, curve: Callable[[Tensor], Tensor], seed: int) -> float:
    """The largest error on a fine grid after Levenberg-Marquardt steps on a coarser one."""
    x = torch.linspace(-1, 1, 201, dtype=DOUBLE)[:, None]
    target = curve(x[:, 0])

    def residual(weights: Tensor) -> Tensor:
        return net(weights, x) - target

    derivative = torch.func.jacrev(residual)
    weights, damping = net.initial(seed), 1e-2
    error = residual(weights)
    for _ in range(400):
        if error.abs().max() < 9e-3:
            break
        slopes = derivative(weights)
        square, right = slopes.T @ slopes, slopes.T @ error
        while damping < 1e6:
            step = torch.linalg.solve(square + damping * torch.eye(len(weights)).double(), right)
            moved = residual(weights - step)
            if moved.square().sum() < error.square().sum():
                weights, error, damping = weights - step, moved, max(damping / 3, 1e-11)
                break
            damping *= 4
    fine = torch.linspace(-1, 1, 2001, dtype=DOUBLE)[:, None]
    return float((net(weights, fine) - curve(fine[:, 0])).abs().max())


@pytest.mark.parametrize("name", CURVES)
def test_one_hidden_layer_fits_any_curve_to_1e_2(name: str) -> None:
    """Cybenko 1989, doi:10.1007/BF02551274: sums of sigmoids are dense in the continuous curves."""
    for seed in range(3):
        assert fit(SigmoidNet(*WIDE), CURVES[name], seed) < 1e-2


# The smallest hidden layer by which one of four seeds fits, and that seed.
SMALLEST = {
    "sine": (4, 3),
    "absolute value": (6, 2),
    "smooth step": (2, 0),
    "polynomial": (3, 1),
    "bump on a wave": (5, 0),
}
TWO_HIDDEN_LAYERS = (1, 2, 2, 1)


@pytest.mark.parametrize("name", SMALLEST)
def test_on_smooth_curves_of_one_number_a_second_hidden_layer_saves_no_weights(name: str) -> None:
    """A negative result: that deep networks need fewer weights is not seen on these curves.

    The fewest weights with which one of four seeds reached an error of 1e-2:

        curve             one hidden layer   two of 2-2, 3-2, 3-3 or 4-4 units
        sine                     13                        22
        absolute value           19                        22
        smooth step               7                        13
        polynomial               10                        13
        bump on a wave           16                        17

    The widths of two layers were a short list and Levenberg-Marquardt may miss a fit that exists.
    Where depth does pay is a curve with exponentially many bends, built by hand: see below.
    """
    units, seed = SMALLEST[name]
    shallow, deep = SigmoidNet(1, units, 1), SigmoidNet(*TWO_HIDDEN_LAYERS)
    assert fit(shallow, CURVES[name], seed) < 1e-2
    if sum(shallow.sizes) >= sum(deep.sizes):
        assert min(fit(deep, CURVES[name], other) for other in range(4)) > 1e-2


# ------------------------------------------------------------- what only depth can do cheaply
def sawtooth(depth: int) -> nn.Sequential:
    """The tent 2 ReLU(x) - 4 ReLU(x - 1/2), `depth` times over: two units a layer."""
    tent = torch.tensor([2.0, -4.0], dtype=DOUBLE)
    layers: list[nn.Module] = []
    for layer in range(depth):
        linear = nn.Linear(2 if layer else 1, 2).double()
        with torch.no_grad():
            linear.weight.copy_(tent.expand(2, 2) if layer else torch.ones(2, 1))
            linear.bias.copy_(torch.tensor([0.0, -0.5]))
        layers += [linear, nn.ReLU()]
    last = nn.Linear(2, 1).double()
    with torch.no_grad():
        last.weight.copy_(tent[None])
        last.bias.zero_()
    return nn.Sequential(*layers, last)


def pieces(function: Callable[[Tensor], Tensor], points: int) -> int:
    """How many straight pieces a curve on [0, 1] has, seen on a grid of that many steps."""
    x = torch.linspace(0, 1, points + 1, dtype=DOUBLE)[:, None]
    with torch.no_grad():
        slopes = function(x)[:, 0].diff() * points
    return 1 + int((slopes.diff().abs() > 1e-6 * slopes.abs().max()).sum())


@pytest.mark.parametrize("teeth_power", [1, 4, 9])
def test_a_deep_network_makes_2_to_the_k_teeth_with_two_units_a_layer(teeth_power: int) -> None:
    """Telgarsky 2016, arXiv:1602.04485: one more layer doubles the teeth, exactly."""
    depth, teeth = teeth_power + 1, 2**teeth_power
    model = sawtooth(depth)
    assert pieces(model, 8 * teeth) == 2 * teeth
    x = torch.arange(2 * teeth + 1, dtype=DOUBLE)[:, None] / (2 * teeth)
    with torch.no_grad():
        assert torch.equal(model(x)[:, 0], torch.arange(2 * teeth + 1).double() % 2)
    assert count(model) == 6 * depth + 1


def test_a_shallow_network_needs_a_unit_for_each_bend() -> None:
    """m ReLU units bend m times: m + 1 pieces, so 2^k teeth need 2^(k+1) - 1 units."""
    torch.manual_seed(0)
    for units in (4, 16, 64):
        random = nn.Sequential(nn.Linear(1, units), nn.ReLU(), nn.Linear(units, 1)).double()
        bends = -random[0].bias / random[0].weight[:, 0]
        inside = int(((bends > 0) & (bends < 1)).sum())
        steps = 2**14
        # A bend between two grid points is seen at one of them or at both.
        assert inside <= units
        assert pieces(random, steps) <= 2 * inside + 1
    teeth = 2**9
    bends = torch.arange(2 * teeth, dtype=DOUBLE) / (2 * teeth)
    shallow = nn.Sequential(nn.Linear(1, 2 * teeth), nn.ReLU(), nn.Linear(2 * teeth, 1)).double()
    with torch.no_grad():
        shallow[0].weight.fill_(1)
        shallow[0].bias.copy_(-bends)
        turns = 4.0 * teeth * (1 - 2 * (torch.arange(2 * teeth) % 2)).double()
        turns[0] /= 2
        shallow[2].weight.copy_(turns[None])
        shallow[2].bias.zero_()
    deep = sawtooth(10)
    x = torch.linspace(0, 1, 5000, dtype=DOUBLE)[:, None]
    with torch.no_grad():
        torch.testing.assert_close(shallow(x), deep(x), atol=1e-8, rtol=0)
    # one unit fewer, and two pieces become one
    assert pieces(shallow, 8 * teeth) == 2 * teeth
    with torch.no_grad():
        shallow[2].weight[0, 7] = 0
    assert pieces(shallow, 8 * teeth) == 2 * teeth - 1
    assert count(deep) == 61
    assert count(shallow) == 3 * 1024 + 1
