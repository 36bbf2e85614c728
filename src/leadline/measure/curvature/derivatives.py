"""Derivatives: gradients through a graph that is kept, with errors that say what is missing.

Second derivatives come from differentiating a gradient, which needs every operation of the model
to have a derivative of its derivative. Where one has not, torch's message names the operation but
neither the cause nor the way out; here it gets both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from leadline.core.errors import MeasurementError


@dataclass(frozen=True, kw_only=True, eq=False)
class Linearised:
    """A loss, its gradient, and products of its curvature with one tensor per parameter."""

    loss: Tensor
    gradient: Sequence[Tensor]
    multiply: Callable[[Sequence[Tensor]], Sequence[Tensor]]


def differentiate(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor] | None = None,
    *,
    keep: bool = False,
) -> Sequence[Tensor]:
    """The gradient of the sum of `weights * outputs` by each of `inputs`; the graph is retained.

    With `keep`, the result has a graph itself and can be differentiated again. An input that the
    outputs do not depend on gets zeros.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> (slope,) = differentiate([x**3], [x], keep=True)
    >>> differentiate([slope], [x])  # 6x
    (tensor(18.),)
    """
    if weights is None:
        _check_loss(outputs[0])
    try:
        return torch.autograd.grad(
            outputs, inputs, weights, retain_graph=True, create_graph=keep, materialize_grads=True
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _explain((str(error).strip().splitlines() or [""])[0][:200]) from error


def check_second_derivatives(tensors: Sequence[Tensor]) -> None:
    """Raise a MeasurementError for a function marked @once_differentiable behind `tensors`.

    torch raises for one only where the incoming gradient depends on the parameters; where it does
    not, as at the end of a network, it takes the second derivative for zero without a word.
    """
    waiting, seen = [tensor.grad_fn for tensor in tensors], set[Any]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
        function: Any = getattr(type(node), "_forward_cls", None)
        code = getattr(getattr(function, "backward", None), "__code__", None)
        if code is not None and code.co_filename == _ONCE.co_filename:
            raise _explain(f"{function.__name__}, which is marked @once_differentiable")


_ONCE = once_differentiable(lambda context: None).__code__


def _check_loss(loss: Tensor) -> None:
    if not bool(torch.isfinite(loss)):
        raise MeasurementError(
            expected="a finite loss",
            received=f"a loss of {float(loss.detach())}",
            remedy="find the layer where it begins: leadline.core.taps.first_nonfinite names it",
        )
    if not loss.requires_grad:
        raise MeasurementError(
            expected="a loss that depends on the trainable parameters",
            received="one without a graph",
            remedy="look for .detach(), .item(), torch.no_grad() or argmax between the parameters "
            "and the loss",
        )


def _explain(text: str) -> MeasurementError:
    if "modified by an inplace operation" in text:
        return MeasurementError(
            expected="parameters as they were when the matrix was made",
            received=f"changed ones: {text}",
            remedy="make a new matrix after each change of the model",
        )
    return MeasurementError(
        expected="a model and loss in which every operation can be differentiated twice",
        received=text,
        remedy="replace the operation by its formula in plain torch functions; a "
        "torch.autograd.Function needs a backward made of differentiable functions, without "
        "@once_differentiable; a fused kernel or a reentrant checkpoint has a plain counterpart",
    )
