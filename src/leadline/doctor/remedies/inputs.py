"""Remedies of inputs and targets: scaled inside the model, so that it takes what it took before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leadline.doctor.remedies.surgery import operated, with_input, with_output
from leadline.doctor.remedy import Remedy
from leadline.training.setup import Setup


class Standardise:
    """(x - mean) / std, per feature or channel, as a function of a batch of inputs.

    >>> Standardise(torch.tensor([1.0]), torch.tensor([2.0]))(torch.tensor([[5.0]]))
    tensor([[2.]])
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean = mean
        self.std = std

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs [B, ...] of mean 0 and standard deviation 1."""
        if not inputs.is_floating_point():
            inputs = inputs.to(torch.get_default_dtype())
        return (inputs - self.mean.to(inputs)) / self.std.to(inputs)


def statistics_of(inputs: Tensor) -> Standardise:
    """The scaling that fits these inputs [N, ...]: a table's per column, an image's per channel.

    Columns of a table that hold a single value are only shifted; NaN and infinity do not count.
    """
    values = _finite(inputs)
    if values.ndim == 2 and values.shape[1] <= 256:
        dims: tuple[int, ...] = (0,)
    elif values.ndim == 4:
        dims = (0, 2, 3)
    else:
        dims = tuple(range(values.ndim))
    mean = values.nanmean(dim=dims, keepdim=True).nan_to_num()
    std = (values - mean).square().nanmean(dim=dims, keepdim=True).sqrt()
    std = torch.where(std > 1e-12 * (1 + mean.abs()), std, torch.ones_like(std))
    return Standardise(mean, std)


def _finite(values: Tensor) -> Tensor:
    """The values as float32, with NaN for what is not finite."""
    wide = values.float()
    return torch.where(torch.isfinite(wide), wide, torch.nan)


def standardised_inputs(inputs: Tensor) -> Remedy:
    """Standardise the inputs by these statistics, as the model's first step."""
    scaling = statistics_of(inputs)
    return Remedy(
        title="standardise the inputs: subtract their mean, divide by their standard deviation",
        apply=lambda setup: operated(setup, with_input(scaling)),
        lines=("+ inputs = (inputs - mean) / std  # of the training set",),
    )


def standardised_targets(targets: Tensor) -> Remedy:
    """Let the network learn targets of mean 0 and variance 1, and answer in the old unit."""
    values = _finite(targets)
    mean = float(values.nanmean().nan_to_num())
    std = float((values - mean).square().nanmean().sqrt().nan_to_num()) or 1.0

    def rescale(outputs: Tensor) -> Tensor:
        return outputs * std + mean

    def apply(setup: Setup) -> Setup:
        larger = replace(setup, loss=_Scaled(setup.loss, mean, std))
        return operated(larger, with_output(rescale))

    return Remedy(
        title="learn targets of mean 0 and standard deviation 1; predictions are turned back",
        apply=apply,
        lines=(
            f"+ targets = (targets - {mean:.4g}) / {std:.4g}",
            f"+ predictions = {std:.4g} * outputs + {mean:.4g}",
        ),
    )


class _Scaled:
    """The loss in units of the targets' spread: outputs and targets are scaled down alike."""

    def __init__(self, loss: Any, mean: float, std: float) -> None:
        self.loss = loss
        self.mean = mean
        self.std = std

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = self.loss(
            (outputs - self.mean) / self.std, (targets - self.mean) / self.std
        )
        return value


def unwritten_inputs() -> Remedy:
    """Hand the model a copy of its input, into which it may write."""
    return Remedy(
        title="hand the model a copy of the batch",
        apply=lambda setup: operated(setup, with_input(torch.clone)),
        lines=("- x *= scale", "+ x = x * scale"),
    )
