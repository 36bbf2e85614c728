"""What the baselines see of a training: 20 looks at its first 300 steps.

The tools were written for Keras and look once an epoch. A look here stands for an epoch of theirs:
forward and backward of the first batch in evaluation mode, and the accuracy and the loss on the
first examples, training and held out. Layers are the modules without children, in the order of
their calls; activations that are only functions are seen where the order of the layers is asked.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from leadline.core.errors import NonFiniteError
from leadline.core.seeds import preserved_random_state
from leadline.core.taps import Call, Operation, Taps, tensors_in
from leadline.doctor.arm import Copied
from leadline.doctor.drawn import Drawn
from leadline.doctor.loss_nature import Kind, ask_loss
from leadline.measure.batch import main_output
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.setup import Setup
from leadline.training.state import TrainingState

LONGEST = 300  # steps that are watched at most
LOOKS = 20  # DeepDiagnosis compares accuracies over 20 epochs, the longest memory of the three
ASKED = 512  # examples of either part whose accuracy and loss are taken at each look
BOUND = 5.0  # pre-activations beyond it are saturated (DeepDiagnosis, callbacks.py)

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
ALIKE = {
    "relu": "ReLU ReLU6",
    "leaky_relu": "LeakyReLU PReLU",
    "elu": "ELU CELU",
    "selu": "SELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "tanh": "Tanh Hardtanh",
    "sigmoid": "Sigmoid Hardsigmoid",
    "softmax": "Softmax LogSoftmax",
    "softplus": "Softplus",
}
ACTIVATIONS = {module: name for name, modules in ALIKE.items() for module in modules.split()}
"""The modules, and the tools' names for what they do."""

FUNCTIONS = {name: name for name in ALIKE}
FUNCTIONS |= {"log_softmax": "softmax", "scaled_dot_product_attention": "softmax"}
"""The same for functions of torch; attention is one layer to Keras, and not a linear one."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer gave for the first batch. `beyond` is the share of numbers past ±5."""

    kind: str
    mean: float
    absolute: float
    low: float
    high: float
    not_positive: float
    beyond: float


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One trainable tensor and its gradient; `kernel` says that it is no bias, `linear` whose."""

    kernel: bool
    linear: bool
    size: int
    mean: float
    variance: float
    gradient_norm: float
    gradient_mean: float
    gradient_absolute: float
    gradient_zeros: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """The training after some steps; `largest_sum` is the largest sum of |outputs| of an example.

    Losses and accuracies are NaN where there is none.
    """

    loss: float
    lr: float
    accuracy: float
    held_out_loss: float
    held_out_accuracy: float
    largest_sum: float
    layers: tuple[Layer, ...]
    weights: tuple[Weight, ...]


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The inputs, the loss and the order of the layers, and the looks.

    `order` holds the linear layers as "linear" and the activations by name, in the order of their
    calls; `ending` is the activation behind the last layer with weights, "linear" without one.
    """

    inputs_low: float
    inputs_high: float
    inputs_floating: bool
    inputs_nan: bool
    inputs_shape: tuple[int, ...]
    targets_low: float
    targets_high: float
    width: int
    loss: Kind
    order: tuple[str, ...]
    ending: str
    dropouts: tuple[float, ...]
    looks: tuple[Look, ...]
    diverged: bool

    @property
    def inputs_outside(self) -> bool:
        """Whether inputs leave [-1, 1], the range all three tools take for normalised."""
        return self.inputs_low < -1 or self.inputs_high > 1

    @property
    def from_logits(self) -> bool:
        """Whether the loss takes logits, as Keras' losses do when told so."""
        return self.loss in ("cross_entropy", "binary_logits")

    @property
    def categorical(self) -> bool:
        """Whether the loss is over exclusive classes."""
        return self.loss in ("cross_entropy", "nll", "log_of_probabilities")

    @property
    def binary(self) -> bool:
        """Whether the loss is over yes-or-no answers."""
        return self.loss in ("binary_logits", "binary_probabilities")


@functools.lru_cache(maxsize=1)
def watch(setup: Setup, execution: Execution) -> Watched:
    """Train a copy for a short while and look on; one that diverges is looked at as it then is.

    The random streams are afterwards where they were.
    """
    drawn = Drawn(setup.batches, seed=setup.seed)
    training = _some(drawn.take(1), drawn)
    per_epoch = drawn.per_epoch or LONGEST
    total = min(-(-per_epoch // setup.accumulate) * setup.epochs, LONGEST)
    batches = Copied(drawn.take(total * setup.accumulate))
    short = replace(setup, batches=batches, epochs=1, validation=None, patience=0)
    with preserved_random_state(), execution.threads_scope():
        held_out = _first(setup.validation)
        state = TrainingState(short, execution)
        at = {max(1, round(total * (i + 1) / LOOKS)) for i in range(LOOKS)}
        looker = _Looker(state, training, held_out)
        looks: list[Look] = []
        losses: list[float] = []
        lr = float(state.optimizer.param_groups[0]["lr"])
        diverged = False
        try:
            for step in steps(short, execution, state=state):
                losses.append(float(step.loss))
                lr = step.lr
                if step.index in at:
                    looks.append(looker.look(sum(losses) / len(losses), lr))
                    losses.clear()
        except NonFiniteError:  # a symptom to all three
            diverged = True
            looks.append(looker.look(math.nan, lr))
    return looker.watched(tuple(looks), diverged=diverged)


class _Looker:
    """Asks the model of a training under way, and leaves it as it was."""

    def __init__(
        self, state: TrainingState, training: Sequence[Any], held_out: Sequence[Any]
    ) -> None:
        self._state = state
        self._training, self._held_out = training, held_out
        self._order: list[str] = []
        inputs, self._targets = training[0]
        with Taps(state.model) as taps, torch.no_grad():
            taps.on_input(self._enter)
            taps.on_output(self._leave)
            taps.on_operation(self._operation)
            state.model.eval()
            self._outputs = self._forward(inputs)
        nature = ask_loss(state.setup.loss, self._outputs, self._targets)
        self._loss, self._axis = nature.kind, nature.class_axis

    def watched(self, looks: tuple[Look, ...], *, diverged: bool) -> Watched:
        inputs = self._training[0][0]
        numbers, targets = inputs.float(), self._targets.float()
        order = tuple(self._order)
        weighted = [i for i, name in enumerate(order) if name in ("linear", "weighted")]
        behind = order[weighted[-1] + 1 :] if weighted else ()
        modules = self._state.model.modules()
        return Watched(
            inputs_low=float(numbers.min()),
            inputs_high=float(numbers.max()),
            inputs_floating=inputs.is_floating_point(),
            inputs_nan=bool(numbers.isnan().any()),
            inputs_shape=tuple(inputs.shape),
            targets_low=float(targets.min()),
            targets_high=float(targets.max()),
            width=self._outputs.shape[self._axis or 1] if self._outputs.ndim > 1 else 1,
            loss=self._loss,
            order=order,
            ending=behind[-1] if behind else "linear",
            dropouts=tuple(m.p for m in modules if isinstance(m, nn.modules.dropout._DropoutNd)),
            looks=looks,
            diverged=diverged,
        )

    def look(self, loss: float, lr: float) -> Look:
        model = self._state.model
        layers: list[Layer] = []

        def heard(call: Call, inputs: tuple[Any, ...], output: Any) -> None:
            tensor = next(tensors_in(output), None)
            if call.is_leaf and tensor is not None and tensor.numel():
                layers.append(_layer(type(call.module).__name__, tensor.detach().float()))

        inputs, targets = self._training[0]
        with Taps(model) as taps:
            taps.on_output(heard)
            model.eval()
            outputs = self._forward(inputs)
            value = self._state.setup.loss(outputs, self._placed(inputs, targets)[1])
            if value.requires_grad:
                value.backward()
            weights = _weights(model)
        with Taps(model), torch.no_grad():  # only to be put back: no callback hears these passes
            model.eval()
            _, accuracy = self._ask(self._training)
            held_out_loss, held_out_accuracy = self._ask(self._held_out)
        return Look(
            loss=loss,
            lr=lr,
            accuracy=accuracy,
            held_out_loss=held_out_loss,
            held_out_accuracy=held_out_accuracy,
            largest_sum=self._largest_sum(outputs.detach()),
            layers=tuple(layers),
            weights=weights,
        )

    def _largest_sum(self, outputs: Tensor) -> float:
        """Of probabilities where the loss takes logits: what a Keras program would end in."""
        if self._loss == "cross_entropy":
            outputs = outputs.softmax(dim=1 if self._axis is None else self._axis)
        elif self._loss == "binary_logits":
            outputs = outputs.sigmoid()
        sums = outputs.abs().sum(dim=self._axis or 1) if outputs.ndim > 1 else outputs.abs()
        return float(sums.max())

    def _ask(self, batches: Sequence[Any]) -> tuple[float, float]:
        """The mean loss and the mean accuracy over batches; NaN without any."""
        losses, accuracies, count = 0.0, 0.0, 0
        for inputs, targets in batches:
            outputs = self._forward(inputs)
            placed = self._placed(inputs, targets)[1]
            losses += float(self._state.setup.loss(outputs, placed)) * len(inputs)
            accuracies += _accuracy(outputs, placed, self._loss, self._axis) * len(inputs)
            count += len(inputs)
        return (losses / count, accuracies / count) if count else (math.nan, math.nan)

    def _placed(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        # Copies: a model may write into what it is given.
        return self._state.execution.place_batch(inputs.clone(), targets.clone())

    def _forward(self, inputs: Tensor) -> Tensor:
        with self._state.execution.precision_scope():
            return main_output(self._state.model(self._placed(inputs, inputs)[0])).float()

    def _enter(self, call: Call, inputs: tuple[Any, ...]) -> None:
        if isinstance(call.module, LINEAR):
            self._order.append("linear")

    def _leave(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        name = ACTIVATIONS.get(type(call.module).__name__)
        if name is not None:
            self._order.append(name)
            return
        known = isinstance(call.module, (*LINEAR, *NORMS))
        if call.is_leaf and not known and next(call.module.parameters(), None) is not None:
            self._order.append("weighted")

    def _operation(self, operation: Operation, inputs: tuple[Any, ...], output: Any) -> None:
        name = FUNCTIONS.get(operation.function)
        if name is not None and type(operation.module).__name__ not in ACTIVATIONS:
            self._order.append(name)


def _layer(kind: str, output: Tensor) -> Layer:
    return Layer(
        kind=ACTIVATIONS.get(kind, kind.lower()),
        mean=float(output.mean()),
        absolute=float(output.abs().mean()),
        low=float(output.min()),
        high=float(output.max()),
        not_positive=float((output <= 0).float().mean()),
        beyond=float((output.abs() >= BOUND).float().mean()),
    )


def _weights(model: nn.Module) -> tuple[Weight, ...]:
    """Every trainable tensor once, in the order in which the layers are defined."""
    owners = {p: m for m in reversed(list(model.modules())) for p in m.parameters(recurse=False)}
    return tuple(
        _weight(p, linear=isinstance(owners[p], LINEAR))
        for p in model.parameters()
        if p.requires_grad
    )


def _weight(parameter: nn.Parameter, *, linear: bool) -> Weight:
    values = parameter.detach().float()
    gradient = torch.zeros_like(values) if parameter.grad is None else parameter.grad.float()
    return Weight(
        kernel=parameter.ndim > 1,
        linear=linear,
        size=parameter.numel(),
        mean=float(values.mean()),
        variance=float(values.var()) if parameter.numel() > 1 else math.nan,
        gradient_norm=float(gradient.norm()),
        gradient_mean=float(gradient.mean()),
        gradient_absolute=float(gradient.abs().mean()),
        gradient_zeros=int((gradient == 0).sum()),
    )


def _accuracy(outputs: Tensor, targets: Tensor, loss: Kind, axis: int | None) -> float:
    """What Keras counts as accuracy: the largest output, or the output rounded where it is one.

    Keras counts so for regression too, where hardly a number is equal to a rounded one.
    """
    axis = axis or (1 if outputs.ndim > 1 else None)
    if axis is not None and outputs.shape[axis] > 1:
        named = outputs.argmax(dim=axis)
        wanted = targets.argmax(dim=axis) if targets.shape == outputs.shape else targets
        if named.numel() != wanted.numel():
            return math.nan
        counted = wanted.reshape(named.shape) >= 0
        return float((named == wanted.reshape(named.shape))[counted].float().mean())
    if outputs.numel() != targets.numel():
        return math.nan
    answers = (outputs > 0).float() if loss == "binary_logits" else outputs.round()
    return float((answers.reshape(-1) == targets.reshape(-1)).float().mean())


def _some(first: Sequence[Any], drawn: Drawn) -> list[Any]:
    """The first batches with ASKED examples together, of one epoch at most."""
    count = -(-ASKED // max(1, len(first[0][0])))
    return drawn.take(max(1, min(count, drawn.per_epoch or count)))


def _first(batches: Any) -> list[Any]:
    kept: list[Any] = []
    for batch in batches or ():
        kept.append(batch)
        if sum(len(inputs) for inputs, _ in kept) >= ASKED:
            break
    return kept
