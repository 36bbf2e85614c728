"""Double backward: run a model with the kernels that have a second derivative.

Some fused kernels come with a hand-written backward pass that cannot be differentiated again. Their
plain formulas can, and give the same values:

- scaled dot product attention runs as matrix products and a softmax;
- recurrent layers on a GPU run without cuDNN;
- hard sigmoid, as in MobileNetV3, runs as relu6(x + 3) / 6;
- batch norm in evaluation mode, which has a second derivative but a slow one, runs as the x a + b
  that it is: a Hessian product of a ResNet takes a fifth less time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Inside, a forward pass of `model` builds a graph that can be differentiated twice.

    >>> x = torch.tensor([1.0], requires_grad=True)
    >>> with twice_differentiable(nn.Hardsigmoid()):
    ...     y = nn.functional.hardsigmoid(x).square()
    >>> (slope,) = torch.autograd.grad(y, [x], create_graph=True)
    >>> torch.autograd.grad(slope, [x])  # 2 / 6^2
    (tensor([0.0556]),)
    """
    with ExitStack() as scopes:
        scopes.enter_context(torch.inference_mode(False))
        scopes.enter_context(sdpa_kernel(SDPBackend.MATH))
        scopes.enter_context(_PlainFormulas())
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            scopes.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


class _PlainFormulas(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.hardsigmoid:
            return _hardsigmoid(*args, **(kwargs or {}))
        if func is functional.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    if inplace:
        return input.add_(3).clamp_(0, 6).div_(6)
    return functional.relu6(input + 3) / 6


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    given = (running_mean, running_var, weight, bias)
    types = {tensor.dtype for tensor in (input, *given) if tensor is not None}
    if training or running_mean is None or running_var is None or len(types) > 1:
        return functional.batch_norm(input, *given, training, momentum, eps)
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias
    channels = (1, -1) + (1,) * (input.ndim - 2)
    return torch.addcmul(shift.view(channels), input, scale.view(channels))
