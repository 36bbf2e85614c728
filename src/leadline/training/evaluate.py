"""Evaluation: the model's outputs over a whole split, leaving the training as it was."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from leadline.tasks.task import Task
from leadline.training.execution import Execution


def outputs_and_targets(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, execution: Execution
) -> tuple[Float[Tensor, "N K"], Int[Tensor, N]]:
    """The model's outputs (float32, on the CPU) and the targets, in the order of `batches`."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    outputs, targets = [], []
    try:
        with torch.inference_mode(), execution.precision_scope():
            for inputs, wanted in batches:
                inputs, _ = execution.place_batch(inputs, wanted)
                outputs.append(model(inputs).float().cpu())
                targets.append(wanted.cpu())
    finally:
        for module, training in modes.items():
            module.training = training
    return torch.cat(outputs), torch.cat(targets)


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    task: Task,
    execution: Execution,
) -> dict[str, float]:
    """The task's figures over a split.

    >>> from leadline.tasks.classification import Classification
    >>> batches = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> evaluate(nn.Identity(), batches, task=Classification(2), execution=Execution())["accuracy"]
    1.0
    """
    outputs, targets = outputs_and_targets(model, batches, execution=execution)
    return task.evaluate(outputs, targets).metrics()
