"""What a loss function is, found by asking it: anybody's, without reading its code.

Every usual loss has a signature in how it answers changed outputs, whatever it is called:

    cross entropy of logits        unchanged when a constant is added along the class axis;
                                   ln C for outputs that are all 0
    negative log likelihood        falls by c when c is added to the outputs (log-probabilities)
    -log of probabilities          falls by ln k when the outputs are multiplied by k
    binary cross entropy           at p and 1 - p together -(ln p + ln(1 - p)) / ln 2 times as large
                                   as at 1/2, for probabilities or their logits
    a softmax before cross entropy the same, but at most ln(C - 1 + e) however wrong the outputs
    squared, absolute error        0 at the targets; four, two times as large at twice the distance

Asked too: whether it sums over the batch instead of averaging, whether it survives outputs of
±1,000, and whether its gradient exists at the targets.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from leadline.core.seeds import preserved_random_state
from leadline.core.taps import Taps
from leadline.measure.batch import Loss

Kind = Literal[
    "cross_entropy",
    "nll",
    "log_of_probabilities",
    "binary_logits",
    "binary_probabilities",
    "squared",
    "absolute",
    "other",
]

ROWS = 64
"""How many examples a question is asked with, at most."""

NUMBERS = 2**22
"""How many outputs a question is asked with, at most, but for two examples: memory stays small."""

EXTREME = 1e3
"""Logits this large come up in training: a loss must stay finite there."""


@dataclass(frozen=True, kw_only=True)
class LossNature:
    """What a loss turned out to be.

    `classes` and `class_axis` are those of a loss over classes; `at_start` is the loss of a network
    that knows nothing, for one target (None where nothing is known of it). `sums` says
    that it adds up the examples; `extremes_finite` that ±1,000 gave a finite number;
    `kink_finite` that the gradient at the targets is finite. None: could not be asked.
    `broadcasts` says that outputs and targets of these shapes are not compared one by one;
    `softmax_inside` that a cross entropy of logits is given the softmax of the outputs.
    """

    kind: Kind
    classes: int | None = None
    class_axis: int | None = None
    at_start: float | None = None
    sums: bool = False
    extremes_finite: bool | None = None
    kink_finite: bool | None = None
    broadcasts: bool = False
    softmax_inside: bool = False

    @property
    def over_classes(self) -> bool:
        """Whether one of several classes is asked for."""
        return self.kind in ("cross_entropy", "nll", "log_of_probabilities")


def ask_loss(loss: Loss, outputs: Tensor, targets: Any) -> LossNature:
    """Find out what `loss(outputs, targets)` is; neither is changed, and nothing is trained.

    >>> ask_loss(nn.functional.cross_entropy, torch.randn(8, 3), torch.arange(8) % 3).kind
    'cross_entropy'
    >>> ask_loss(nn.functional.mse_loss, torch.randn(8, 1), torch.randn(8, 1)).kind
    'squared'
    """
    outputs, targets = _first_rows(outputs.detach().float(), targets)
    generator = torch.Generator().manual_seed(0)
    with preserved_random_state(), _left_as_found(loss):
        asked = _Asked(loss, outputs, targets, generator)
        found = asked.over_classes() or asked.binary() or asked.distance()
        return found or LossNature(kind="other", sums=asked.sums())


@contextlib.contextmanager
def _left_as_found(loss: Loss) -> Iterator[None]:
    if isinstance(loss, nn.Module):
        with Taps(loss):
            yield
    else:
        yield


class _Asked:
    def __init__(
        self, loss: Loss, outputs: Tensor, targets: Any, generator: torch.Generator
    ) -> None:
        self._loss = loss
        self._outputs = outputs
        self._targets = targets
        noise = torch.randn(outputs.shape, generator=generator)
        self._noise = noise.to(outputs.device)
        self._now = self._value(outputs)

    def _value(self, outputs: Tensor, targets: Any = None) -> float:
        """The loss of other outputs; NaN where it cannot be had."""
        try:
            with torch.no_grad():
                value = self._loss(outputs, self._targets if targets is None else targets)
            return float(value) if value.numel() == 1 else math.nan
        except Exception:
            return math.nan  # a question that makes no sense for this loss has no answer

    def over_classes(self) -> LossNature | None:
        if self._outputs.ndim < 2:
            return None
        for axis in dict.fromkeys((1, self._outputs.ndim - 1)):
            if not self._may_be_classes(axis):
                continue
            kind = self._class_kind(axis)
            if kind is not None:
                classes = self._outputs.shape[axis]
                return LossNature(
                    kind=kind,
                    classes=classes,
                    class_axis=axis,
                    at_start=math.log(classes),
                    sums=self.sums(),
                    extremes_finite=self._survives(),
                    softmax_inside=kind == "cross_entropy" and self._bounded(classes),
                )
        return None

    def _bounded(self, classes: int) -> bool:
        """Whether answers that are sure and wrong cost no more than a softmax twice lets them.

        A cross entropy of what is between 0 and 1 is at most ln(C - 1 + e); one of logits grows
        with them without end.
        """
        count = self._counted(self._level(0.0) / math.log(classes)) if classes > 1 else 1
        most = max(self._value(sign * EXTREME * self._noise) for sign in (1, -1))
        return classes > 1 and most <= math.log(classes - 1 + math.e) * count + 1e-3

    def _may_be_classes(self, axis: int) -> bool:
        """Class numbers may be; targets like the outputs only where each is a distribution."""
        targets = self._targets
        if not isinstance(targets, Tensor) or targets.shape != self._outputs.shape:
            return True
        return bool(((targets.float().sum(dim=axis) - 1).abs() < 1e-3).all())

    def _class_kind(self, axis: int) -> Kind | None:
        first = self._noise.narrow(axis, 0, 1)
        classes = self._outputs.shape[axis]
        flat = self._level(0.0)
        count = self._counted(flat / math.log(classes)) if classes > 1 else 1
        if _close(self._value(self._noise + 2 * first), self._value(self._noise)) and _close(
            flat, math.log(classes) * count
        ):
            return "cross_entropy" if classes > 1 or self._changes_never() else None
        if classes < 2:
            return None
        even = torch.full_like(self._outputs, 1 / classes)
        log_even = even.log()
        count = self._counted(self._value(log_even) / math.log(classes))
        if _close(self._value(log_even), math.log(classes) * count) and _close(
            self._value(log_even + 1), (math.log(classes) - 1) * count
        ):
            return "nll"
        less = self._value(even * math.exp(-1)) - math.log(classes) * count
        if _close(self._value(even), math.log(classes) * count, 1e-2) and (
            _close(less, count, 1e-2) or self._normalises(axis, less)
        ):
            return "log_of_probabilities"
        return None

    def _normalises(self, axis: int, less: float) -> bool:
        """Whether the loss divides by the sum first, as Keras's does: rows count by their ratios.

        A cross entropy of logits does not: it changes when they are multiplied.
        """
        if not _close(less, 0.0, 1e-2):
            return False
        rows = self._noise.exp()
        rows = rows / rows.sum(dim=axis, keepdim=True)
        now = self._value(rows)
        sharper = self._value(rows.square() / rows.square().sum(dim=axis, keepdim=True))
        return _close(self._value(rows * 0.5), now, 1e-3) and not _close(sharper, now, 1e-3)

    def _changes_never(self) -> bool:
        """Over one class a cross entropy is 0 whatever the output; other losses are not."""
        return _close(self._value(self._noise * 3), 0.0) and _close(self._value(self._noise), 0.0)

    def binary(self) -> LossNature | None:
        """Binary cross entropies, whatever they weigh positives or classes with.

        With weights w_i and targets t_i from 0 to 1, the loss of outputs that are all p, and that
        of outputs that are all 1 - p, add up to -(ln p + ln(1 - p)) Σ w_i; the loss at 1/2 is
        ln 2 Σ w_i. Their ratio knows neither weights nor targets.
        """
        targets = self._targets
        if not isinstance(targets, Tensor) or targets.is_complex():
            return None
        if not bool(((targets >= 0) & (targets <= 1)).all()):
            return None
        kinds: dict[Kind, Callable[[float], float]] = {
            "binary_logits": lambda p: math.log(p / (1 - p)),
            "binary_probabilities": lambda p: p,
        }
        for kind, output_of in kinds.items():
            at = {p: self._level(output_of(p)) for p in (0.5, 0.25, 0.75, 0.01, 0.99)}
            if not at[0.5] > 0:
                continue
            ratios = [(p, (at[p] + at[1 - p]) / at[0.5]) for p in (0.25, 0.01)]
            if all(_close(r, -math.log(p * (1 - p)) / math.log(2), 5e-3) for p, r in ratios):
                edges = (self._level(0.0), self._level(1.0))
                return LossNature(
                    kind=kind,
                    at_start=at[0.5] / (self._outputs.numel() if self.sums() else 1),
                    sums=self.sums(),
                    extremes_finite=self._survives()
                    if kind == "binary_logits"
                    else all(map(math.isfinite, edges)),
                )
        return None

    def _level(self, height: float) -> float:
        """The loss of outputs that are all the same."""
        return self._value(torch.full_like(self._outputs, height))

    def distance(self) -> LossNature | None:
        """Squared and absolute errors, whose every output has one target, or targets broadcast.

        Asked in float64, for float32 knows no step of 1 among targets of a million; a loss that
        refuses it is asked with steps as large as the targets' spread.
        """
        targets = self._targets
        if not isinstance(targets, Tensor) or targets.is_complex():
            return None
        pair = _paired(self._outputs, targets)
        if pair is None:
            return None
        shape, centre = pair
        for wide in (True, False):
            try:
                middle = centre.double() if wide else centre.float()
            except (TypeError, RuntimeError):
                continue  # a device without float64
            noise = self._noise.to(middle).expand(shape)
            step = 1.0 if wide else max(1.0, float(middle.std()) if middle.numel() > 1 else 1.0)
            at, once, twice = (
                self._value(middle + factor * step * noise, middle) for factor in (0.0, 1.0, 2.0)
            )
            if all(map(math.isfinite, (at, once, twice))):
                break
        if not _close(at, 0.0, 1e-3) or not once > 0:
            return None
        ratio = twice / once
        kinds: dict[int, Kind] = {4: "squared", 2: "absolute"}
        kind = kinds.get(round(ratio)) if abs(ratio - round(ratio)) < 0.05 else None
        if kind is None:
            return None
        return LossNature(
            kind=kind,
            sums=self.sums(),
            extremes_finite=math.isfinite(self._value(middle + EXTREME, middle)),
            kink_finite=self._gradient_exists(middle, middle),
            broadcasts=self._broadcasts(),
        )

    def _broadcasts(self) -> bool:
        """Whether the loss is another one when each output is given its own target first."""
        outputs, targets = self._outputs, self._targets
        if outputs.shape == targets.shape or not math.isfinite(self._now):
            return False
        if outputs.numel() != targets.numel():
            return True  # no loss but one that broadcasts takes these
        matched = self._value(outputs.reshape(targets.shape))
        return math.isfinite(matched) and not math.isclose(matched, self._now, rel_tol=1e-5)

    def sums(self) -> bool:
        """Whether twice the examples give twice the loss."""
        targets = self._targets
        if not isinstance(targets, Tensor) or targets.ndim == 0:
            return False
        if len(targets) != len(self._outputs) or not self._now > 0:
            return False
        doubled = torch.cat([self._outputs, self._outputs])
        return _close(self._value(doubled, torch.cat([targets, targets])), 2 * self._now, 1e-3)

    def _counted(self, ratio: float) -> int:
        """How many targets a sum seems to be of, some of which may be left out; 1 for a mean."""
        most = self._targets.numel() if isinstance(self._targets, Tensor) else 1
        counted = math.isfinite(ratio) and self.sums()
        return min(max(round(ratio), 1), max(most, 1)) if counted else 1

    def _survives(self) -> bool:
        signs = self._noise.sign() * EXTREME
        return all(math.isfinite(self._value(side)) for side in (signs, -signs))

    def _gradient_exists(self, centre: Tensor, targets: Tensor) -> bool | None:
        leaf = centre.clone().requires_grad_()
        try:
            with torch.enable_grad():
                value = self._loss(leaf, targets)
                (gradient,) = torch.autograd.grad(value, leaf)
        except Exception:
            return None
        return bool(torch.isfinite(gradient).all())


def _paired(outputs: Tensor, targets: Tensor) -> tuple[torch.Size, Tensor] | None:
    """The shape in which every output has a target, and the targets in it; None without one.

    With as many targets as outputs, the outputs' shape. Else one of them must have a last axis of
    1 that broadcasts to the other's.
    """
    if targets.numel() == outputs.numel():
        return outputs.shape, targets.reshape(outputs.shape)
    if not targets.ndim == outputs.ndim >= 2 or targets.shape[:-1] != outputs.shape[:-1]:
        return None
    if 1 not in (targets.shape[-1], outputs.shape[-1]):
        return None
    shape = torch.broadcast_shapes(outputs.shape, targets.shape)
    return shape, targets.expand(shape)


def _first_rows(outputs: Tensor, targets: Any) -> tuple[Tensor, Any]:
    if not isinstance(targets, Tensor) or outputs.ndim == 0 or targets.ndim == 0:
        return outputs, targets
    if len(outputs) != len(targets) or not outputs.numel():
        return outputs, targets
    rows = max(2, min(ROWS, NUMBERS * len(outputs) // outputs.numel()))
    return outputs[:rows], targets[:rows]


def _close(value: float, expected: float, tolerance: float = 1e-3) -> bool:
    return math.isfinite(value) and abs(value - expected) <= tolerance * max(1.0, abs(expected))
