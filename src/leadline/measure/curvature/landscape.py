"""The landscape: the loss along a line or on a plane through the space of all weights.

    line     L(w + a d)                    plane    L(w + a d1 + b d2)
    between  L((1 - t) w0 + t w1)          barrier  max_t L(t) - ((1 - t) L(0) + t L(1))

A random direction is filter-normalised: each filter of d (a row of a matrix, an output channel of a
convolution) is given the length of the same filter of w. Without it a network with larger weights
looks flatter although it computes the same, since the scale of a layer before a norm or a ReLU does
not matter (Li et al. 2018, arXiv:1712.09913). Parameters of one dimension, biases and the scales of
norms, stay where they are, as in the paper's figures. The barrier between two networks is that of
Frankle et al. 2020 (arXiv:1912.05671).

The surprising choice: between two checkpoints the running statistics of norms are interpolated
along with the weights; along directions they stay. Other weights have other statistics, so that a
barrier in evaluation mode may be one of the statistics alone: in training mode, where the batch's
own are used, it is that of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from leadline.core.errors import MeasurementError
from leadline.core.names import did_you_mean, look_up
from leadline.core.seeds import preserved_random_state
from leadline.core.taps import Taps, plain_name
from leadline.measure.batch import Batch, Loss, read_batch, trainable
from leadline.measure.gradients.gradients import check_finite

Weights = dict[str, Tensor]

VECTORS = {"ignore": False, "scale": True}
"""What becomes of parameters of one dimension in a random direction, and whether they move."""


@dataclass(frozen=True, kw_only=True)
class LossLine:
    """The loss at each of `steps` along a line; at step 0 it is that of the weights as they are.

    Between two checkpoints step 0 is the first and step 1 the second.
    """

    steps: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """How far the loss rises above the straight line between its ends; 0 if it never does.

        NaN as soon as one of the losses is.
        """
        first, last = self.steps[0], self.steps[-1]
        heights = [
            loss
            - self.losses[0]
            - (self.losses[-1] - self.losses[0]) * (step - first) / (last - first)
            for step, loss in zip(self.steps, self.losses, strict=True)
        ]
        return math.nan if any(map(math.isnan, heights)) else max(0.0, *heights)


@dataclass(frozen=True, kw_only=True)
class LossPlane:
    """`losses[i][j]` is the loss at w + first_steps[i] d1 + second_steps[j] d2."""

    first_steps: tuple[float, ...]
    second_steps: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]


def loss_along(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    direction: str | Mapping[str, Tensor] = "random",
    distance: float = 1.0,
    points: int = 21,
    vectors: str = "ignore",
    seed: int = 0,
) -> LossLine:
    """Measure the loss along a line through the weights, from -distance to distance.

    `direction` is `random`, filter-normalised: step 1 moves each filter by its own length;
    `gradient`, the gradient with the length of all weights, so that negative steps go downhill; or
    tensors by the parameters' names, taken as they are. `vectors="scale"` moves biases and norms
    too, each vector as one filter. Only parameters that can learn are moved; in evaluation mode
    running statistics stay. Dropout draws the same mask at every point. An odd number of `points`
    has the weights themselves in the middle, whose loss must be finite.

    Cost: `points` forward passes, and 1 backward pass for the gradient. Unit: that of the loss.

    Read it: a wide bowl is a flat minimum, a narrow one a sharp; a line that falls to one side is
    no minimum yet. Two networks may be compared in random directions only when filter-normalised.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 2.0)
    >>> line = loss_along(
    ...     model, torch.ones(1, 1), loss=lambda outputs, targets: (outputs**2).mean(), points=3,
    ...     direction={"weight": torch.ones(1, 1)},
    ... )
    >>> line.steps, line.losses  # (2 + a)^2
    ((-1.0, 0.0, 1.0), (1.0, 4.0, 9.0))
    """
    steps = _steps_around(distance, points)
    with Taps(model):
        surface = _Surface(model, batch, loss)
        check_finite(surface.at_rest)
        arrow = _direction(surface, direction, vectors=vectors, seed=seed)
        return LossLine(
            steps=steps, losses=tuple(surface.loss(_moved(surface, (s, arrow))) for s in steps)
        )


def loss_between(
    model: nn.Module,
    batch: Any,
    *,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    loss: Loss | None = None,
    points: int = 11,
) -> LossLine:
    """Measure the loss on the straight line from one state dict of the model to another.

    Floating buffers, such as running statistics, are interpolated like weights; counters stay those
    of `start`. The model's own weights are not used. Raises MeasurementError where a state lacks an
    entry of the model or has another shape.

    Cost: `points` forward passes. Unit: that of the loss.

    Read it: `barrier` near 0 says that both lie in one valley and their average is as good as they
    are; a high one that they are different solutions, or the same with permuted units.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> square = lambda outputs, targets: (outputs**2 - 1).square().mean()
    >>> ends = [{"weight": torch.tensor([[value]])} for value in (-1.0, 1.0)]
    >>> line = loss_between(
    ...     model, torch.ones(1, 1), start=ends[0], end=ends[1], loss=square, points=3
    ... )
    >>> line.losses, line.barrier  # (w^2 - 1)^2 has minima at -1 and 1
    ((0.0, 1.0, 0.0), 1.0)
    """
    steps = _steps(0.0, 1.0, points)
    with Taps(model):
        surface = _Surface(model, batch, loss)
        first = _complete(surface, start, "start")
        last = _complete(surface, end, "end")
        losses = tuple(surface.loss(_mixed(first, last, step)) for step in steps)
    return LossLine(steps=steps, losses=losses)


def loss_on_plane(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    distance: float = 1.0,
    points: int = 11,
    vectors: str = "ignore",
    seed: int = 0,
) -> LossPlane:
    """Measure the loss on the plane that two random filter-normalised directions span.

    Arguments as for `loss_along`. Two random directions of many dimensions are all but orthogonal.
    Cost: points^2 forward passes. Unit: that of the loss.

    Read it: round, even contours are what gradient descent likes; a ragged plane, as that of deep
    networks without shortcuts, is a chaotic loss (Li et al. 2018, figure 5).

    >>> model = nn.Linear(2, 1, bias=False)
    >>> plane = loss_on_plane(
    ...     model, torch.ones(1, 2), loss=lambda outputs, targets: (outputs**2).mean(), points=3
    ... )
    >>> [len(row) for row in plane.losses]
    [3, 3, 3]
    >>> abs(plane.losses[1][1] - model(torch.ones(1, 2)).item() ** 2) < 1e-6  # in the middle
    True
    """
    steps = _steps_around(distance, points)
    with Taps(model):
        surface = _Surface(model, batch, loss)
        across = _random_direction(surface.moving, vectors, seed)
        along = _random_direction(surface.moving, vectors, seed + 1)
        losses = tuple(
            tuple(surface.loss(_moved(surface, (a, across), (b, along))) for b in steps)
            for a in steps
        )
    return LossPlane(first_steps=steps, second_steps=steps, losses=losses)


def filter_normalised(direction: Tensor, *, like: Tensor) -> Tensor:
    """The direction with each of its filters as long as the same filter of `like`.

    A filter is what belongs to one index of the first axis; a vector or a scalar is one by itself.

    >>> filter_normalised(torch.ones(2, 2), like=torch.tensor([[3.0, 4.0], [0.0, 0.0]])).norm(dim=1)
    tensor([5., 0.])
    """
    axes = tuple(range(1, like.ndim)) if like.ndim > 1 else None
    lengths = torch.linalg.vector_norm(direction, dim=axes, keepdim=True)
    wanted = torch.linalg.vector_norm(like, dim=axes, keepdim=True)
    scaled: Tensor = direction * (wanted / lengths.clamp(min=torch.finfo(lengths.dtype).tiny))
    return scaled


class _Surface:
    """The loss as a function of the weights, on one batch; the model itself is never written to."""

    def __init__(self, model: nn.Module, batch: Any, loss: Loss | None) -> None:
        self.model = model
        self.batch: Batch = read_batch(batch, model=model)
        self.moving: dict[str, nn.Parameter] = trainable(model)
        self._loss = loss
        # Once as it is: a model or a loss that fails is described with the layer it fails in.
        with torch.no_grad(), preserved_random_state():
            self.at_rest = self.batch.loss(model, loss)

    def loss(self, weights: Mapping[str, Tensor]) -> float:
        # Copies of the buffers, because a norm in training mode updates those it is given.
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        buffers |= {name: weights[name].clone() for name in buffers if name in weights}
        with torch.no_grad(), preserved_random_state():
            arguments = self.batch.args, dict(self.batch.kwargs)
            outputs = functional_call(self.model, {**weights, **buffers}, *arguments)
            return float(self.batch.loss_of(outputs, self._loss))

    def gradient(self) -> Weights:
        with torch.enable_grad(), preserved_random_state():
            value = self.batch.loss(self.model, self._loss)
            gradients = torch.autograd.grad(
                value, list(self.moving.values()), allow_unused=True, materialize_grads=True
            )
        return dict(zip(self.moving, gradients, strict=True))


def _direction(
    surface: _Surface, direction: str | Mapping[str, Tensor], *, vectors: str, seed: int
) -> dict[str, Tensor]:
    if isinstance(direction, Mapping):
        return _given_direction(surface, direction)
    if direction == "random":
        return _random_direction(surface.moving, vectors, seed)
    if direction == "gradient":
        gradient = surface.gradient()
        length = _length(gradient)
        if not 0.0 < length < math.inf:
            raise MeasurementError(
                expected="a gradient that is finite and not zero, to give a direction",
                received=f"one of length {length}",
                remedy="look along direction='random' instead",
            )
        factor = _length(surface.moving) / length
        return {name: tensor * factor for name, tensor in gradient.items()}
    raise MeasurementError(
        expected="a direction: 'random', 'gradient', or tensors by the names of parameters",
        received=repr(direction)[:80],
        remedy="leave it out for a random one",
    )


def _random_direction(moving: Mapping[str, Tensor], vectors: str, seed: int) -> dict[str, Tensor]:
    vectors_move = look_up(vectors, VECTORS, kind="treatment of vectors")
    generator = torch.Generator().manual_seed(seed)
    arrow: Weights = {}
    for name, parameter in moving.items():
        drawn = torch.randn(parameter.shape, generator=generator)
        if vectors_move or parameter.ndim >= 2:
            weight = parameter.detach()
            arrow[name] = filter_normalised(drawn.to(weight), like=weight)
    if not arrow:
        raise MeasurementError(
            expected="weights of two or more dimensions to move",
            received="vectors only",
            remedy="set vectors='scale'",
        )
    return arrow


def _given_direction(surface: _Surface, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = {plain_name(name): name for name in surface.moving}
    arrow: Weights = {}
    for name, tensor in direction.items():
        plain = plain_name(name)
        if plain not in own or surface.moving[own[plain]].shape != tensor.shape:
            _refuse(f"direction[{name!r}] of shape {tuple(tensor.shape)}", plain, own)
        arrow[own[plain]] = tensor.detach().to(surface.moving[own[plain]])
    return arrow


def _moved(surface: _Surface, *moves: tuple[float, Mapping[str, Tensor]]) -> Weights:
    weights = {name: parameter.detach() for name, parameter in surface.moving.items()}
    for step, arrow in moves:
        weights |= {name: weights[name] + step * part for name, part in arrow.items()}
    return weights


def _mixed(first: Weights, last: Weights, step: float) -> Weights:
    """Exactly the first at step 0 and the last at step 1."""
    return {
        name: torch.lerp(tensor, last[name], step) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def _complete(surface: _Surface, state: Mapping[str, Tensor], which: str) -> Weights:
    """The entries of a state dict under the model's own names; buffers that it lacks are left."""
    given = {plain_name(name): tensor for name, tensor in state.items()}
    model, weights = surface.model, {}
    for name, own in (*model.named_parameters(), *model.named_buffers()):
        found = given.get(plain_name(name))
        if found is None and not isinstance(own, nn.Parameter):
            weights[name] = own  # not every buffer is part of a state
        elif found is None or found.shape != own.shape:
            received = "nothing" if found is None else f"shape {tuple(found.shape)}"
            _refuse(f"{which}: {received} for {name!r} of {tuple(own.shape)}", name, given)
        else:
            weights[name] = found.detach().to(own)
    return weights


def _refuse(received: str, name: str, known: Mapping[str, Any]) -> None:
    raise MeasurementError(
        expected="tensors under the names and in the shapes of the model's parameters",
        received=received + did_you_mean(name, known),
        remedy="take them from the state_dict() of a model that is built alike",
    )


def _steps(first: float, last: float, points: int) -> tuple[float, ...]:
    if points < 2 or not 0.0 < last - first < math.inf:
        raise MeasurementError(
            expected="2 points or more over a distance above 0",
            received=f"points={points}, from {first} to {last}",
            remedy="leave them out: 21 points over a distance of 1 show a bowl",
        )
    return tuple(torch.linspace(first, last, points, dtype=torch.float64).tolist())


def _steps_around(distance: float, points: int) -> tuple[float, ...]:
    """From -distance to distance, each the exact opposite of another; the middle is exactly 0."""
    _steps(-distance, distance, points)
    return tuple(distance * (2 * i - (points - 1)) / (points - 1) for i in range(points))


def _length(tensors: Mapping[str, Tensor]) -> float:
    return math.sqrt(
        sum(float(tensor.detach().double().square().sum()) for tensor in tensors.values())
    )
