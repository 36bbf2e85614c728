"""Backward graph: which operations lie between a loss and an output, and what comes through them.

autograd keeps a node for each operation that was computed. Read from the loss down to the model's
output, their names tell what the loss does (`LogSoftmaxBackward0`) and what ends the model
(`SigmoidBackward0`), whoever wrote the two. A checkpoint of the reentrant kind hides what it
computes again from this graph: `torch.autograd.grad` refuses or, when only parameters inside are
asked for, says without a word that they have none. Both become one error here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leadline.core.errors import MeasurementError

_PASSING = (
    *(
        "View",
        "Reshape",
        "UnsafeView",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Permute",
        "T",
        "Alias",
    ),
    *("ReshapeAlias", "Clone", "ToCopy", "Slice", "Select", "Clamp", "ClampMin", "ClampMax"),
    *("Dropout", "NativeDropout"),
)
"""Operations that only rearrange, copy, cut or drop numbers, as their backward nodes begin."""


def operations_between(loss: Tensor, output: Tensor) -> tuple[str, ...]:
    """The names of the backward operations from the loss to the output, breadth first.

    The last is the one that computed the output's numbers: squeezes and the like behind it are
    looked through. Empty when the output has no part in the loss.

    >>> logits = torch.zeros(2, 1, requires_grad=True) * 2
    >>> loss = torch.nn.functional.binary_cross_entropy(logits.sigmoid().squeeze(1), torch.ones(2))
    >>> operations_between(loss, loss)[0]
    'BinaryCrossEntropyBackward0'
    """
    last = output.grad_fn
    if loss.grad_fn is None or last is None:
        return ()
    names: list[str] = []
    waiting, seen = [loss.grad_fn], {loss.grad_fn}
    while waiting and len(names) < 200:
        node = waiting.pop(0)
        if node is last:
            continue
        names.append(node.name())
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    if last not in seen:
        return ()
    return tuple(name.rpartition("::")[2] for name in (*names, *_passed_through(last)))


def _passed_through(node: Any) -> list[str]:
    """The names from a node on to the first that does more than pass numbers on."""
    names = [node.name()]
    while names[-1].rpartition("::")[2].partition("Backward")[0] in _PASSING:
        following = [entry for entry, _ in node.next_functions if entry is not None]
        if len(following) != 1 or "AccumulateGrad" in following[0].name():
            break
        (node,) = following
        names.append(node.name())
    return names


def gradients_through(loss: Tensor, parameters: list[Tensor]) -> list[Tensor | None]:
    """The gradient of a scalar loss by each parameter, None where the loss does not depend on it.

    Raises MeasurementError where a reentrant checkpoint hides parameters. Cost: 1 backward pass.

    >>> weight, idle = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    >>> gradients_through((3 * weight).sum(), [weight, idle])
    [tensor([3., 3.]), None]
    """
    if not loss.requires_grad or not parameters:
        return [None] * len(parameters)
    try:
        gradients: list[Tensor | None] = list(
            torch.autograd.grad(loss, parameters, allow_unused=True)
        )
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise _reentrant() from error
    if any(gradient is None for gradient in gradients) and _has_reentrant(loss):
        raise _reentrant()  # without a word torch leaves out what lies inside such a checkpoint
    return gradients


def _has_reentrant(loss: Tensor) -> bool:
    waiting, seen = [loss.grad_fn], {None, loss.grad_fn}
    while waiting:
        node = waiting.pop()
        assert node is not None, "None counts as seen"
        if node.name() == "CheckpointFunctionBackward":
            return True
        following = {inner for inner, _ in node.next_functions} - seen
        seen |= following
        waiting.extend(following)
    return False


def _reentrant() -> MeasurementError:
    return MeasurementError(
        expected="checkpoints that torch.autograd.grad can go through",
        received="a model with reentrant gradient checkpointing",
        remedy="pass use_reentrant=False to torch.utils.checkpoint.checkpoint, or "
        "gradient_checkpointing_enable({'use_reentrant': False}) to a Hugging Face model",
    )
