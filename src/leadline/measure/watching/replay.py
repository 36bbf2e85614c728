"""Replay: the eager original of a compiled model, run once more on a few examples without a trace.

Compiled code calls no hooks, and a hook that is there while it compiles makes it compile again when
the hook goes. What flows inside is therefore seen on the original, which shares the weights: just
before the compiled forward, in the same train/eval mode and under the same autocast, with buffers
and random streams put back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves, tree_map_only

from leadline.core.taps import Taps

EXAMPLES = 16
"""How many of a batch's examples the original runs on."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def replay(model: nn.Module, arguments: Arguments, listen: Callable[[Taps], None]) -> bool:
    """Run the original of `model` on copies of up to EXAMPLES of the examples; whether it ran.

    `listen` is given the Taps before the run, a second time when the model failed on a part of the
    batch and runs on all of it. A model whose forward waits for other processes is not run: they
    may not do the same now.

    >>> seen = []
    >>> model = nn.Sequential(nn.Dropout(), nn.Linear(2, 3))
    >>> def listen(taps):
    ...     taps.on_output(lambda call, inputs, output: seen.append(output.shape))
    >>> replay(model, ((torch.ones(64, 2),), {}), listen), seen[-1]
    (True, torch.Size([16, 3]))
    """
    model = original(model)
    if _would_communicate(model):
        return False
    for most in (EXAMPLES, sys.maxsize):
        args, kwargs = _copied(arguments, most)
        try:
            with Taps(model) as taps, torch.no_grad(), _autocast_uncached():
                listen(taps)
                model(*args, **kwargs)
        except Exception:  # some models run on a whole batch only; the training will tell of others
            continue
        return True
    return False


def original(model: nn.Module) -> nn.Module:
    """The model without the wrappers of torch.compile and DistributedDataParallel."""
    while True:
        if "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        elif isinstance(model, DistributedDataParallel):
            model = model.module
        else:
            return model


def is_compiled(model: nn.Module) -> bool:
    return any(
        "_orig_mod" in module._modules or module._compiled_call_impl is not None
        for module in model.modules()
    )


def _would_communicate(model: nn.Module) -> bool:
    """Whether a forward pass waits for other processes, which may not sample the same step."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    shared = any(
        isinstance(module, nn.SyncBatchNorm) or "FullySharded" in type(module).__name__
        for module in model.modules()
    )
    return shared or any(hasattr(parameter, "to_local") for parameter in model.parameters())


def _copied(arguments: Any, most: int) -> Any:
    """The arguments with copies of their tensors, of up to `most` examples where all agree.

    Tensors of different lengths may point into each other, as a graph's edges do to its nodes.
    """
    tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in tensors}
    every = max(1, -(-max(lengths, default=1) // most)) if len(lengths) == 1 else 1

    def copy(tensor: Tensor) -> Tensor:
        return (tensor[::every] if every > 1 else tensor).detach().clone()

    return tree_map_only(Tensor, copy, arguments)


@contextmanager
def _autocast_uncached() -> Iterator[None]:
    """Keep autocast from remembering weights that it narrowed without gradients.

    The training's own forward pass, in the same autocast, would find and use them; torch 2.13
    prevents that by itself, not every version before it did.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
