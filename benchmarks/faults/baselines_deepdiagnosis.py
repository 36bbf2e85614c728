"""DeepDiagnosis' thresholds (Wardat et al., ICSE 2022; `callbacks.py`, `mapFaluireToFix`).

It stops at the first symptom and follows a decision tree from there to one piece of advice. Two
things are read as meant, not as written: the variance is that of the weights (its code takes that
of their mean, which is none), and the rate that of the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from baselines_watch import Layer, Look, Watched, Weight, watch

from leadline.training.execution import Execution
from leadline.training.setup import Setup

# All from callbacks.py.
DEAD_SHARE = 0.7  # of a rectifier's outputs that are not above 0
SATURATED_SHARE = 0.5  # of the numbers before a sigmoid or tanh that are beyond 5
VANISHING = 1e-7  # mean |gradient|
LOWEST_VARIANCE, HIGHEST_VARIANCE = 1e-5, 10  # of a layer's weights
LOWEST_RATE, HIGHEST_RATE = 1e-5, 1e-1  # 1e-3 over and times 100
SPAN = 10  # times the span of the targets that linear outputs may have
EVERY = 5  # epochs over which tensors and the loss are compared
SELDOM = 20  # epochs over which accuracies are compared
RANGES = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "elu": (-1.0, math.inf),
}
"""What the last activation can give."""

Advice = Literal[
    "softmax",
    "output activation",
    "activation",
    "loss or activation",
    "normalize",
    "poor weight",
    "rate",
    "optimizer",
    "dropout or activation",
    "layers or sigmoid",
]

CAUSES: dict[Advice, tuple[str, ...]] = {
    # "change the activation function to softmax": the outputs cannot reach the targets.
    "softmax": ("output_activation_wrong",),
    # "change the activation function at layer", which is the last one.
    "output activation": ("output_activation_wrong",),
    # "change the activation function at layer", which is another one.
    "activation": ("hidden_activation_wrong",),
    # "change the loss function OR change the activation function" of the last layer.
    "loss or activation": ("loss_wrong", "output_activation_wrong"),
    # "Normalize the data".
    "normalize": ("input_not_normalized",),
    # "Poor Weight": weights that all are nearly alike, or far apart.
    "poor weight": ("init_bad_scale",),
    # "Learning Rate": too high or too low, whichever bound it is beyond.
    "rate": ("lr_too_high", "lr_too_low"),
    # "change optimizer": nothing else was found.
    "optimizer": ("optimizer_wrong",),
    # "Add dropout layer or Missing activation function".
    "dropout or activation": ("reg_missing", "activation_missing"),
    # "Add/delete layer or change sigmoid activation function".
    "layers or sigmoid": ("layer_missing", "layer_extra", "hidden_activation_wrong"),
}
"""What the tool advises, and the causes that it then means."""

Tree = Callable[[], Advice]


def deepdiagnosis(setup: Setup, *, execution: Execution | None = None) -> tuple[str, ...]:
    """The causes DeepDiagnosis' one piece of advice means; none where it has nothing to say."""
    watched = watch(setup, execution or Execution(threads=1))
    for number, look in enumerate(watched.looks):
        patient = _Epoch(watched=watched, look=look, number=number)
        tree = next(patient.symptoms(), None)
        if tree is not None:
            advice = tree()
            if advice == "rate":
                return (CAUSES["rate"][0 if look.lr > HIGHEST_RATE else 1],)
            return CAUSES[advice]
    return ()


@dataclass(frozen=True, kw_only=True)
class _Epoch:
    """One epoch: its symptoms in the order of the checks, each as the way to its advice."""

    watched: Watched
    look: Look
    number: int

    def symptoms(self) -> Iterator[Tree]:
        yield from self._forward()
        yield from self._figures()
        yield from self._weights()

    def _forward(self) -> Iterator[Tree]:
        layers = self.look.layers
        for place, layer in enumerate(layers):
            last = place + 1 == len(layers)
            if last and self.number == 0 and self._out_of_range(layer):
                yield lambda: "softmax"
            if _numerical(layer.mean):
                yield lambda last=last: self._numerical(last=last)
            ends = self.number + 1 == len(self.watched.looks)
            if layer.kind == "relu" and ends and layer.not_positive >= DEAD_SHARE:
                yield self._dead
            following = "" if last else layers[place + 1].kind
            saturates = following in ("sigmoid", "tanh") and layer.beyond > SATURATED_SHARE
            if self._every(EVERY) and saturates:
                yield self._dead  # the same tree
        if self._every(EVERY):
            for place, layer in enumerate(layers[:-1]):
                if layer.kind != "flatten" and _same(self._means(place)):
                    yield lambda: self._by_numbers(normalize=False)

    def _figures(self) -> Iterator[Tree]:
        looks = self.watched.looks[: self.number + 1]
        if not math.isfinite(self.look.loss):
            yield self._invalid
        if self._every(EVERY) and _same([look.loss for look in looks[-EVERY:]]):
            yield self._by_numbers
        # A regression is given no accuracy, which would be 0 and invalid.
        if self.watched.loss in ("squared", "absolute") or math.isnan(self.look.accuracy):
            return
        if self.look.accuracy == 0:
            yield self._invalid
        if self._every(SELDOM) and _same([look.accuracy for look in looks[-SELDOM:]]):
            yield self._by_numbers

    def _weights(self) -> Iterator[Tree]:
        kernels = _kernels(self.look)
        for place in reversed(range(len(kernels))):
            weight = kernels[place]
            if _numerical(weight.gradient_mean):
                near = place + 2 >= len(kernels)
                yield lambda near=near: "loss or activation" if near else "activation"
            if weight.gradient_absolute < VANISHING:
                yield lambda: "rate" if self._bad_rate else "layers or sigmoid"
            if _numerical(weight.mean):
                yield self._numerical
        if not self._every(EVERY):
            return
        looks = self.watched.looks[self.number + 1 - EVERY : self.number + 1]
        for place in reversed(range(len(kernels))):
            past = [_kernels(look)[place] for look in looks]
            if _same([w.gradient_mean for w in past]) or _same([w.mean for w in past]):
                yield lambda: self._by_numbers(normalize=False)

    def _out_of_range(self, layer: Layer) -> bool:
        """Whether the last activation cannot give the targets, or gives far more than them."""
        watched, ending = self.watched, self.watched.ending
        if ending == "softmax":
            return False
        if ending in ("linear", "relu") and watched.categorical:
            return not watched.from_logits
        if ending == "linear":
            span = abs(watched.targets_high - watched.targets_low)
            return abs(layer.high - layer.low) > SPAN * span
        low, high = RANGES.get(ending, (-math.inf, math.inf))
        return watched.targets_low < low or watched.targets_high > high

    def _numerical(self, *, last: bool = False) -> Advice:
        found = self._by_numbers()
        if found != "optimizer":
            return found
        return "output activation" if last else "activation"

    def _dead(self) -> Advice:
        if self.watched.inputs_outside:
            return "normalize"
        found = self._by_numbers()
        return found if found != "optimizer" else "dropout or activation"

    def _invalid(self) -> Advice:
        if self.watched.ending == "linear":
            return "output activation"
        return "rate" if self._bad_rate else "optimizer"

    def _by_numbers(self, *, normalize: bool = True) -> Advice:
        """The trunk that most of its trees share."""
        kernels = _kernels(self.look)
        if any(w.variance < LOWEST_VARIANCE or w.variance > HIGHEST_VARIANCE for w in kernels):
            return "poor weight"
        if normalize and self.watched.inputs_outside:
            return "normalize"
        return "rate" if self._bad_rate else "optimizer"

    @property
    def _bad_rate(self) -> bool:
        return not LOWEST_RATE <= self.look.lr <= HIGHEST_RATE

    def _every(self, epochs: int) -> bool:
        return (self.number + 1) % epochs == 0

    def _means(self, place: int) -> list[float]:
        looks = self.watched.looks[self.number + 1 - EVERY : self.number + 1]
        return [look.layers[place].mean for look in looks if place < len(look.layers)]


def _kernels(look: Look) -> list[Weight]:
    """The weights of dense layers and convolutions; all where there are none."""
    kernels = [weight for weight in look.weights if weight.kernel and weight.linear]
    return kernels or list(look.weights)


def _numerical(value: float) -> bool:
    return not math.isfinite(value) or value == 0


def _same(values: Sequence[float]) -> bool:
    """Whether nothing moved; numbers that are not finite are another symptom."""
    return len(values) > 1 and max(values) == min(values)
