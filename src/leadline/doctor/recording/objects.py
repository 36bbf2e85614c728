"""Objects: the models, optimizers, schedules and loaders of a loop, each with its number.

Nothing of the loop is kept alive by a recording: objects are known by weak references, and what is
needed of them later is copied at first sight.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, Subset
from torch.utils.weak import WeakTensorKeyDictionary

from leadline.core.taps import plain_name
from leadline.doctor.recording.contents import length_of


class Serials:
    """A number for each parameter that no other ever gets, while `id` is given again."""

    def __init__(self) -> None:
        self._numbers: Any = WeakTensorKeyDictionary()

    def of(self, parameter: Tensor) -> int:
        """The number of a parameter, the next one at first sight."""
        number: int = self._numbers.setdefault(parameter, self._next)
        self._next = max(self._next, number + 1)
        return number

    _next = 0


LARGEST_COPY = 512 * 2**20
"""Bytes of weights that are copied at first sight, over all models."""


@dataclass(kw_only=True, eq=False)
class ModelCard:
    """A model as it was first seen.

    `initial` is a copy from before its first call, None with the reason in `problem` where there is
    none. `parameters` maps serial numbers to names, `trainable` counts those with gradients;
    `norms` and `dropouts` count the layers that act differently in evaluation.
    """

    number: int
    name: str
    reference: weakref.ref[nn.Module]
    initial: nn.Module | None
    problem: str
    parameters: Mapping[int, str]
    frozen: tuple[str, ...]
    trainable: int
    norms: int
    dropouts: int
    dtypes: frozenset[str]
    tied_copies: tuple[tuple[str, str], ...] = ()  # an embedding and a layer that begin equal
    whole: bool = True  # False once parts of it were called by themselves


@dataclass(kw_only=True, eq=False)
class OptimizerCard:
    """An optimizer: its class, and its groups' settings when it was first seen, before any step.

    `made` is the event of its construction, None when that was before the recording.
    """

    number: int
    name: str
    cls: type[Optimizer]
    reference: weakref.ref[Optimizer]
    groups: tuple[Mapping[str, Any], ...]
    held: tuple[tuple[int, ...], ...]  # serial numbers of the parameters, group by group
    made: int | None
    frozen: frozenset[int] | None = None  # those held without gradients at its first step

    @property
    def ids(self) -> frozenset[int]:
        """The parameters it holds, by serial number."""
        return frozenset(i for group in self.held for i in group)

    @property
    def adaptive(self) -> bool:
        """Whether its steps do not depend on the gradient's scale, as Adam's."""
        return not any(k in self.name for k in ("SGD", "LBFGS", "ASGD", "Muon"))

    @property
    def remembers(self) -> bool:
        """Whether it has a state that a new one lacks: moments, momentum."""
        return self.name != "SGD" or any(group.get("momentum") for group in self.groups)


@dataclass(kw_only=True, eq=False)
class ScheduleCard:
    """A learning-rate schedule, the optimizer it changes (by number) and its own settings."""

    number: int
    name: str
    reference: weakref.ref[Any]
    optimizer: int
    settings: Mapping[str, Any]
    made: int | None
    inside: bool = False  # another schedule steps it


@dataclass(kw_only=True, eq=False)
class LoaderCard:
    """A DataLoader: how it draws, and over how many examples; `batches` is its length or None."""

    number: int
    reference: weakref.ref[Any]
    batch_size: int | None
    order: str  # "sequential", "random" or "own"
    workers: int
    batches: int | None
    examples: int | None
    dataset: int  # id of the data set, that of the whole for a part
    part: frozenset[int] | None  # which examples, for a Subset


Card = TypeVar("Card", ModelCard, OptimizerCard, ScheduleCard, LoaderCard)


@dataclass(kw_only=True, eq=False)
class Cards(Generic[Card]):
    """The cards of one kind of object, found by the object itself."""

    every: list[Card] = field(default_factory=list)
    _by_id: dict[int, Card] = field(default_factory=dict)

    def find(self, value: Any) -> Card | None:
        """The card of an object that was seen before."""
        card = self._by_id.get(id(value))
        return card if card is not None and card.reference() is value else None

    def add(self, value: Any, card: Card) -> Card:
        """File a new card."""
        self.every.append(card)
        self._by_id[id(value)] = card
        return card

    def __len__(self) -> int:
        return len(self.every)

    def __iter__(self) -> Iterator[Card]:
        return iter(self.every)


def model_card(model: nn.Module, *, number: int, room: int, serials: Serials) -> ModelCard:
    """What is kept of a model at first sight; a copy where it fits into `room` bytes."""
    parameters = dict(model.named_parameters())
    initial, problem = _copy_model(model, room=room)
    modules = list(model.modules())
    return ModelCard(
        number=number,
        name=type(getattr(model, "_orig_mod", model)).__name__,
        reference=weakref.ref(model),
        initial=initial,
        problem=problem,
        parameters={serials.of(p): plain_name(name) for name, p in parameters.items()},
        frozen=tuple(plain_name(n) for n, p in parameters.items() if not p.requires_grad),
        trainable=sum(p.requires_grad for p in parameters.values()),
        norms=sum(isinstance(m, _BatchNorm) for m in modules),
        dropouts=sum(isinstance(m, _DropoutNd) and m.p > 0 for m in modules),
        tied_copies=_tied_copies(model),
        dtypes=frozenset(str(p.dtype).removeprefix("torch.") for p in parameters.values()),
    )


def _tied_copies(model: nn.Module) -> tuple[tuple[str, str], ...]:
    """Embeddings and dense layers of equal weights that are not the same tensor."""
    layers = [(plain_name(n), m) for n, m in model.named_modules()]
    tables = [(n, m.weight) for n, m in layers if isinstance(m, nn.Embedding)]
    dense = [(n, m.weight) for n, m in layers if isinstance(m, nn.Linear)]
    return tuple(
        (table, layer)
        for table, weight in tables
        for layer, other in dense
        if weight is not other and weight.shape == other.shape and torch.equal(weight, other)
    )


def bytes_of(model: nn.Module) -> int:
    """The memory of a model's weights and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def _copy_model(model: nn.Module, *, room: int) -> tuple[nn.Module | None, str]:
    size = bytes_of(model)
    if size > room:
        return None, f"its weights take {size / 2**20:,.0f} MB, more than a recording copies"
    try:
        return copy.deepcopy(model), ""
    except Exception as error:  # a user's class may refuse in any way
        return None, f"it cannot be copied: {type(error).__name__}: {error}"


def optimizer_card(
    optimizer: Optimizer, *, number: int, made: int | None, serials: Serials
) -> OptimizerCard:
    """What is kept of an optimizer at first sight: settings without parameters and state."""
    return OptimizerCard(
        number=number,
        name=type(optimizer).__name__,
        cls=type(optimizer),
        reference=weakref.ref(optimizer),
        groups=tuple(
            {k: _plain(v) for k, v in group.items() if k != "params"}
            for group in optimizer.param_groups
        ),
        held=tuple(
            tuple(serials.of(p) for p in group["params"]) for group in optimizer.param_groups
        ),
        made=made,
    )


SETTINGS = ("T_max", "total_steps", "step_size", "gamma", "milestones", "T_0", "total_iters")


def schedule_card(schedule: Any, *, number: int, optimizer: int, made: int | None) -> ScheduleCard:
    """What is kept of a schedule: those of its settings that say how long it is."""
    found = {name: getattr(schedule, name) for name in SETTINGS if hasattr(schedule, name)}
    return ScheduleCard(
        number=number,
        name=type(schedule).__name__,
        reference=weakref.ref(schedule),
        optimizer=optimizer,
        settings={k: sorted(v) if k == "milestones" else v for k, v in found.items()},
        made=made,
    )


def loader_card(loader: DataLoader[Any], *, number: int) -> LoaderCard:
    """What is kept of a DataLoader."""
    data, part = loader.dataset, None
    while isinstance(data, Subset):
        own = frozenset(int(i) for i in data.indices)
        part = own if part is None else frozenset(list(data.indices)[i] for i in part)
        data = data.dataset
    sampler = loader.sampler
    order = "own"
    if loader.batch_size is None:  # a batch sampler of the user's own
        order = "own"
    elif type(sampler) is SequentialSampler:
        order = "sequential"
    elif isinstance(sampler, RandomSampler):
        order = "random"
    return LoaderCard(
        number=number,
        reference=weakref.ref(loader),
        batch_size=loader.batch_size,
        order=order,
        workers=loader.num_workers,
        batches=length_of(loader),
        examples=length_of(loader.dataset),
        dataset=id(data),
        part=part,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value.detach().clone()
    return copy.deepcopy(value) if isinstance(value, list | dict) else value


def noisy(module: nn.Module) -> bool:
    """Whether a layer acts differently in training and in evaluation."""
    return isinstance(module, _BatchNorm) or (
        isinstance(module, _DropoutNd | nn.RReLU) and getattr(module, "p", 1) > 0
    )
