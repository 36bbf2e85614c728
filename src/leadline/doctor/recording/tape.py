"""The tape: a recorded loop as plain data, and the training in it as a Setup."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from leadline.core.errors import TrainingError
from leadline.doctor.recording.events import Event, Kind
from leadline.doctor.recording.examples import RecordedBatch
from leadline.doctor.recording.formula import Derivation
from leadline.doctor.recording.objects import (
    LoaderCard,
    ModelCard,
    OptimizerCard,
    ScheduleCard,
)
from leadline.doctor.recording.rebuilding import rebuild
from leadline.training.setup import Setup

Diagnose = Callable[["Tape"], Any]


@dataclass(kw_only=True, eq=False)
class Tape:
    """What a loop did: `events` in their real order, and the objects they are about.

    `batches` are the first batches as models were given them; `limits` says in words what could
    not be kept. `error` is what the loop raised, if it did. Filled when the recording ends.
    """

    events: tuple[Event, ...] = ()
    models: tuple[ModelCard, ...] = ()
    optimizers: tuple[OptimizerCard, ...] = ()
    schedules: tuple[ScheduleCard, ...] = ()
    loaders: tuple[LoaderCard, ...] = ()
    batches: tuple[RecordedBatch, ...] = ()
    formulas: tuple[Derivation, ...] = ()
    formula_fails: str = ""
    limits: tuple[str, ...] = ()
    error: BaseException | None = None
    seconds: float = 0.0
    finished: bool = False
    diagnosed_by: Callable[..., Any] | None = None

    def of(self, *kinds: Kind, subject: int | None = None) -> list[Event]:
        """The events of some kinds, in order; of one object, if its number is given."""
        return [
            event
            for event in self.events
            if event.kind in kinds and (subject is None or event.subject == subject)
        ]

    @property
    def losses(self) -> tuple[float, ...]:
        """The value that each backward pass began with."""
        return tuple(_value(event["loss"]) for event in self.of("backward"))

    @property
    def updates(self) -> int:
        """How many optimizer steps there were."""
        return len(self.of("step"))

    def moved(self, model: int) -> bool | None:
        """Whether the weights of a model ever changed between two backward passes."""
        seen = [e["weights"][model] for e in self.of("backward") if model in e["weights"]]
        return None if len(seen) < 2 else any(value != seen[0] for value in seen)

    def setup(self) -> Setup:
        """The recorded training with a sound loop, its model as it was first seen.

        Raises TrainingError that says what is missing.
        """
        self._require_end()
        return rebuild(self)

    def diagnose(self, **options: Any) -> Any:
        """Name the causes; see `leadline.diagnose`."""
        self._require_end()
        if self.diagnosed_by is None:
            raise TrainingError(
                expected="a recording that was begun with leadline.record()",
                received="one without a diagnosis",
                remedy="use leadline.record()",
            )
        return self.diagnosed_by(self, **options)

    def _require_end(self) -> None:
        if not self.finished:
            raise TrainingError(
                expected="a recording that has ended",
                received="one under way",
                remedy="ask behind the `with leadline.record() as tape:` block",
            )


def _value(loss: Any) -> float:
    if isinstance(loss, Tensor):
        return float(loss) if loss.numel() == 1 else float(loss.float().mean())
    return math.nan
