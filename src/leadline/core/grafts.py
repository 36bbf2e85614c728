"""Grafts: functions that are put before or behind somebody's module for good.

A tap listens and is always taken off; a graft changes what the module does and stays: a remedy that
scales the inputs, or adds a residual path, without another class or other names of parameters. It
goes along when the module is copied, and not into its state_dict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

Before = Callable[[nn.Module, tuple[Any, ...]], Any]
Behind = Callable[[nn.Module, tuple[Any, ...], Any], Any]


def graft_before(module: nn.Module, change: Before) -> None:
    """Let `change(module, inputs)` give the inputs that the module gets, ahead of other hooks.

    >>> import torch
    >>> layer = nn.Identity()
    >>> graft_before(layer, lambda module, inputs: (inputs[0] + 1,))
    >>> layer(torch.zeros(1))
    tensor([1.])
    """
    module.register_forward_pre_hook(change, prepend=True)


def graft_behind(module: nn.Module, change: Callable[..., Any], *, keywords: bool = False) -> None:
    """Let `change(module, inputs, output)` give what the module puts out.

    With `keywords`, it is `change(module, args, kwargs, output)`.

    >>> import torch
    >>> layer = nn.Identity()
    >>> graft_behind(layer, lambda module, inputs, output: 2 * output)
    >>> layer(torch.ones(1))
    tensor([2.])
    """
    module.register_forward_hook(change, with_kwargs=keywords)


def graft_around(
    module: nn.Module,
    enter: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any],
    leave: Behind,
) -> None:
    """Let `enter(module, args, kwargs)` run ahead, and `leave` behind, after an error too."""
    module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
    module.register_forward_hook(leave, always_call=True)
