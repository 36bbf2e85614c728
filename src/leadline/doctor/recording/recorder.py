"""The recorder: what the listeners write down, and what they know of each other.

One listener hears of models (`models.py`), one of losses, gradients and updates (`updates.py`), one
of data loaders and seeds (`loaders.py`). They share the list of events, the numbers of the objects,
the trace of functions, the gradients looked at and the batches kept.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from leadline.core.taps import tensors_in
from leadline.doctor.recording.events import Event, Kind
from leadline.doctor.recording.examples import Examples
from leadline.doctor.recording.gradients import GradientWatch
from leadline.doctor.recording.objects import (
    LARGEST_COPY,
    Cards,
    LoaderCard,
    ModelCard,
    OptimizerCard,
    ScheduleCard,
    Serials,
    bytes_of,
    model_card,
    optimizer_card,
)
from leadline.doctor.recording.points import Points
from leadline.doctor.recording.trace import Listening, Trace

CLOSE = 16
"""The first steps, all of which are looked at closely; after them every tenth."""


@dataclass(kw_only=True, eq=False)
class Flight:
    """A model call whose outputs are still in use: who, from what, and where its batch is kept."""

    event: int
    model: int
    inputs: tuple[Tensor, ...]
    batch: tuple[Tensor, ...]
    kept: int | None
    length: int


@dataclass(kw_only=True, eq=False)
class Recorder:
    """The state of a recording under way; `finish` ends it."""

    points: Points = field(default_factory=Points)
    events: list[Event] = field(default_factory=list)
    models: Cards[ModelCard] = field(default_factory=Cards)
    optimizers: Cards[OptimizerCard] = field(default_factory=Cards)
    schedules: Cards[ScheduleCard] = field(default_factory=Cards)
    loaders: Cards[LoaderCard] = field(default_factory=Cards)
    trace: Trace = field(default_factory=Trace)
    gradients: GradientWatch = field(default_factory=GradientWatch)
    examples: Examples = field(default_factory=Examples)
    flights: dict[int, Flight] = field(default_factory=dict)
    serials: Serials = field(default_factory=Serials)
    roots: list[weakref.ref[nn.Module]] = field(default_factory=list)
    listening: Listening | None = None
    updates: int = 0
    epoch: int = 0
    batch: tuple[Tensor, ...] = ()
    loader: int = -1
    drawn: int = 0  # batches that came out of loaders so far
    target_item: int = -1  # which part of a loader's batch is the target
    in_model: bool = False
    in_step: int = 0
    in_loader: bool = False
    copied: int = 0
    last_words: list[Callable[[], None]] = field(default_factory=list)
    begun: float = field(default_factory=time.perf_counter)

    def emit(self, kind: Kind, subject: int = -1, /, **facts: Any) -> Event:
        """Write down that something happened."""
        event = Event(
            kind=kind,
            index=len(self.events),
            updates=self.updates,
            subject=subject,
            closure=self.in_step > 0,
            facts=facts,
        )
        self.events.append(event)
        return event

    def amend(self, index: int, **facts: Any) -> None:
        """Add to what is known of an event."""
        event = self.events[index]
        event.facts.update(facts)  # type: ignore[attr-defined]  # still being written

    @property
    def close(self) -> bool:
        """Whether this step is one that is looked at closely."""
        return self.updates < CLOSE or self.updates % 10 == 0

    def model(self, module: nn.Module) -> ModelCard:
        """The card of the model that a module is, or is a part of."""
        found = self.models.find(module)
        if found is not None:
            return found
        whole = self._whole(module)
        card = self.models.find(whole)
        if card is None:
            room = LARGEST_COPY - self.copied
            with self.unheard():
                card = model_card(whole, number=len(self.models), room=room, serials=self.serials)
            self.copied += bytes_of(whole) if card.initial is not None else 0
            self.models.add(whole, card)
            self.gradients.follow(list(whole.parameters()))
        if whole is not module:
            card.whole = False
        return card

    def optimizer(self, optimizer: Any, *, made: int | None = None) -> OptimizerCard:
        """The card of an optimizer, made now unless it was seen before."""
        card = self.optimizers.find(optimizer)
        if card is None:
            card = optimizer_card(
                optimizer, number=len(self.optimizers), made=made, serials=self.serials
            )
            self.optimizers.add(optimizer, card)
        return card

    def know_root(self, module: nn.Module) -> None:
        """A module that the loop treats as a model: parts of it belong to it."""
        self.roots = [r for r in self.roots if r() is not None]
        if all(r() is not module for r in self.roots):
            self.roots.append(weakref.ref(module))

    @contextlib.contextmanager
    def unheard(self) -> Iterator[None]:
        """What is called inside is not the loop's."""
        if self.listening is None:
            yield
            return
        with contextlib.contextmanager(self.listening.suspended)():
            yield

    def forget_step(self) -> None:
        """An update took place: what comes now belongs to the next one."""
        self.trace.forget()
        self.flights.clear()

    def known_length(self, inputs: tuple[Tensor, ...]) -> int:
        """The number of examples that a model was given."""
        return next((len(t) for t in inputs if t.ndim), 1)

    def _whole(self, module: nn.Module) -> nn.Module:
        for reference in self.roots:
            root = reference()
            if root is None or root is module:
                continue
            if any(part is module for part in root.modules()):
                return root
        return module


def parts_of(batch: Any) -> tuple[Tensor, ...]:
    """The tensors of a loader's batch, in order."""
    return tuple(tensors_in(batch))
