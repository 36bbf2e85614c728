"""Remedies of precision: the same training computed in a wider type, whoever narrows it.

A model is narrowed in many places: its weights, `x.half()` inside its forward, an autocast around
a part of it. `Widened` undoes them all: a mode in which every function of torch is called outside
of autocast, casts to narrower types do nothing, and what still comes out narrower is widened.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from leadline.core.grafts import graft_around
from leadline.doctor.remedies.surgery import operated
from leadline.doctor.remedy import Remedy
from leadline.training.setup import Setup

Wide = Literal["float32", "float64"]

CASTS = frozenset({"half", "bfloat16", "float", "double", "to", "type", "type_as"})
"""Methods of a tensor that may narrow it."""


class Widened(TorchFunctionMode):
    """Inside, no function of torch computes or answers in a floating type narrower than `dtype`.

    >>> with Widened(torch.float32):
    ...     (torch.ones(2).half() * 70_000).dtype
    torch.float32
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in CASTS and args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            return self._cast(func, args, kwargs)
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            try:
                result = func(*args, **kwargs)
            except RuntimeError:
                wide = _mapped((tuple(args), dict(kwargs)), self.widen)
                result = func(*wide[0], **wide[1])
        return result if name.endswith("_") or name == "__get__" else _mapped(result, self.widen)

    def _cast(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A cast, of which what makes numbers narrower is left out; a move to a device is not."""
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or not self._narrow(result):
            return result
        return args[0].to(device=result.device, dtype=self.dtype)

    def _narrow(self, tensor: Tensor) -> bool:
        return tensor.is_floating_point() and tensor.element_size() < self.dtype.itemsize

    def widen(self, tensor: Tensor) -> Tensor:
        """The tensor in the wide type, if its own is a narrower floating one."""
        return tensor.to(self.dtype) if self._narrow(tensor) else tensor


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The value with every tensor in its tuples, lists and dictionaries changed."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(_mapped(entry, change) for entry in value)
    if type(value) is dict:
        return {key: _mapped(entry, change) for key, entry in value.items()}
    return value


def computed_in(name: Wide) -> Remedy:
    """Keep weights and compute model and loss in float32, or in float64."""
    dtype = {"float32": torch.float32, "float64": torch.float64}[name]

    def change(model: nn.Module) -> nn.Module:
        widened = _as_wide(model, dtype)
        scope = _Scope(dtype)
        graft_around(widened, scope.enter, scope.leave)
        return widened

    def apply(setup: Setup) -> Setup:
        return replace(operated(setup, change), loss=_WideLoss(setup.loss, dtype))

    old = "- model.half()" if name == "float32" else "- model.float()"
    new = "+ model.float()" if name == "float32" else "+ model.double()"
    return Remedy(
        title=f"keep the weights and compute in {name}",
        apply=apply,
        lines=(old, new, "- x.half()" if name == "float32" else "- x.float()"),
    )


def _as_wide(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model with weights and buffers of the type, where theirs are narrower."""
    wide: nn.Module = model._apply(
        lambda t: t.to(dtype) if t.is_floating_point() and t.element_size() < dtype.itemsize else t
    )
    return wide


class _Scope:
    """Hooks that put a model's forward pass into the mode, and its floating inputs into the type.

    The scope is open until the outermost call of the model returns or raises.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._open: list[ExitStack] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> _Scope:
        return _Scope(self.dtype)

    def enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any]:
        mode = Widened(self.dtype)
        scope = ExitStack()
        scope.enter_context(mode)
        self._open.append(scope)
        wide: tuple[Any, Any] = _mapped((args, kwargs), mode.widen)
        return wide

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._open.pop().close()


class _WideLoss:
    def __init__(self, loss: Callable[[Any, Any], Tensor], dtype: torch.dtype) -> None:
        self.loss = loss
        self.dtype = dtype

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        with Widened(self.dtype):
            narrow = isinstance(targets, Tensor) and targets.is_floating_point()
            return self.loss(outputs, targets.to(self.dtype) if narrow else targets)
