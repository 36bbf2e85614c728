"""The trace: which functions of torch lie between a model's outputs and the backward pass.

A loss is often written by hand, in the loop. Nothing names it; but every function of torch that
the loop calls between the outputs and `backward` can be seen as it is called. Followed back from
the loss, they are a formula that can be computed again for other outputs (`formula.py`).

The trace is on outside of the models only: their own functions are not looked at, and cost nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)

from leadline.core.taps import tensors_in
from leadline.doctor.recording.points import in_backward

LONGEST = 4000
"""Functions kept at most, for loops that never come to a backward pass."""


@dataclass(kw_only=True, eq=False)
class Node:
    """One call: `forwards` are the model calls (by event) that its result depends on.

    `function` None is a model's output itself, whose event is in `forwards`.
    """

    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    forwards: frozenset[int] = frozenset()
    writes: bool = False

    @property
    def name(self) -> str:
        """The function's own name: `cross_entropy`, `mul`, `__getitem__`."""
        if self.function is None:
            return "output"
        return str(getattr(self.function, "__name__", type(self.function).__name__))


@dataclass(kw_only=True, eq=False)
class Trace:
    """The calls since it was last forgotten; a tensor is known by its identity."""

    nodes: list[Node] = field(default_factory=list)
    origin: dict[int, int] = field(default_factory=dict)  # id of a tensor -> number of its node
    evaluated: dict[int, tuple[weakref.ref[Tensor], int]] = field(default_factory=dict)

    def add_output(self, output: Any, *, event: int) -> None:
        """What a model returned in the call that is event number `event`."""
        if torch.is_grad_enabled():
            forwards = frozenset({event})
            self._append(Node(function=None, args=(), kwargs={}, output=output, forwards=forwards))
        else:
            for tensor in tensors_in(output):
                self._remember_evaluated(tensor, event)

    def add_call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
    ) -> None:
        """A function that was called outside of the models."""
        name = getattr(function, "__name__", "")
        if not torch.is_grad_enabled():
            self._pass_on(name, args, output)
            return
        writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
        if name == "__set__" or not (writes or any(True for _ in tensors_in(output))):
            return
        result = args[0] if name == "__setitem__" else output
        before = [self.origin.get(id(t)) for t in tensors_in((args, kwargs))]
        forwards = frozenset().union(*(self.nodes[n].forwards for n in before if n is not None))
        if len(self.nodes) < LONGEST:
            self._append(
                Node(
                    function=function,
                    args=args,
                    kwargs=kwargs,
                    output=result,
                    forwards=forwards,
                    writes=writes,
                )
            )

    def add_alias(self, result: Tensor, source: Tensor) -> None:
        """`result` is `source` but for a factor that is not the loop's (a gradient scaler's)."""
        node = self.origin.get(id(source))
        if node is not None:
            self.origin[id(result)] = node
            self.nodes.append(Node(function=None, args=(), kwargs={}, output=result))  # kept alive

    def node_of(self, tensor: Tensor) -> Node | None:
        """The call that made a tensor."""
        number = self.origin.get(id(tensor))
        return None if number is None else self.nodes[number]

    def forward_of(self, tensor: Tensor) -> int | None:
        """The event of the one model call whose output (or a view of it) a tensor is."""
        remembered = self.evaluated.get(id(tensor))
        if remembered is not None and remembered[0]() is tensor:
            return remembered[1]
        node = self.node_of(tensor)
        while node is not None and node.function is not None and node.name in KEEPS_VALUES:
            node = self.node_of(next(tensors_in(node.args)))
        if node is None or node.function is not None or len(node.forwards) != 1:
            return None
        return next(iter(node.forwards))

    def forget(self) -> None:
        """Let go of everything: what comes belongs to the next step."""
        self.nodes.clear()
        self.origin.clear()
        self.evaluated = {k: v for k, v in self.evaluated.items() if v[0]() is not None}

    def _append(self, node: Node) -> None:
        for tensor in tensors_in(node.output):
            self.origin[id(tensor)] = len(self.nodes)
        self.nodes.append(node)

    def _pass_on(self, name: str, args: tuple[Any, ...], output: Any) -> None:
        if name in KEEPS_VALUES and isinstance(output, Tensor) and self.evaluated:
            for tensor in tensors_in(args[:1]):
                remembered = self.evaluated.get(id(tensor))
                if remembered is not None and remembered[0]() is tensor:
                    self._remember_evaluated(output, remembered[1])

    def _remember_evaluated(self, tensor: Tensor, event: int) -> None:
        if len(self.evaluated) > LONGEST:
            self.evaluated = {k: v for k, v in self.evaluated.items() if v[0]() is not None}
        self.evaluated[id(tensor)] = (weakref.ref(tensor), event)


KEEPS_VALUES = frozenset(
    {
        "squeeze",
        "unsqueeze",
        "view",
        "reshape",
        "flatten",
        "float",
        "double",
        "cpu",
        "to",
        "detach",
        "__getitem__",
        "contiguous",
        "permute",
        "transpose",
        "select",
    }
)
"""Functions whose results are the very numbers they were given."""

Told = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any], None]


class Listening(TorchFunctionMode):
    """Tells of every function of torch the loop calls itself, while it is not suspended."""

    def __init__(self, told: Told, *, foreign: Callable[[], bool]) -> None:
        super().__init__()
        self._told = told
        self._foreign = foreign
        self._deaf = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if not (self._deaf or in_backward() or self._foreign()):
            self._told(func, args, kwargs or {}, output)
        return output

    def suspended(self) -> Iterator[None]:
        """A generator for `contextlib.contextmanager`: nothing is told, at no cost if possible."""
        self._deaf += 1
        on_top = _get_current_function_mode_stack()[-1:] == [self]
        if on_top:
            _pop_mode()
        try:
            yield
        finally:
            if on_top:
                _push_mode(self)
            self._deaf -= 1
