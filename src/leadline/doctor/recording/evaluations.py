"""Evaluations: stretches of a recorded loop in which a trained model only answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leadline.doctor.recording.epochs import epoch_length, trained_forwards
from leadline.doctor.recording.events import Event

if TYPE_CHECKING:
    from leadline.doctor.recording.tape import Tape

SHARED = 0.9
"""Share of the examples that were trained on, from which on they are not held out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Calls of one model between two updates, none of which a backward pass came from.

    `seen` is the share of its examples that were trained on (None where examples were not
    numbered), `repeated` how many of the training's own examples are equal to another of them.
    """

    model: int
    calls: tuple[Event, ...]
    seen: float | None
    repeated: float
    loader: int
    own_loader: bool

    @property
    def held_out(self) -> bool:
        """Whether most of its examples are not those of the training, as far as one can see."""
        if self.seen is not None and self.seen >= SHARED:
            return False
        return not self.own_loader


def evaluations(tape: Tape) -> list[Evaluation]:
    """The evaluations of trained models, in order.

    A call without gradients in the middle of a step, whose outputs go into the loss of another
    model, is none: it is the only one before the next step.
    """
    trained = trained_forwards(tape)
    used = {event.index for event in trained}
    models = {event.subject for event in trained}
    every = {event["loader"] for event in trained} - {-1}
    own = {m: [event for event in trained if event.subject == m] for m in models}
    rows = {m: frozenset(_rows(events)) for m, events in own.items()}
    repeated = {m: _within_epoch(tape, m) for m in models}
    found = []
    for calls in _stretches(tape, used, models, every):
        model, loader, values = calls[0].subject, calls[0]["loader"], _rows(calls)
        known = rows[model]
        found.append(
            Evaluation(
                model=model,
                calls=tuple(calls),
                seen=sum(v in known for v in values) / len(values) if values and known else None,
                repeated=repeated[model],
                loader=loader,
                own_loader=any(event["loader"] == loader >= 0 for event in own[model]),
            )
        )
    return found


def _stretches(
    tape: Tape, used: set[int], models: set[int], loaders: set[int]
) -> list[list[Event]]:
    stretches: list[list[Event]] = []
    open_ones: dict[tuple[int, int, int], list[Event]] = {}
    for event in tape.of("forward"):
        alone = event.index not in used and event.subject in models
        elsewhere = event["loader"] >= 0 and event["loader"] not in loaders
        if not alone or (event["grad"] and event["training"] and not elsewhere):
            continue
        key = (event.updates, event.subject, event["loader"])
        if key not in open_ones:
            open_ones[key] = []
            stretches.append(open_ones[key])
        open_ones[key].append(event)
    often = len(stretches) > max(3.0, 0.34 * tape.updates)
    return [s for s in stretches if len(s) > 1 or not s[0]["training"] or not often]


def _rows(events: list[Event]) -> list[int]:
    return [value for e in events if e["rows"] is not None for value in e["rows"].tolist()]


def _within_epoch(tape: Tape, model: int) -> float:
    """The share of examples that come twice within the first epoch of a model's training."""
    rows = _rows(trained_forwards(tape, model)[: epoch_length(tape, model)])
    return 1 - len(set(rows)) / len(rows) if rows else 0.0
