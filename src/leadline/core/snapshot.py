"""Snapshot: what a model and the random streams were like, and the way back there.

A forward pass changes more than one thinks: running statistics, train and eval modes, gradients,
random streams, the hidden state or the counter that a module keeps in a plain attribute, and the
rows that `nn.Embedding(max_norm=...)` shortens in place while it looks them up.

Buffers and gradients are set aside and replaced for the time being, never written to: a graph that
a training has still to run backward through may have saved them. Plain attributes are put back by
reference, and what lists and dictionaries held is put back into them; those of torch's own modules
are left alone, but for embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.seeds import RandomState, capture_random_state, restore_random_state

Renormed = nn.Embedding | nn.EmbeddingBag
"""What shortens its rows in place when it is given a `max_norm`."""


class Snapshot:
    """Taken when it is made; inside, the parameters' `.grad` are None until `put_back`.

    >>> model = nn.BatchNorm1d(2)
    >>> found = Snapshot(model)
    >>> _ = model(torch.randn(4, 2))
    >>> found.put_back()
    >>> model.running_mean.tolist(), int(model.num_batches_tracked)
    ([0.0, 0.0], 0)
    """

    def __init__(self, model: nn.Module) -> None:
        copies: dict[int, Tensor] = {}  # one copy of each, also where two modules share a buffer
        self._modes = [(module, module.training) for module in model.modules()]
        self._buffers = [(module, dict(module._buffers)) for module in model.modules()]
        for module, buffers in self._buffers:
            for name, buffer in buffers.items():
                if buffer is not None:
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
        self._tables = [
            (module.weight, module.weight.detach().clone(), module.weight._version)
            for module in model.modules()
            if isinstance(module, Renormed) and module.max_norm is not None
        ]
        self._attributes = [
            (module, _plain_attributes(module))
            for module in model.modules()
            if not type(module).__module__.startswith("torch.")
        ]
        self._gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
        for parameter, _ in self._gradients:
            parameter.grad = None
        self._random: RandomState = capture_random_state()

    def put_back(self) -> None:
        """Everything as it was found."""
        for module, training in self._modes:
            module.training = training
        for module, buffers in self._buffers:
            module._buffers.clear()
            module._buffers.update(buffers)
        for weight, copy, version in self._tables:
            if weight._version != version:
                with torch.no_grad():
                    weight.copy_(copy)
        for module, attributes in self._attributes:
            _put_back_attributes(module, attributes)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        restore_random_state(self._random)


_Attributes = dict[str, tuple[Any, Any]]  # name -> the value, and what it held if it can hold


def _plain_attributes(module: nn.Module) -> _Attributes:
    """What a module keeps that torch does not know of; its hooks and registries are not plain."""
    return {
        name: (value, _held(value))
        for name, value in vars(module).items()
        if name != "training" and name not in _REGISTRIES
    }


def _held(value: Any) -> Any:
    return type(value)(value) if type(value) in (list, dict, set) else None


def _put_back_attributes(module: nn.Module, attributes: _Attributes) -> None:
    now = vars(module)
    for name in [name for name in now if name not in attributes and name not in _REGISTRIES]:
        if name != "training":
            del now[name]
    for name, (value, held) in attributes.items():
        now[name] = value
        if isinstance(held, list):
            value[:] = held
        elif held is not None:
            value.clear()
            value.update(held)


_REGISTRIES = frozenset(vars(nn.Module()))  # _parameters, _buffers, _forward_hooks ...
