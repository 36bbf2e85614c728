"""Remedies of what the loss and the measure make of answers: classes and places they count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from leadline.doctor.problem import Problem
from leadline.doctor.remedies.losses import fitting_loss
from leadline.doctor.remedy import Remedy
from leadline.training.setup import Setup


def every_class(loss: Any, problem: Problem, *, ignored: int, probabilities: bool) -> Remedy:
    """Count the class that the loss leaves out; a torch loss stays what it is otherwise."""
    said = (f"- ignore_index={ignored}", "+ ignore_index=-100")
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) and loss.ignore_index == ignored:
        weight = loss.weight
        if weight is None or float(weight[ignored]) > 0:
            other = _with_marker(loss)
            return Remedy(
                title=f"let the loss count class {ignored}",
                apply=lambda setup: replace(setup, loss=other),
                lines=said,
            )
    fitting = fitting_loss(problem, "probabilities" if probabilities else "logits")
    return replace(fitting, title=f"a loss that counts class {ignored}", lines=said)


def _with_marker(loss: nn.Module) -> nn.Module:
    if isinstance(loss, nn.NLLLoss) and not isinstance(loss, nn.CrossEntropyLoss):
        return nn.NLLLoss(weight=loss.weight, reduction=loss.reduction)
    assert isinstance(loss, nn.CrossEntropyLoss), "asked of these two"
    return nn.CrossEntropyLoss(
        weight=loss.weight, reduction=loss.reduction, label_smoothing=loss.label_smoothing
    )


def labels_to_zero_and_one(low: float, high: float) -> Remedy:
    """Call the lower of two labels 0 and the higher 1, as a binary cross entropy reads them."""

    def apply(setup: Setup) -> Setup:
        return replace(setup, loss=_Relabelled(setup.loss, low, high))

    return Remedy(
        title=f"0 and 1 instead of {low:g} and {high:g} for the labels",
        apply=apply,
        lines=(
            "- loss(outputs, labels)",
            f"+ loss(outputs, (labels - {low:g}) / {high - low:g})".replace("- -", "+ "),
        ),
    )


class _Relabelled:
    def __init__(self, loss: Callable[[Any, Any], Tensor], low: float, high: float) -> None:
        self.loss = loss
        self.low = low
        self.high = high

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, (targets - self.low) / (self.high - self.low))


def without_padding(filler: Tensor, *, axis: int | None) -> Remedy:
    """Leave the places behind the end of each sequence out of the loss.

    `filler` is what stands in the targets [B, T, ...] there; `axis` is that of the classes in the
    outputs, None where the outputs are [B, T, ...] like the targets.
    """

    def apply(setup: Setup) -> Setup:
        return replace(setup, loss=_Unpadded(setup.loss, filler, axis))

    named = f"{float(filler):g}" if filler.ndim == 0 else "padding"
    return Remedy(
        title="leave padding out of the loss",
        apply=apply,
        lines=(f"+ known = targets != {named}", "+ loss(outputs[known], targets[known])"),
    )


class _Unpadded:
    """The loss of the places before the padding, handed on as one long sequence."""

    def __init__(
        self, loss: Callable[[Any, Any], Tensor], filler: Tensor, axis: int | None
    ) -> None:
        self.loss = loss
        self.filler = filler
        self.axis = axis

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        known = ~behind_the_end(targets, self.filler.to(targets.device))
        if not bool(known.any()):
            return self.loss(outputs, targets)
        if self.axis is None:
            return self.loss(outputs[known][None], targets[known][None])
        rows = outputs.movedim(self.axis, -1)[known][None]
        return self.loss(rows.movedim(-1, self.axis), targets[known][None])


def behind_the_end(rows: Tensor, filler: Tensor) -> Tensor:
    """Which places [B, T] of sequences [B, T, ...] are filler, and only filler is behind them.

    >>> behind_the_end(torch.tensor([[3, 0, 4, 0, 0]]), torch.tensor(0)).tolist()
    [[False, False, False, True, True]]
    """
    same = rows == filler
    if same.ndim > 2:
        same = same.flatten(2).all(dim=2)
    return same.flip(1).int().cummin(dim=1).values.flip(1).bool()


def read_as_probabilities() -> Remedy:
    """Let the task's measure have probabilities instead of logits."""
    return Remedy(
        title="take the sigmoid of the outputs before 0.5 is the border",
        apply=lambda setup: replace(setup, task=_ReadThrough(setup.task, torch.sigmoid)),
        lines=("- accuracy(outputs > 0.5, targets)", "+ accuracy(outputs > 0, targets)"),
    )


def read_from_the_middle() -> Remedy:
    """Let the task's measure, whose border is 0, have probabilities from -0.5 to 0.5."""
    return Remedy(
        title="make 0.5 the border for probabilities, instead of 0",
        apply=lambda setup: replace(setup, task=_ReadThrough(setup.task, _centred)),
        lines=("- accuracy(outputs > 0, targets)", "+ accuracy(outputs > 0.5, targets)"),
    )


def _centred(outputs: Tensor) -> Tensor:
    return outputs - 0.5


class _ReadThrough:
    """A task that evaluates outputs through a function, and is the same otherwise."""

    def __init__(self, task: Any, change: Callable[[Tensor], Tensor]) -> None:
        self.task = task
        self.change = change

    def __getattr__(self, name: str) -> Any:
        if name in ("task", "change"):  # while it is being copied, neither is there yet
            raise AttributeError(name)
        return getattr(self.task, name)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Any:
        """What the task says of the outputs so read."""
        return self.task.evaluate(self.change(outputs), targets)
