"""What a gradient costs: backpropagation against the forward pass and against differences.

One backward pass gives the derivative by all N weights for a small multiple of the forward pass,
whatever N is: the cheap gradient principle (Baur and Strassen 1983, "The Complexity of Partial
Derivatives", Theoretical Computer Science 22; Griewank and Walther 2008, "Evaluating Derivatives",
at most 4 to 5 times the function). Moving one weight at a time asks for 2 N forward passes instead,

    dL/dw_i = (L(w + h e_i) - L(w - h e_i)) / (2 h),

each of which costs O(N) itself: O(N) against O(N^2). Both are counted here (multiply-adds, exact)
and timed (interleaved, on the model and batch at hand), and their results compared in double
precision.

The surprising choice: differences are really run, for `sample` weights drawn at random, and scaled
to all N, since every weight costs the same two forward passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from leadline.core.errors import MeasurementError
from leadline.core.seeds import capture_random_state, restore_random_state
from leadline.core.taps import Taps
from leadline.measure.batch import Batch, Loss, read_batch, trainable
from leadline.measure.watching.replay import original


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one computation over several runs: the median and the quartiles around it."""

    median: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class GradientCost:
    """What a model's gradient costs on one batch, by three computations.

    `weights` is N. `forward`, `gradient` (a forward and a backward pass) and `differences` (two
    forward passes for each weight) are multiply-adds in matrix products and convolutions, exact;
    the `_time`s are seconds, that of the differences scaled to all weights from `differences_run`
    of them. `disagreement` is the largest difference between the two gradients in double precision,
    over those weights, relative to the largest entry.
    """

    weights: int
    forward: int
    gradient: int
    differences: int
    forward_time: Timing
    gradient_time: Timing
    differences_time: Timing
    differences_run: int
    disagreement: float

    @property
    def ratio(self) -> float:
        """The gradient in forward passes, by multiply-adds: 3 for matrix products, at most."""
        return self.gradient / self.forward

    @property
    def time_ratio(self) -> float:
        """The gradient in forward passes, by the median times."""
        return self.gradient_time.median / self.forward_time.median

    @property
    def saving(self) -> float:
        """How many times the multiply-adds of differences are those of backpropagation."""
        return self.differences / self.gradient


@dataclass(frozen=True, kw_only=True)
class CostGrowth:
    """The exponents b of cost = a N^b over models with different numbers of weights N."""

    forward: float
    gradient: float
    differences: float
    forward_time: float
    gradient_time: float
    differences_time: float


def gradient_cost(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    sample: int = 16,
    repeats: int = 5,
    seed: int = 0,
) -> GradientCost:
    """What the gradient of the loss costs by backpropagation and by one weight at a time.

    `sample` weights, drawn by `seed` among those that can learn, are moved; all of them where there
    are no more. `repeats` rounds are timed, each of a forward pass, a forward-backward pass and the
    sampled differences in turn, so that what disturbs the machine disturbs all three. Measured in
    the mode the model is in; what dropout draws is the same in all passes that are compared.

    Cost: `repeats` (2 + 2 `sample`) + 2 passes as they are and 2 `sample` + 2 in double precision.

    How to read it: `ratio` near 3 is backpropagation as it should be (the backward pass is two
    products for the forward's one); far more than 5 in `time_ratio` means work that only the
    backward does, such as recomputation. `saving`, about 2 N / 3, is why networks are trained by
    backpropagation. `disagreement` above 1e-4 points to a kink or a wrong custom backward.

    Raises MeasurementError for a model without parameters that learn, a loss that is no scalar, a
    model without matrix products, or gradient checkpointing.

    A dense layer on 4 examples: 4 * 6 multiply-adds forward, as many again for the weights'
    gradient (none for the input's), and 2 * 6 forward passes by differences.

    >>> model = nn.Linear(3, 2, bias=False)
    >>> cost = gradient_cost(model, (torch.ones(4, 3), torch.zeros(4, 2)), loss=nn.MSELoss())
    >>> cost.weights, cost.forward, cost.gradient, cost.differences
    (6, 24, 48, 288)
    >>> cost.disagreement < 1e-6
    True
    """
    _check_options(sample, repeats)
    read, model = read_batch(batch, model=model), original(model)  # compiled code cannot be counted
    with Taps(model):
        read.loss(model, loss)  # what is wrong with them is said here, with the layer's name
        function = _Function(model, read, loss)
        places = _places(function.weights, sample, seed)
        forward, gradient = _count(function.value), _count(function.gradient)
        pair = _count(lambda: function.differences(places[:1]))
        _check_counted(model, forward)
        runs = (function.value, function.gradient, lambda: function.differences(places))
        times = _interleaved(runs, repeats)
        total = sum(weight.numel() for weight in function.weights.values())
        disagreement = _disagreement(_Function(model, read, loss, double=True), places)
    return GradientCost(
        weights=total,
        forward=forward,
        gradient=gradient,
        differences=pair * total,
        forward_time=_timing(times[0]),
        gradient_time=_timing(times[1]),
        differences_time=_timing([t * total / len(places) for t in times[2]]),
        differences_run=len(places),
        disagreement=disagreement,
    )


def cost_growth(costs: Sequence[GradientCost]) -> CostGrowth:
    """How the costs of models of several sizes grow with N: least squares on logarithms.

    How to read it: with the batch and the depth fixed, `forward` and `gradient` near 1 and
    `differences` near 2. Exponents of times are smaller where the models are too small to fill the
    machine. Raises MeasurementError for fewer than two numbers of weights.

    >>> batch = (torch.ones(8, 4), torch.zeros(8, 4))
    >>> models = [nn.Sequential(nn.Linear(4, w), nn.Linear(w, 4)) for w in (8, 64)]
    >>> costs = [gradient_cost(m, batch, loss=nn.MSELoss(), sample=1, repeats=1) for m in models]
    >>> growth = cost_growth(costs)
    >>> round(growth.gradient, 1), round(growth.differences, 1)
    (1.0, 2.0)
    """
    sizes = [float(cost.weights) for cost in costs]
    if len(set(sizes)) < 2:
        raise MeasurementError(
            expected="costs of models with at least two different numbers of weights",
            received=f"{len(costs)} costs with N in {sorted(set(sizes))}",
            remedy="measure gradient_cost for several widths: 64, 128, 256",
        )
    return CostGrowth(
        forward=_exponent(sizes, [cost.forward for cost in costs]),
        gradient=_exponent(sizes, [cost.gradient for cost in costs]),
        differences=_exponent(sizes, [cost.differences for cost in costs]),
        forward_time=_exponent(sizes, [cost.forward_time.median for cost in costs]),
        gradient_time=_exponent(sizes, [cost.gradient_time.median for cost in costs]),
        differences_time=_exponent(sizes, [cost.differences_time.median for cost in costs]),
    )


def _check_options(sample: int, repeats: int) -> None:
    if sample < 1 or repeats < 1:
        raise MeasurementError(
            expected="at least one weight to move and one round to time",
            received=f"sample={sample}, repeats={repeats}",
            remedy="leave them out for 16 weights and 5 rounds",
        )


def _check_counted(model: nn.Module, forward: int) -> None:
    if not forward:
        raise MeasurementError(
            expected="a model with matrix products or convolutions, whose cost can be counted",
            received=f"{type(model).__name__}, in which there are none",
            remedy="measure a model with dense, convolutional or attention layers",
        )


class _Function:
    """The loss as a function of weights of its own, which may be moved: the model's stay."""

    def __init__(
        self, model: nn.Module, batch: Batch, loss: Loss | None, *, double: bool = False
    ) -> None:
        self._random = capture_random_state() if double else None

        def own(tensor: Tensor) -> Tensor:
            tensor = tensor.detach().clone()
            return tensor.double() if double and tensor.is_floating_point() else tensor

        self._model, self._loss = model, loss
        self._batch = batch.to(torch.float64) if double else batch
        self._tensors = {name: own(buffer) for name, buffer in model.named_buffers()}
        self._tensors |= {name: own(parameter) for name, parameter in model.named_parameters()}
        self.weights = {name: self._tensors[name].requires_grad_() for name in trainable(model)}

    def value(self) -> Tensor:
        """One forward pass, without a graph."""
        with torch.no_grad():
            return self._pass()

    def gradient(self) -> tuple[Tensor, ...]:
        """One forward and one backward pass."""
        with torch.enable_grad():
            weights = tuple(self.weights.values())
            value = self._pass()
            if _has_reentrant_checkpoint(value):
                raise _unreadable("a reentrant checkpoint")
            try:
                return torch.autograd.grad(value, weights, materialize_grads=True)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                line = (str(error).strip().splitlines() or [""])[0][:200]
                raise _unreadable(f"RuntimeError: {line}") from error

    def differences(self, places: Sequence[tuple[str, int]]) -> Tensor:
        """Two forward passes for each of the weights at `places`."""
        slopes: list[Tensor] = []
        with torch.no_grad():
            for name, index in places:
                weight = self._tensors[name]
                entry = weight[torch.unravel_index(torch.tensor(index), weight.shape)]
                before, step = float(entry), _step(entry)
                values: list[Tensor] = []
                for side in (step, -step):
                    _put(weight, index, before + side)
                    values.append(self._pass())
                _put(weight, index, before)
                slopes.append((values[0] - values[1]) / (2 * step))
        return torch.stack(slopes)

    def _pass(self) -> Tensor:
        if self._random is not None:  # the same dropout each time, else it is another function
            restore_random_state(self._random)
        # No leaves, which the counter cannot follow into the module of a parametrisation; with the
        # strides of the weights, since the mask of a dropout follows the layout.
        views = {
            name: weight[...] if torch.is_grad_enabled() else weight.detach()
            for name, weight in self.weights.items()
        }
        outputs = functional_call(
            self._model, self._tensors | views, self._batch.args, dict(self._batch.kwargs)
        )
        return self._batch.loss_of(outputs, self._loss)


def _has_reentrant_checkpoint(loss: Tensor) -> bool:
    waiting: list[Any] = [loss.grad_fn]
    seen: set[Any] = {None}
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name() == "CheckpointFunctionBackward":
            return True
        waiting.extend(following for following, _ in node.next_functions)
    return False


def _unreadable(received: str) -> MeasurementError:
    return MeasurementError(
        expected="a backward pass through the weights that are handed to the model",
        received=received,
        remedy="turn gradient checkpointing off for this measurement: it runs layers once more in "
        "the backward pass, with the model's own weights",
    )


def _put(weight: Tensor, index: int, value: float) -> None:
    """Write one number, counted in reading order however the weight lies in memory."""
    weight[torch.unravel_index(torch.tensor(index), weight.shape)] = value


def _step(weight: Tensor) -> float:
    """The step where the errors of rounding and of curvature are balanced."""
    return float(torch.finfo(weight.dtype).eps ** (1 / 3) * max(1.0, abs(float(weight))))


def _places(weights: Mapping[str, Tensor], sample: int, seed: int) -> list[tuple[str, int]]:
    """Some of the weights, each equally likely, in the order of the model; all if they are few."""
    total = sum(weight.numel() for weight in weights.values())
    generator = torch.Generator().manual_seed(seed)
    if total <= sample:
        chosen = list(range(total))
    else:  # drawn with a few to spare, since some come twice
        drawn = torch.randint(total, (4 * sample + 64,), generator=generator).tolist()
        chosen = sorted(list(dict.fromkeys(drawn))[:sample])
    places: list[tuple[str, int]] = []
    start = 0
    for name, weight in weights.items():
        inside = [n - start for n in chosen if start <= n < start + weight.numel()]
        places += [(name, index) for index in inside]
        start += weight.numel()
    return places


def _count(run: Callable[[], Any]) -> int:
    """Multiply-adds, of which torch counts each as two operations."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def _interleaved(runs: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of each run in each round; a round before the first warms up."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for number, run in enumerate(runs):
            start = time.perf_counter()
            result = run()
            last = result if isinstance(result, Tensor) else result[-1]
            last.flatten()[0].item()  # waits for the device
            if turn:
                times[number].append(time.perf_counter() - start)
    return times


def _timing(times: Sequence[float]) -> Timing:
    values = torch.tensor(times, dtype=torch.float64)
    lower, median, upper = values.quantile(values.new_tensor([0.25, 0.5, 0.75])).tolist()
    return Timing(median=median, lower=lower, upper=upper)


def _disagreement(function: _Function, places: Sequence[tuple[str, int]]) -> float:
    """The largest difference between the two gradients against the largest entry."""
    found = dict(zip(function.weights, function.gradient(), strict=True))
    exact = torch.stack([found[name].reshape(-1)[index] for name, index in places])
    difference = (function.differences(places) - exact).abs().max()
    scale = max(float(gradient.abs().max()) for gradient in found.values())
    return float(difference) / scale if scale else float(difference)


def _exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    x = torch.tensor(sizes, dtype=torch.float64).log()
    y = torch.tensor(costs, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())
