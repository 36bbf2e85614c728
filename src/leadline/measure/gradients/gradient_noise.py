"""Gradient noise scale: the batch size at which a gradient is as much noise as signal.

The gradient of a batch of B examples is the true one, G, plus noise of covariance Sigma / B:

    noise scale = tr(Sigma) / |G|^2        in examples (McCandlish et al. 2018, arXiv:1812.06162)

Far below it twice the batch halves the number of steps; far above it twice the batch is wasted. The
batch is cut into n parts of b examples, whose gradients g_i have the mean m. Without bias

    tr(Sigma) = b / (n - 1) sum_i |g_i - m|^2,    |G|^2 = |m|^2 - tr(Sigma) / (n b)

and the standard error comes from leaving out one part at a time (jackknife).

The surprising choice: the gradients are computed twice, once for m and once for g_i - m. So only
two gradients are in memory at a time, and no difference of large numbers loses the small noise of
an early training. Dropout draws the same masks both times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.seeds import capture_random_state, restore_random_state
from leadline.core.taps import Taps, plain_name
from leadline.measure.batch import Batch, Loss, read_batch, trainable
from leadline.measure.gradients.gradients import gradients_of

FEWEST_PARTS = 3  # leaving one out must leave two, whose difference is the noise


@dataclass(frozen=True, kw_only=True)
class GradientNoise:
    """The noise scale of a gradient, in examples, with its standard error.

    `trace` is tr(Sigma), the variance of one example's gradient summed over all weights;
    `squared_norm` is |G|^2 without the noise's share. Where that comes out at 0 or below, the noise
    drowns the gradient of this batch and `noise_scale` is infinite; `standard_error` is infinite
    where leaving out one part does that. `layers` has the same three per parameter, where
    `squared_norm` may be negative by chance.
    """

    noise_scale: float
    standard_error: float
    trace: float
    squared_norm: float
    parts: int
    part_size: int
    layers: Profile


def gradient_noise_scale(
    model: nn.Module, batch: Any, *, loss: Loss | None = None, parts: int = 16, seed: int = 0
) -> GradientNoise:
    """The gradient noise scale of `model` at its present weights, from one large batch.

    `batch` is cut into `parts` of equal size (at most as many as there are examples; a rest is left
    out), of examples drawn by `seed`, so that a batch sorted by class gives the same; with as many
    parts as examples, these are gradients of single examples. `loss` is a function of (outputs,
    targets), the mean over the batch; None is the loss that the model itself returns. The model
    stays in the mode it is in: with batch norm in training mode, whose output depends on the part,
    the result holds for batches of a part's size. Raises MeasurementError for
    fewer than three parts or examples, a model that fails, has nothing to learn, or a loss that is
    not finite or without gradient.

    Cost: 2 forward-backward passes over the batch, in parts, and two gradients of memory.

    How to read it: train with a batch of about the noise scale; it grows, often tenfold and more,
    while the loss falls. A standard error as large as the scale asks for a larger batch.

    >>> weight = nn.Linear(1, 1, bias=False)  # the gradients of the four examples: 1, 3, 1, 3
    >>> inputs = torch.tensor([[1.0], [3.0], [1.0], [3.0]])
    >>> noise = gradient_noise_scale(weight, inputs, loss=lambda outputs, targets: outputs.mean())
    >>> round(noise.trace, 4), round(noise.squared_norm, 4)  # 4/3 and 2^2 - 1/3
    (1.3333, 3.6667)
    """
    given = read_batch(batch, model=model)
    count = min(parts, given.examples)
    if count < FEWEST_PARTS:
        raise MeasurementError(
            expected=f"at least {FEWEST_PARTS} parts of at least one example",
            received=f"{parts} parts of {given.examples} examples",
            remedy="pass a larger batch; ten times that of the training is a good one",
        )
    size = given.examples // count
    if count < given.examples:  # single examples give the same in any order
        given = given.shuffled(seed)
    pieces = [given.part(i * size, (i + 1) * size) for i in range(count)]
    wanted = trainable(model)
    with Taps(model), torch.enable_grad():
        squares, products, mean_squares = _deviations(model, pieces, wanted, loss)
    trace, norm = _estimates(squares.sum(0), mean_squares, count, size)
    whole, error = _ratio_with_error(squares.sum(1), products.sum(1), mean_squares.sum(), size)
    return GradientNoise(
        noise_scale=whole,
        standard_error=error,
        trace=float(trace.sum()),
        squared_norm=float(norm.sum()),
        parts=count,
        part_size=size,
        layers=_per_parameter([plain_name(name) for name in wanted], trace, norm),
    )


def _per_parameter(names: list[str], trace: Tensor, norm: Tensor) -> Profile:
    ratios = (_ratio(float(t), float(n)) for t, n in zip(trace, norm, strict=True))
    return Profile(
        name="gradient noise scale",
        unit="noise_scale: examples; trace and squared_norm: the gradient's unit squared",
        reading="a parameter whose noise scale is far above the batch size is moved by noise "
        "more than by the loss",
        layers=tuple(names),
        values={
            "noise_scale": tuple(ratios),
            "trace": tuple(trace.tolist()),
            "squared_norm": tuple(norm.tolist()),
        },
    )


def _deviations(
    model: nn.Module, pieces: list[Batch], wanted: dict[str, nn.Parameter], loss: Loss | None
) -> tuple[Float[Tensor, "n P"], Float[Tensor, "n P"], Float[Tensor, "P"]]:
    """|g_i - m|^2 and <g_i - m, m> of each part and parameter, and |m|^2, in float64 on the CPU.

    Each parameter's gradients are divided by the largest entry of its m before they are squared.
    """
    parameters = list(wanted.values())
    random = capture_random_state()
    means = [torch.zeros_like(parameter) for parameter in parameters]
    for piece in pieces:
        for mean, gradient in _pairs(means, model, piece, parameters, loss):
            mean.add_(gradient, alpha=1 / len(pieces))
    largest = [mean.abs().amax() if mean.numel() else mean.new_zeros(()) for mean in means]
    scales = [torch.where(s > 0, s, torch.ones_like(s)) for s in largest]
    means = [mean / scale for mean, scale in zip(means, scales, strict=True)]
    restore_random_state(random)
    rows = []
    for piece in pieces:
        numbers = []
        pairs = _pairs(means, model, piece, parameters, loss)
        for (mean, gradient), scale in zip(pairs, scales, strict=True):
            deviation = gradient / scale - mean
            numbers += [deviation.square().sum(), (deviation * mean).sum()]
        rows.append(_on_cpu(numbers))
    sizes = _on_cpu(scales).square()
    table = torch.stack(rows).reshape(len(pieces), len(parameters), 2)
    return (
        table[..., 0] * sizes,
        table[..., 1] * sizes,
        _on_cpu([mean.square().sum() for mean in means]) * sizes,
    )


def _pairs(
    means: list[Tensor],
    model: nn.Module,
    piece: Batch,
    parameters: list[nn.Parameter],
    loss: Loss | None,
) -> list[tuple[Tensor, Tensor]]:
    """Each parameter's mean gradient beside the gradient of this part, 0 where it has none."""
    found = gradients_of(piece.loss(model, loss), parameters)
    pairs = zip(means, found, strict=True)
    return [(m, torch.zeros_like(m) if g is None else _dense(g.detach())) for m, g in pairs]


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _on_cpu(numbers: list[Tensor]) -> Float[Tensor, "N"]:
    device = numbers[0].device
    return torch.stack([number.to(device) for number in numbers]).cpu().double()


def _estimates(
    squares: Tensor, mean_square: Tensor, count: int, size: int
) -> tuple[Tensor, Tensor]:
    """tr(Sigma) and |G|^2 from the sum of |g_i - m|^2 over `count` parts and |m|^2."""
    trace = size / (count - 1) * squares
    return trace, mean_square - trace / (count * size)


def _ratio(trace: float, norm: float) -> float:
    return trace / norm if norm > 0 else math.inf


def _ratio_with_error(
    squares: Float[Tensor, "n"],
    products: Float[Tensor, "n"],
    mean_square: Float[Tensor, ""],
    size: int,
) -> tuple[float, float]:
    """The noise scale and its jackknife standard error.

    Without part i, the mean is m - d_i / (n-1) with d_i = g_i - m, and the sum of squares about it
    sum_j |d_j|^2 - n / (n-1) |d_i|^2.
    """
    count = len(squares)
    trace, norm = _estimates(squares.sum(), mean_square, count, size)
    others = count - 1
    without = squares.sum() - squares * (count / others)
    mean_without = mean_square - 2 * products / others + squares / others**2
    traces, norms = _estimates(without, mean_without, others, size)
    scale = _ratio(float(trace), float(norm))
    if not bool((norms > 0).all()) or math.isinf(scale):
        return scale, math.inf
    ratios = traces / norms
    variance = others / count * (ratios - ratios.mean()).square().sum()
    return scale, math.sqrt(float(variance))
