"""The layers of any network, as its forward pass goes through them.

A layer is here the call of a module that contains no other, or of a function of torch that does a
layer's work where no module exists for it: `F.relu(x)`, `x + shortcut`, an attention. They come in
the order in which they run; a module that is called twice is two layers, since what flows through
it differs. Only floating tensors count, the first one of an output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from leadline.core.taps import ROOT, Call, Operation, Taps, tensors_in


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTIVATIONS = _names(
    "relu relu6 leaky_relu prelu elu selu celu gelu silu mish softplus tanh sigmoid hardtanh "
    "hardswish hardsigmoid softsign glu logsigmoid"
)
AFFINE = _names(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d matmul bmm mm "
    "addmm baddbmm einsum bilinear embedding"
)
NORMALISATIONS = _names(
    "layer_norm batch_norm group_norm instance_norm rms_norm local_response_norm normalize"
)
ATTENTIONS = _names("scaled_dot_product_attention multi_head_attention_forward")
PROBABILITIES = _names("softmax log_softmax softmin gumbel_softmax")
JOINS = _names("add cat stack")
LAYER_FUNCTIONS = ACTIVATIONS | AFFINE | NORMALISATIONS | ATTENTIONS | PROBABILITIES | JOINS
"""The functions of torch that are a layer where no module is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One layer in a forward pass; `name` is unique in it, `kind` a module's class or a function.

    `name` is the module's own name, with `(call 2)` behind it from the second call on, or the name
    of the module around it and the function: `layer1.0/add`, on the top level only `relu`.
    """

    name: str
    kind: str
    module: nn.Module | None = None


LayerCallback = Callable[[Layer, tuple[Any, ...], Tensor], None]


def on_layer(taps: Taps, callback: LayerCallback) -> None:
    """Call `callback(layer, inputs, output)` after each layer of the tapped model ran.

    >>> import torch
    >>> from torch.nn import functional
    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = nn.Linear(2, 2)
    ...     def forward(self, x):
    ...         return x + functional.relu(self.linear(x))
    >>> names = []
    >>> with Taps(model := nn.Sequential(Block(), Block())) as taps:
    ...     on_layer(taps, lambda layer, inputs, output: names.append(layer.name))
    ...     _ = model(torch.ones(1, 2))
    >>> names
    ['0.linear', '0/relu', '0/add', '1.linear', '1/relu', '1/add']
    """
    calls: Counter[str] = Counter()

    def unique(name: str) -> str:
        calls[name] += 1
        return name if calls[name] == 1 else f"{name} (call {calls[name]})"

    def module_ran(call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        if not _is_one_layer(call.name, call.module):
            return
        tensor = _first_floating(output)
        if tensor is not None:
            kind = type(call.module).__name__
            layer = Layer(name=unique(call.name), kind=kind, module=call.module)
            callback(layer, inputs, tensor)

    def function_ran(operation: Operation, inputs: tuple[Any, ...], output: Any) -> None:
        if operation.function not in LAYER_FUNCTIONS:
            return
        tensor = _first_floating(output)
        if _is_one_layer(operation.name, operation.module) or tensor is None:
            return
        path = "" if operation.name == ROOT else f"{operation.name}/"
        name = unique(f"{path}{operation.function}")
        callback(Layer(name=name, kind=operation.function), inputs, tensor)

    taps.on_output(module_ran)
    taps.on_operation(function_ran)


def _is_one_layer(name: str, module: nn.Module) -> bool:
    """Whether the module is a layer by itself, so that functions it calls are its inside.

    One of torch's own without children is; another without children too, unless it is the whole
    model or holds several matrices: then it is a network written with functions.
    """
    if next(module.children(), None) is not None:
        return False
    if type(module).__module__.startswith("torch.nn"):
        return True
    matrices = sum(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
    return name != ROOT and matrices <= 1


def _first_floating(output: Any) -> Tensor | None:
    return next((tensor for tensor in tensors_in(output) if tensor.is_floating_point()), None)
