"""How good a trained model is on test data: accuracy or error, measured in evaluation mode.

The principle is one for every program: the model takes what the buggy program's model takes, and
the class it names is its largest output. A single output says yes above 0.5 where all outputs lie
in [0, 1], and above 0 otherwise. What is not finite scores as the worst error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from data import Examples
from leadline.training.execution import Execution

Score = Callable[[nn.Module], float]
MOST = 500  # examples at once
PLAIN = Execution(threads=1)


def outputs_of(model: nn.Module, inputs: Tensor, execution: Execution) -> Tensor:
    """All outputs in evaluation mode; every module's mode is restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), execution.threads_scope(), execution.precision_scope():
            parts = [
                model(execution.place_batch(part, part)[0]).float() for part in inputs.split(MOST)
            ]
    finally:
        for module, training in modes.items():
            module.training = training
    return torch.cat(parts)


def accuracy(examples: Examples, execution: Execution = PLAIN) -> Score:
    """The share of right classes; targets are class numbers or one-hot rows."""
    wanted = examples.targets.argmax(1) if examples.targets.ndim == 2 else examples.targets

    def score(model: nn.Module) -> float:
        named = outputs_of(model, examples.inputs, execution).argmax(1)
        return float((named == wanted).float().mean())

    return score


def yes_or_no(examples: Examples) -> Score:
    """The share of right answers, over every number of the targets, which are 0 or 1."""

    def score(model: nn.Module) -> float:
        outputs = outputs_of(model, examples.inputs, PLAIN)
        inside = bool(((outputs >= 0) & (outputs <= 1)).all())
        right = (outputs > (0.5 if inside else 0)) == (examples.targets > 0.5)
        return float(right.float().mean())

    return score


def error(examples: Examples, measure: Callable[[Tensor, Tensor], Tensor]) -> Score:
    """A loss as the measure; infinite where the outputs are not finite."""

    def score(model: nn.Module) -> float:
        value = float(measure(outputs_of(model, examples.inputs, PLAIN), examples.targets))
        return value if math.isfinite(value) else math.inf

    return score


def one_percent(examples: Examples) -> float:
    """One per cent of the targets' variance: a squared error that nobody tells from none."""
    return 0.01 * float(examples.targets.var(correction=0))
