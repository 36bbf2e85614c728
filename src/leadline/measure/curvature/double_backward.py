"""Double backward: run a model with the kernels that have a second derivative.

Some fused kernels come with a hand-written backward pass that cannot be differentiated again. Their
plain formulas can, and give the same values:

- scaled dot product attention runs as matrix products and a softmax;
- recurrent layers on a GPU run without cuDNN;
- hard sigmoid, as in MobileNetV3, runs as relu6(x + 3) / 6.
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
        return func(*args, **(kwargs or {}))


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    if inplace:
        return input.add_(3).clamp_(0, 6).div_(6)
    return functional.relu6(input + 3) / 6
