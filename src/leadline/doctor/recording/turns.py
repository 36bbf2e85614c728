"""Turns: what happened for one optimizer between one of its steps and the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leadline.doctor.recording.events import Event

if TYPE_CHECKING:
    from leadline.doctor.recording.tape import Tape


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """One step of an optimizer, with what came since the step before it, in order.

    `backwards` are the passes that gave its parameters gradients, `zeroed` the calls of `zero_grad`
    on it or on a model whose parameters it holds.
    """

    number: int
    step: Event
    events: tuple[Event, ...]

    @property
    def backwards(self) -> tuple[Event, ...]:
        """The backward passes of this turn."""
        return tuple(event for event in self.events if event.kind == "backward")

    @property
    def zeroed(self) -> tuple[Event, ...]:
        """The calls of `zero_grad` of this turn."""
        return tuple(event for event in self.events if event.kind == "zero_grad")

    @property
    def clips(self) -> tuple[Event, ...]:
        """The clippings of this turn."""
        return tuple(event for event in self.events if event.kind == "clip")


def turns_of(tape: Tape, optimizer: int) -> list[Turn]:
    """The turns of the optimizer of a number, in order; what follows its last step is left out."""
    models = models_of(tape, optimizer)
    turns: list[Turn] = []
    since: list[Event] = []
    open_step: Event | None = None
    for event in tape.events:
        if event.kind == "step" and event.subject == optimizer:
            if open_step is not None:
                turns.append(_turn(open_step, since, len(turns)))
                since = []
            open_step = event
        elif concerns(event, optimizer, models):
            if open_step is not None and not event.closure:
                turns.append(_turn(open_step, since, len(turns)))
                since, open_step = [], None
            since.append(event)
    if open_step is not None:
        turns.append(_turn(open_step, since, len(turns)))
    return turns


def models_of(tape: Tape, optimizer: int) -> frozenset[int]:
    """The models (by number) of which an optimizer holds parameters."""
    held = tape.optimizers[optimizer].ids
    return frozenset(card.number for card in tape.models if held & card.parameters.keys())


def concerns(event: Event, optimizer: int, models: frozenset[int]) -> bool:
    """Whether an event is about the gradients of an optimizer."""
    if event.kind == "backward":
        return bool(models & set(event["models"] or ()))
    if event.kind == "zero_grad":
        own = event["of"] == "optimizer"
        return event.subject == optimizer if own else event.subject in models
    if event.kind in ("clip", "unscale"):
        return event.subject == optimizer
    return False


def _turn(step: Event, since: list[Event], number: int) -> Turn:
    return Turn(number=number, step=step, events=tuple(since))
