"""Shattered gradients: how alike the gradients of different examples are, through the depth.

Learning generalises from one example to the next only if their gradients have something in common.
With g_i the gradient of a network's output for example i, with respect to a layer's output,

    correlation      mean of <g_i, g_j> over i != j, over the mean of <g_i, g_i>
    autocorrelation  c_k = sum_t <d_t, d_(t+k)> / sum_t <d_t, d_t>,  d_t = g_t - mean of g

the first over a batch, the second over points on a straight line between two examples. Where half
of the units are active for each example, independently of the other examples, the correlation in a
plain ReLU network at He's initialisation falls as 1 / 2^L; with shortcuts it falls as (3/4)^L, with
shortcuts and batch norms as 1 / (b sqrt(L)) where b scales the branches (Balduzzi et al. 2017,
arXiv:1702.08591, theorems 1 to 3). A batch norm keeps the units near that assumption. Without one
the examples grow alike with depth and so do their active units: the correlation falls less and less
per layer.

Two choices may surprise. A network with many outputs is reduced to one by a random weight for each,
the same for all examples: a loss would not do, its gradient differs between examples already before
the network. And a batch norm's statistics are held constant in the backward pass. Its derivative
proper removes the mean over the batch from the gradients, so that those of B examples would add up
to zero: their correlation would be -1 / (B - 1) before every batch norm, whatever the network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.taps import Taps
from leadline.measure.batch import Batch, main_output, read_batch
from leadline.measure.jacobians.jacobian_map import INPUT, Cuts, check_places, floating_input
from leadline.measure.layers import Layer, on_layer

CONSTANT = 1e-5
"""Relative to its size, how much a gradient must change along a line to be more than rounding."""

COLUMNS = 2**16
"""How many columns of a gradient are multiplied at once in double precision."""


@dataclass(frozen=True, kw_only=True)
class Shattering:
    """The autocorrelation of the gradient by the input (or `start`) along a line, lag by lag.

    `white` and `brown` are what noise of that length has on average: the expected autocovariance
    over the expected variance, in closed form. `profile` has a row for the start and for each
    layer's output, with the columns `neighbours`, the autocorrelation at lag 1; `half-length`, the
    distance in points at which it has fallen to one half; and `whiteness`.
    """

    lags: tuple[int, ...]
    correlation: tuple[float, ...]
    white: tuple[float, ...]
    brown: tuple[float, ...]
    profile: Profile

    @property
    def whiteness(self) -> float:
        """Where the autocorrelation lies between brown noise, 0, and white noise, 1.

        By least squares over all lags; below 0 the gradient is smoother than a random walk.
        """
        return _whiteness(self.correlation, self.white, self.brown)


def gradient_correlation(
    model: nn.Module, inputs: Any, *, start: str = INPUT, seed: int = 0
) -> Profile:
    """Measure how alike the gradients of a batch's examples are, at the start and at each layer.

    The column `correlation` is 1 when all gradients are the same, as in a linear network, and 0
    when they have nothing in common. The gradient is that of the outputs, weighted at random by
    `seed`; more examples make the mean over the pairs more certain. Layers are those of
    `measure.layers`, by their outputs; those without a row for each example give NaN. Batch norms
    in training mode normalise by this batch, with its statistics held constant (see above).

    Cost: 1 forward-backward pass. Unit: 1. Raises MeasurementError for fewer than 2 examples and
    for inputs that are integers (set `start` to the embedding).

    Read it: from the last layer to the first the correlation falls, halved by each ReLU whose
    active units are half of all, independently for each example; where it is lost in the noise,
    1 / sqrt(pairs x width), the layers before it cannot tell in which direction to learn. Shortcuts
    keep it.

    >>> profile = gradient_correlation(nn.Sequential(nn.Linear(3, 2)), torch.eye(3))
    >>> [round(value, 6) for value in profile.column("correlation")]  # linear: all gradients alike
    [1.0, 1.0]
    """
    batch = read_batch(inputs, model=model)
    if batch.examples < 2:
        raise MeasurementError(
            expected="two examples or more, whose gradients are compared",
            received=f"{batch.examples}",
            remedy="pass a batch of different examples",
        )
    products = _gradient_products(model, batch, start=start, line=None, seed=seed)
    return Profile(
        name="correlation of gradients between examples",
        unit="1",
        reading="1 when all examples ask for the same change, 0 when their gradients have nothing "
        "in common; halved by each ReLU with independent active units, kept by shortcuts; batch "
        "statistics held constant",
        layers=tuple(products),
        values={"correlation": tuple(_correlation(product) for product in products.values())},
    )


def shattering(
    model: nn.Module,
    inputs: Any,
    *,
    between: tuple[int, int] = (0, 1),
    points: int = 256,
    start: str = INPUT,
    seed: int = 0,
) -> Shattering:
    """Measure how quickly the gradient changes along a straight line between two examples.

    `between` are the examples' places in the batch; `points` lie evenly on the line, ends included.
    For the paper's figures: a network of one input and the examples -2 and 2. The lags go to a
    quarter of the points. Of several inputs the first of floating numbers is varied, the others are
    those of the first example. A gradient that does not change at all has autocorrelation 1
    everywhere, one that is 0 has NaN. Batch norms in training mode see the line as their batch,
    with its statistics held constant.

    Cost: 1 forward-backward pass of `points` examples. Unit: 1. Errors as for
    `gradient_correlation`; a layer without a row for each point gives NaN.

    Read it: near `brown` (whiteness 0) neighbours on the line ask for the same change; at `white`
    (whiteness 1) the gradient at one point says nothing about the next, and no step is right for
    both. Compare networks on the same line only.

    >>> class Absolute(nn.Module):
    ...     def forward(self, x):
    ...         return x.abs()
    >>> found = shattering(Absolute(), torch.tensor([[-1.0], [1.0]]), points=8)
    >>> [round(value, 3) for value in found.correlation]  # the gradient of |x| is one step
    [1.0, 0.625, 0.25]
    """
    batch = read_batch(inputs, model=model)
    if points < 8 or not all(0 <= place < batch.examples for place in between):
        raise MeasurementError(
            expected=f"8 points or more between two of the {batch.examples} examples",
            received=f"points={points}, between={between}",
            remedy="pass a batch with both examples in it; 256 points are the paper's choice",
        )
    line = _line(model, batch, between=between, points=points, start=start)
    rows = _repeated(batch, between[0], points)
    products = _gradient_products(model, rows, start=start, line=line, seed=seed)
    lags = tuple(range(points // 4 + 1))
    table = {name: _autocorrelation(product, lags) for name, product in products.items()}
    white, brown = _noise(points, lags)
    profile = Profile(
        name="autocorrelation of gradients along a line",
        unit="1; half-length in points of the line",
        reading="whiteness 0 is a random walk, 1 white noise: where it is near 1, the gradient at "
        "one point says nothing about its neighbour",
        layers=tuple(table),
        values={
            "neighbours": tuple(row[1] for row in table.values()),
            "half-length": tuple(_half_length(row) for row in table.values()),
            "whiteness": tuple(_whiteness(row, white, brown) for row in table.values()),
        },
    )
    return Shattering(
        lags=lags, correlation=table[start], white=white, brown=brown, profile=profile
    )


def _gradient_products(
    model: nn.Module, batch: Batch, *, start: str, line: Tensor | None, seed: int
) -> dict[str, Tensor]:
    """The matrix of <g_i, g_j> at the start and at each layer behind it, in depth order."""
    check_places(model, (start,))
    examples = batch.examples
    products: dict[str, Tensor | None] = {start: None}

    def listen(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        products.setdefault(layer.name)

        def keep(gradient: Tensor) -> None:
            products[layer.name] = _products(gradient, examples)

        taps.hook(output, keep)

    with Taps(model) as taps, torch.enable_grad():
        cuts = Cuts((start,), values=line)
        taps.replace_output(cuts.cut)
        on_layer(taps, listen)
        with _ConstantStatistics():
            output = main_output(cuts.from_input(batch, model).forward(model))
        weighted = _weighted(output, examples, start=start, seed=seed)
        leaf = cuts.leaves.get(start)
        gradient = None
        if leaf is not None and weighted.requires_grad:
            (gradient,) = torch.autograd.grad(weighted, leaf, allow_unused=True)
    if gradient is None:
        raise MeasurementError(
            expected=f"an output that is computed from {start!r}, in a way that has a derivative",
            received="no path of gradients from one to the other",
            remedy="name a layer that this batch goes through; look for .detach() or no_grad",
        )
    products[start] = _products(gradient, examples)
    return {name: product for name, product in products.items() if product is not None}


class _ConstantStatistics(TorchFunctionMode):
    """Batch norms normalise by their batch as ever, but its statistics have no derivative."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        function = _batch_norm if func is functional.batch_norm else func
        return function(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,  # the names are those of torch's own
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training:
        over = [axis for axis in range(input.ndim) if axis != 1]
        running_var, running_mean = torch.var_mean(input.detach(), dim=over, correction=0)
    return functional.batch_norm(input, running_mean, running_var, weight, bias, eps=eps)


def _weighted(output: Tensor, examples: int, *, start: str, seed: int) -> Tensor:
    """The sum over the examples of their outputs, weighted at random but for all alike."""
    if not output.ndim or len(output) != examples:
        raise MeasurementError(
            expected=f"an output with a row for each of the {examples} examples",
            received=f"shape {tuple(output.shape)}",
            remedy="return the outputs of the examples along the first axis",
        )
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(output.shape[1:], generator=generator, dtype=torch.float64)
    return (output * weights.to(output)).sum()


def _products(gradient: Tensor, examples: int) -> Tensor:
    """The matrix of inner products between the rows, summed in double precision; NaN without."""
    if not gradient.ndim or len(gradient) != examples:
        return torch.full((examples, examples), math.nan, dtype=torch.float64)
    total = torch.zeros(examples, examples, dtype=torch.float64, device=gradient.device)
    for part in gradient.detach().flatten(1).split(COLUMNS, dim=1):
        total += part.double() @ part.double().mT
    return total.cpu()


def _line(
    model: nn.Module, batch: Batch, *, between: tuple[int, int], points: int, start: str
) -> Tensor:
    """Points on the straight line between two examples at the start, ends included."""
    check_places(model, (start,))
    if start == INPUT:
        ends = batch.inputs[floating_input(model, batch)]
    else:
        with Taps(model) as taps, torch.no_grad():
            cuts = Cuts((start,))
            taps.replace_output(cuts.cut)
            batch.forward(model)
        if start not in cuts.arrived:
            raise MeasurementError(
                expected=f"a forward pass that goes through {start!r}",
                received=f"one in which {start!r} was not called",
                remedy="name a layer that this batch goes through",
            )
        ends = cuts.arrived[start]
    if not ends.ndim or len(ends) != batch.examples:
        raise MeasurementError(
            expected=f"a row for each of the {batch.examples} examples at {start!r}",
            received=f"shape {tuple(ends.shape)}",
            remedy="set start to a layer whose first axis is the batch",
        )
    first, last = ends[between[0]].detach(), ends[between[1]].detach()
    share = torch.linspace(0.0, 1.0, points, dtype=torch.float64).to(ends)
    return torch.lerp(
        first.expand(points, *first.shape),
        last.expand(points, *last.shape),
        share.view(-1, *[1] * first.ndim),
    )


def _repeated(batch: Batch, place: int, count: int) -> Batch:
    """One example of the batch, `count` times; what all examples share stays as it is."""
    total = batch.examples
    return batch.with_inputs(
        *(
            tensor[place : place + 1].expand(count, *tensor.shape[1:]).clone()
            if tensor.ndim and len(tensor) == total
            else tensor
            for tensor in batch.inputs
        )
    )


def _correlation(products: Tensor) -> float:
    """The mean product of two different rows, over the mean square of one."""
    count = len(products)
    own = products.trace()
    others = (products.sum() - own) / (count - 1)
    return float(others / own) if own != 0.0 else math.nan


def _autocorrelation(products: Tensor, lags: tuple[int, ...]) -> tuple[float, ...]:
    """The autocorrelation of rows whose inner products are given; 1 where they are all the same."""
    count = len(products)
    if not bool(torch.isfinite(products).all()) or products.trace() == 0.0:
        return (math.nan,) * len(lags)
    means = products.mean(dim=0)
    centred = products - means - means[:, None] + means.mean()
    variance = centred.trace()
    if variance <= CONSTANT**2 * products.trace():
        return (1.0,) * len(lags)
    place = torch.arange(count)
    distance = (place - place[:, None]).abs().flatten()
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, distance, centred.flatten())
    return tuple((sums / variance * torch.where(place == 0, 1.0, 0.5))[list(lags)].tolist())


def _noise(points: int, lags: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The autocorrelation of white and of brown noise, from their covariances 1 and min(s, t)."""
    steps = torch.arange(1, points + 1, dtype=torch.float64)
    white = torch.eye(points, dtype=torch.float64)
    return _autocorrelation(white, lags), _autocorrelation(
        torch.minimum(steps, steps[:, None]), lags
    )


def _whiteness(
    found: tuple[float, ...], white: tuple[float, ...], brown: tuple[float, ...]
) -> float:
    rows = list(zip(found, white, brown, strict=True))
    across = sum((b - f) * (b - w) for f, w, b in rows)
    return across / sum((b - w) ** 2 for _, w, b in rows)


def _half_length(correlation: tuple[float, ...]) -> float:
    """At how many points' distance one half is reached, between two lags in proportion."""
    if math.isnan(correlation[0]):
        return math.nan
    for lag, (before, after) in enumerate(itertools.pairwise(correlation)):
        if after < 0.5:
            return lag + (before - 0.5) / (before - after)
    return math.inf
