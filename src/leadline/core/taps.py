"""Taps: hooks on any network that always come off and leave it as it was found.

Everything that measures a network listens to its modules while it runs. Inside the `with` block
the callbacks are told of every call, in call order; on the way out, after an error too, the hooks
are gone, and train/eval modes, buffers (a batch norm's running statistics), the parameters' `.grad`
and the random streams are what they were.

Three choices may surprise. Gradients come from hooks on the output tensors, not from torch's module
backward hooks: those forbid what an in-place ReLU does to the output of the layer before it. Inside
the block the parameters' `.grad` begin as None, so that a measurement never adds to the gradients
of a training under way. And compiled modules run as their eager originals meanwhile, since compiled
code does not call hooks; names are those of the original, without the wrappers of torch.compile and
DistributedDataParallel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.hooks import RemovableHandle

from leadline.core.snapshot import Snapshot

ROOT = "(model)"  # the name of the whole model among its modules, which torch leaves empty


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One call of one module: `number` counts the calls of the same module from 0."""

    name: str
    module: nn.Module
    number: int

    @property
    def is_leaf(self) -> bool:
        """Whether the module contains no other."""
        return next(self.module.children(), None) is None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """One call of a function of torch: `name` is the innermost module that was running.

    `function` is the function's own name: `relu`, `add`, `scaled_dot_product_attention`; its
    in-place form and its operator are called the same (`relu_`, `+` and `__iadd__` are not told
    apart from `relu` and `add`).
    """

    name: str
    module: nn.Module
    function: str


class Taps:
    """Listen to the modules of `model` inside a `with` block.

    The callbacks are told:

    - `on_input(callback)`: `callback(call, inputs)` before the module runs, a tuple of all that it
      was given;
    - `on_output(callback)`: `callback(call, inputs, output)` after it ran. An in-place module has
      by then overwritten its input;
    - `replace_output(callback)`: what `callback(call, output)` returns, unless it is None, goes on
      in the place of the output;
    - `on_operation(callback)`: `callback(operation, inputs, output)` after each function of torch
      that returned a tensor, also where no module exists for it (`F.relu`, `x + y`);
    - `on_gradient(callback)`: `callback(call, gradient)` in the backward pass, the gradient with
      respect to the output; for an output of several tensors, once for each. `hook(tensor,
      callback)` does the same for one tensor.

    Calls that gradient checkpointing repeats in the backward pass are not told of again.
    Copy what you keep: a later in-place module overwrites the tensor handed to a callback. A module
    that is called twice is told of twice; one that contains others is told of after them. With
    `restore=False` only the hooks are removed, and compiled modules stay compiled.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True))
    >>> widths = {}
    >>> with Taps(model) as taps:
    ...     taps.on_output(lambda call, inputs, output: widths.update({call.name: output.shape[1]}))
    ...     _ = model(torch.ones(1, 2))
    >>> widths
    {'0': 3, '1': 3, '(model)': 3}
    """

    def __init__(self, model: nn.Module, *, restore: bool = True) -> None:
        self._model = model
        self._restore = restore
        self._handles: list[RemovableHandle] = []
        # Weak: a hook on a tensor lives as long as the graph it is on, and thousands of steps may
        # pass between opening and closing.
        self._on_tensors: weakref.WeakSet[_GradientHook] = weakref.WeakSet()
        self._found: Snapshot | None = None
        self._scopes = ExitStack()

    def __enter__(self) -> Taps:
        assert self._found is None, "these taps are open already"
        if self._restore:
            self._found = Snapshot(self._model)
            if "torch._dynamo" in sys.modules:  # else nothing can be compiled
                self._scopes.enter_context(torch.compiler.set_stance("force_eager"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scopes.close()
        for handle in self._handles:
            handle.remove()
        for hook in tuple(self._on_tensors):
            hook.handle.remove()
        self._handles.clear()
        if self._found is not None:
            self._found.put_back()
            self._found = None

    def on_input(self, callback: Callable[[Call, tuple[Any, ...]], None]) -> None:
        """Call back before each module's forward."""
        calls: Counter[str] = Counter()

        def listen(name: str, module: nn.Module) -> RemovableHandle:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                call = Call(name=name, module=module, number=calls[name])
                calls[name] += 1
                callback(call, (*args, *kwargs.values()))

            return module.register_forward_pre_hook(_Hook(hook), with_kwargs=True)

        self._on_every_module(listen)

    def on_output(self, callback: Callable[[Call, tuple[Any, ...], Any], None]) -> None:
        """Call back after each module's forward."""
        calls: Counter[str] = Counter()

        def listen(name: str, module: nn.Module) -> RemovableHandle:
            def hook(
                module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
            ) -> None:
                call = Call(name=name, module=module, number=calls[name])
                calls[name] += 1
                callback(call, (*args, *kwargs.values()), output)

            return module.register_forward_hook(_Hook(hook), with_kwargs=True)

        self._on_every_module(listen)

    def replace_output(self, callback: Callable[[Call, Any], Any]) -> None:
        """Let `callback(call, output)` hand on something else; with None the output stays.

        A callback of `on_output` that was registered before still sees the module's own output.
        """
        calls: Counter[str] = Counter()

        def listen(name: str, module: nn.Module) -> RemovableHandle:
            def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
                call = Call(name=name, module=module, number=calls[name])
                calls[name] += 1
                return callback(call, output)

            return module.register_forward_hook(hook)

        self._on_every_module(listen)

    def on_gradient(self, callback: Callable[[Call, Tensor], None]) -> None:
        """Call back in the backward pass with the gradient with respect to each output."""

        def attach(call: Call, inputs: tuple[Any, ...], output: Any) -> None:
            for tensor in tensors_in(output):
                self.hook(tensor, functools.partial(callback, call))

        self.on_output(attach)

    def on_call(self, callback: Callable[[tuple[Any, ...], dict[str, Any]], None]) -> None:
        """Call back with the arguments before the whole model runs, compiled or not."""
        model, compiled = self._model, self._model._compiled_call_impl
        if compiled is None:
            hook = _Hook(lambda module, args, kwargs: callback(args, kwargs))
            self._handles.append(model.register_forward_pre_hook(hook, with_kwargs=True))
            return

        def call(*args: Any, **kwargs: Any) -> Any:  # model.compile() compiles what calls hooks
            callback(args, kwargs)
            return compiled(*args, **kwargs)

        model._compiled_call_impl = call
        self._scopes.callback(setattr, model, "_compiled_call_impl", compiled)

    def before_update(self, optimizer: torch.optim.Optimizer, callback: Callable[[], None]) -> None:
        """Call back before each `optimizer.step()` that takes place."""
        hook = _Hook(lambda optimizer, args, kwargs: callback())
        self._handles.append(optimizer.register_step_pre_hook(hook))

    def hook(self, tensor: Tensor, callback: Callable[[Tensor], None]) -> None:
        """Call back with the gradient with respect to one tensor, where it will have one."""
        if tensor.requires_grad:
            self._on_tensors.add(_GradientHook(tensor, callback))

    def on_operation(self, callback: Callable[[Operation, tuple[Any, ...], Any], None]) -> None:
        """Call back after each function of torch that a module's code called directly.

        A function that another one calls inside (the softmax in
        `F.multi_head_attention_forward`) is part of the outer one.
        """
        running: list[tuple[str, nn.Module]] = [(ROOT, self._model)]

        def enter(name: str, module: nn.Module) -> RemovableHandle:
            return module.register_forward_pre_hook(
                lambda module, args: running.append((name, module))
            )

        def leave(name: str, module: nn.Module) -> RemovableHandle:
            def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                running.pop()

            return module.register_forward_hook(hook, always_call=True)

        self._on_every_module(enter)
        self._on_every_module(leave)
        self._scopes.enter_context(_OperationMode(running, callback))

    def _on_every_module(self, listen: Callable[[str, nn.Module], RemovableHandle]) -> None:
        for name, module in self._model.named_modules():
            self._handles.append(listen(plain_name(name), module))


@contextlib.contextmanager
def every_update(*, before: Callable[[Any], None], after: Callable[[Any], None]) -> Iterator[None]:
    """Call back around each `step()` of every optimizer there is, or will be, until the end."""
    handles = (
        register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: before(optimizer)),
        register_optimizer_step_post_hook(lambda optimizer, args, kwargs: after(optimizer)),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def plain_name(name: str) -> str:
    """A module's or parameter's name without what torch.compile and wrappers put before it.

    >>> plain_name("module._orig_mod.layer1.weight"), plain_name("_orig_mod")
    ('layer1.weight', '(model)')
    """
    parts = [part for part in name.split(".") if part not in ("_orig_mod", "_fsdp_wrapped_module")]
    if parts[:1] == ["module"]:
        parts = parts[1:]
    return ".".join(parts) or ROOT


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of tuples, lists, mappings and dataclasses, in order.

    >>> [t.item() for t in tensors_in({"a": torch.tensor(1), "b": (torch.tensor(2), None)})]
    [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from tensors_in(entry)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def first_nonfinite(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """The name of the module where NaN or infinity first appears when `forward` runs, or None.

    That is the first module, in the order in which they finish, whose output is not finite
    although all it was given was: a layer inside a block is named rather than the block, and the
    block itself when the fault lies between its layers. None when every output is finite, or when
    the model was given NaN to begin with. The model is left as found.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> with torch.no_grad():
    ...     _ = model[1].weight.fill_(float("nan"))
    >>> first_nonfinite(model, lambda: model(torch.ones(1, 2)))
    '1'
    """
    given_finite: list[bool] = []  # one entry per module that is running, the innermost last
    guilty: list[str] = []

    def enter(call: Call, inputs: tuple[Any, ...]) -> None:
        given_finite.append(_all_finite(inputs))

    def leave(call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        if given_finite.pop() and not guilty and not _all_finite(output):
            guilty.append(call.name)

    with Taps(model) as taps:
        taps.on_input(enter)
        taps.on_output(leave)
        forward()
    return guilty[0] if guilty else None


def _all_finite(value: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors_in(value))


class _Hook:
    """A hook that compiled code leaves out, and that a copy or a pickle of the model is without."""

    def __init__(self, function: Callable[..., None] | None = None) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        if self._function is not None and not (torch.compiler.is_compiling() or _in_backward()):
            self._function(*args)

    def __reduce__(self) -> tuple[Any, ...]:  # what copy and pickle ask for
        return _Hook, ()


def _in_backward() -> bool:
    """Whether a backward pass is running: gradient checkpointing then calls the modules again."""
    running: int = torch._C._current_graph_task_id()
    return running != -1


class _GradientHook:
    """A callback on one tensor's gradient, with the handle that takes it off."""

    def __init__(self, tensor: Tensor, callback: Callable[[Tensor], None]) -> None:
        self._callback = callback
        self.handle: RemovableHandle = tensor.register_hook(self)

    def __call__(self, gradient: Tensor) -> None:
        self._callback(gradient)


class _OperationMode(TorchFunctionMode):
    """Sees every function of torch that is called while it is on, and passes on what it returned.

    `running` is the stack of modules under way, the innermost last.
    """

    def __init__(
        self,
        running: list[tuple[str, nn.Module]],
        callback: Callable[[Operation, tuple[Any, ...], Any], None],
    ) -> None:
        super().__init__()
        self._running = running
        self._callback = callback

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if _in_backward():
            return output
        if isinstance(output, Tensor | tuple) and any(True for _ in tensors_in(output)):
            name, module = self._running[-1]
            operation = Operation(name=name, module=module, function=_function_name(func))
            self._callback(operation, (*args, *(kwargs or {}).values()), output)
        return output


@functools.cache
def _function_name(function: Any) -> str:
    """`relu` for F.relu, torch.relu_ and Tensor.relu; `add` for torch.add, `+`, `+=`."""
    name = getattr(function, "__name__", None) or str(resolve_name(function))
    if name == "__get__":  # an attribute of a tensor, such as x.T
        return "get"
    name = name.strip("_")
    for side in ("i", "r"):  # __iadd__, __radd__
        if name.removeprefix(side) in _OPERATORS and name not in _OPERATORS:
            name = name.removeprefix(side)
    return {"truediv": "div"}.get(name, name)


_OPERATORS = frozenset({"add", "sub", "mul", "truediv", "matmul", "pow"})
