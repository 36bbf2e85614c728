"""Points: where the recording of a loop stands beside what the loop calls.

A point is an attribute of a class or a module of torch, replaced for the time being by a function
that asks a handler. `handler(original, args, kwargs)` calls the original or something else, and
returns what the caller gets. Everything is put back at the end, in reverse order, after an error
too. Other threads, worker processes that were forked meanwhile, and code that is being compiled go
past the handler.

A user who wrote `from torch.nn.utils import clip_grad_norm_` has a name of his own for it;
`everywhere` replaces the function under all such names.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch

Handler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Takes the original, its arguments and keywords; returns what the caller is to get."""


class Points:
    """Replaced attributes, put back when the `with` block ends.

    >>> class Bell:
    ...     def ring(self):
    ...         return "dong"
    >>> with Points() as points:
    ...     points.around(Bell, "ring", lambda original, args, kwargs: original(*args) * 2)
    ...     Bell().ring()
    'dongdong'
    >>> Bell().ring()
    'dong'
    """

    def __init__(self) -> None:
        self._put_back = ExitStack()
        self._process = os.getpid()
        self._thread = threading.get_ident()

    def __enter__(self) -> Points:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._put_back.close()

    def foreign(self) -> bool:
        """Whether another thread or process is running, or code is being compiled."""
        if torch.compiler.is_compiling():
            return True
        return threading.get_ident() != self._thread or os.getpid() != self._process

    def around(self, owner: Any, name: str, handler: Handler) -> None:
        """Ask `handler` whenever `owner.name` is called; `owner` must define it itself."""
        original = vars(owner)[name]
        setattr(owner, name, self._wrap(original, handler))
        self._put_back.callback(setattr, owner, name, original)

    def around_classes(self, root: type[Any], name: str, handler: Handler) -> None:
        """The same for a class and all classes below it that define `name` themselves."""
        for cls in _family(root):
            if callable(vars(cls).get(name)):
                self.around(cls, name, handler)

    def everywhere(self, owner: Any, name: str, handler: Handler) -> None:
        """The same for a function of a module, under every name that other modules have for it."""
        original = vars(owner)[name]
        replacement = self._wrap(original, handler)
        for module in tuple(sys.modules.values()):
            names: Mapping[str, Any] = getattr(module, "__dict__", None) or {}
            for own in [own for own, value in tuple(names.items()) if value is original]:
                setattr(module, own, replacement)
                self._put_back.callback(setattr, module, own, original)

    def callback(self, function: Callable[[], Any]) -> None:
        """Call `function` when the block ends, before what was replaced earlier is put back."""
        self._put_back.callback(function)

    def _wrap(self, original: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            if self.foreign():
                return original(*args, **kwargs)
            return handler(original, args, kwargs)

        return replacement


def in_backward() -> bool:
    """Whether a backward pass is running: gradient checkpointing then calls the modules again."""
    running: int = torch._C._current_graph_task_id()
    return running != -1


def _family(root: type[Any]) -> list[type[Any]]:
    """A class and every class below it, each once."""
    found, open_classes = {root: None}, [root]
    while open_classes:
        for cls in open_classes.pop().__subclasses__():
            if cls not in found:
                found[cls] = None
                open_classes.append(cls)
    return list(found)
