"""Reruns of what is around the update: modes, schedules, states, data, as they should be.

Each changes one thing of whatever loop runs inside. Several can be open at once, in each other.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from leadline.core.taps import every_update
from leadline.doctor.recording.contents import arrays
from leadline.doctor.recording.points import Points

Original = Callable[..., Any]
Arguments = tuple[Any, ...]


@contextlib.contextmanager
def training_mode_restored() -> Iterator[None]:
    """Models are put into training mode whenever their gradients are cleared or used."""
    roots: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def restore(held: set[int]) -> None:
        for root in tuple(roots):
            if not root.training and any(id(p) in held for p in root.parameters()):
                root.train()

    def switch(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        roots.add(args[0])
        return original(*args, **kwargs)

    def clear(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        owner = args[0]
        whole = isinstance(owner, nn.Module)
        restore({id(p) for p in owner.parameters()} if whole else _ids(owner))
        return original(*args, **kwargs)

    with (
        Points() as points,
        every_update(before=lambda o: None, after=lambda o: restore(_ids(o))),
    ):
        points.around(nn.Module, "train", switch)
        points.around(nn.Module, "zero_grad", clear)
        points.around_classes(Optimizer, "zero_grad", clear)
        yield


def _ids(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


@contextlib.contextmanager
def evaluation_mode_without_gradients() -> Iterator[None]:
    """A model that is called without gradients is in evaluation mode for that call."""

    def call(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        module: nn.Module = args[0]
        if torch.is_grad_enabled() or not module.training:
            return original(*args, **kwargs)
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        try:
            return original(*args, **kwargs)
        finally:
            for part, training in modes:
                part.training = training

    with Points() as points:
        points.around(nn.Module, "__call__", call)
        yield


@contextlib.contextmanager
def models_kept() -> Iterator[None]:
    """A new model of the class and shapes of one before goes on with that one's weights."""
    states: dict[tuple[Any, ...], dict[str, Tensor]] = {}
    met: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    inside = [False]

    def call(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        module: nn.Module = args[0]
        if inside[0] or next(module.parameters(), None) is None:
            return original(*args, **kwargs)
        kind = (type(module), *((n, p.shape) for n, p in module.named_parameters()))
        if module not in met:
            met.add(module)
            if kind in states:
                module.load_state_dict(states[kind])
        states[kind] = module.state_dict()  # its own memory, which training goes on to change
        inside[0] = True
        try:
            return original(*args, **kwargs)
        finally:
            inside[0] = False

    with Points() as points:
        points.around(nn.Module, "__call__", call)
        yield


@contextlib.contextmanager
def schedules_per_epoch() -> Iterator[None]:
    """Schedules step once at the end of each epoch with updates, whatever the loop does."""
    known: weakref.WeakSet[Any] = weakref.WeakSet()
    children: weakref.WeakSet[Any] = weakref.WeakSet()
    state = {"updated": False, "stepping": False}

    def after(optimizer: Optimizer) -> None:
        state["updated"] = True

    def step(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        schedule = args[0]
        if state["stepping"] or getattr(schedule, "_is_initial", False):
            known.add(schedule)
            for child in getattr(schedule, "_schedulers", ()):
                children.add(child)
            return original(*args, **kwargs)
        return None

    def following(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        try:
            return original(*args, **kwargs)
        except StopIteration:
            if state["updated"]:
                state.update(updated=False, stepping=True)
                for schedule in [s for s in known if s not in children]:
                    if not isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                        schedule.step()
                state["stepping"] = False
            raise

    with Points() as points, every_update(before=lambda o: None, after=after):
        points.around_classes(LRScheduler, "step", step)
        points.around(_BaseDataLoaderIter, "__next__", following)
        yield


@contextlib.contextmanager
def schedules_behind_updates() -> Iterator[None]:
    """A schedule's step is dropped where no update came since its last."""
    updates = [0]
    last: dict[int, int] = {}  # how many updates there were at a schedule's last step
    depth = [0]

    def after(optimizer: Optimizer) -> None:
        updates[0] += 1

    def step(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        schedule = args[0]
        if getattr(schedule, "_is_initial", False):
            last[id(schedule)] = updates[0]
        elif depth[0] == 0:
            if updates[0] <= last.get(id(schedule), 0):
                return None
            last[id(schedule)] = updates[0]
        depth[0] += 1
        try:
            return original(*args, **kwargs)
        finally:
            depth[0] -= 1

    with Points() as points, every_update(before=lambda o: None, after=after):
        points.around_classes(LRScheduler, "step", step)
        yield


@contextlib.contextmanager
def states_copied() -> Iterator[None]:
    """`state_dict()` returns copies, which further training does not change."""
    depth = [0]

    def take(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        depth[0] += 1
        try:
            state = original(*args, **kwargs)
        finally:
            depth[0] -= 1
        if depth[0] or kwargs.get("keep_vars"):
            return state
        copies: OrderedDict[str, Any] = OrderedDict(
            (k, v.clone() if isinstance(v, Tensor) else v) for k, v in state.items()
        )
        copies._metadata = getattr(state, "_metadata", None)  # type: ignore[attr-defined]
        return copies

    with Points() as points:
        points.around(nn.Module, "state_dict", take)
        yield


@contextlib.contextmanager
def every_class_counted() -> Iterator[None]:
    """The losses over classes leave no class out."""

    def loss(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        if kwargs.get("ignore_index", -100) >= 0:
            kwargs = {**kwargs, "ignore_index": -100}
        return original(*args, **kwargs)

    with Points() as points:
        points.everywhere(functional, "cross_entropy", loss)
        points.everywhere(functional, "nll_loss", loss)
        yield


@contextlib.contextmanager
def training_shuffled() -> Iterator[None]:
    """Loaders that draw in order draw at random while gradients are on."""

    def begin(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        loader, sampler = args[0], args[0].batch_sampler
        usual = type(loader.sampler) is SequentialSampler
        if usual and type(sampler) is BatchSampler and torch.is_grad_enabled():
            sampler.sampler = RandomSampler(loader.dataset)
        elif usual and type(sampler) is BatchSampler:
            sampler.sampler = loader.sampler
        return original(*args, **kwargs)

    with Points() as points:
        points.around(DataLoader, "__iter__", begin)
        yield


@contextlib.contextmanager
def data_kept() -> Iterator[None]:
    """What a data set holds is put back to what it was at the start of each epoch."""
    first: weakref.WeakKeyDictionary[Any, dict[str, Tensor]] = weakref.WeakKeyDictionary()

    def begin(original: Original, args: Arguments, kwargs: dict[str, Any]) -> Any:
        held = dict(arrays(args[0].dataset))
        data = args[0].dataset
        kept = first.setdefault(data, {n: t.detach().clone() for n, t in held.items()})
        with torch.no_grad():
            for name, tensor in held.items():
                if name in kept and kept[name].shape == tensor.shape:
                    tensor.copy_(kept[name])
        return original(*args, **kwargs)

    with Points() as points:
        points.around(DataLoader, "__iter__", begin)
        yield
