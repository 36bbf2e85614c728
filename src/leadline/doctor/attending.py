"""Attending: a doctor at the bedside of a training: looks, speaks, and says when it must stop.

It reads the Steps, the validations and the watch's rows as they come, never the model; a training
that is attended is bit for bit what it would be alone. On a symptom it asks `examine`, which may
take its time: the training stands still meanwhile, whole, and goes on where it stood unless the
answer is a treatment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from leadline.doctor.symptoms import Symptom, Vitals, symptoms
from leadline.doctor.watch import Watch
from leadline.training.step import Step
from leadline.training.train import Validation

INTERVAL = 0.5
"""Seconds between two looks, at least."""

SPARING = 200.0
"""Times what a look took that pass before the next: half a percent of the time at most."""


class Attendant:
    """Looks at a training about twice a second.

    `examine` is called with each kind of symptom once; what it raises ends the training. `told`
    gathers rows for the journal.
    """

    def __init__(
        self,
        examine: Callable[[Symptom], None],
        *,
        total_steps: int,
        metric: str = "accuracy",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.vitals = Vitals(total=total_steps, metric=metric)
        self.told: list[dict[str, Any]] = []
        self._examine = examine
        self._seen: set[str] = set()
        self._pending: list[Step] = []
        self._clock = clock
        self._next = clock() + INTERVAL

    def __call__(self, step: Step, validation: Validation | None) -> None:
        """Take a step; a `Reader` of `train_setup`."""
        if not self.vitals.losses and not self._pending:
            self.vitals.first = step.index
        self._pending.append(step)
        if validation is not None:
            self.vitals.validations.append((validation.step, validation.metrics))
        if self._clock() >= self._next:
            self.look()

    def look(self) -> None:
        """Read what was gathered, and examine what is new."""
        begun = self._clock()
        self.read()
        found = symptoms(self.vitals)
        took = self._clock() - begun
        for symptom in found:
            if symptom.kind not in self._seen:
                self._seen.add(symptom.kind)
                self._examine(symptom)
        self._next = self._clock() + max(INTERVAL, SPARING * took)

    def read(self) -> None:
        """Fetch the gathered losses and norms; this waits for the device."""
        if not self._pending:
            return
        pairs = torch.stack([torch.stack([s.loss, s.grad_norm]) for s in self._pending]).tolist()
        self._pending.clear()
        self.vitals.losses += [loss for loss, _ in pairs]
        self.vitals.norms += [norm for _, norm in pairs]


class AttendedWatch:
    """A watch whose rows the attendant reads too, and that hands on the attendant's own rows."""

    def __init__(self, watch: Watch, attendant: Attendant) -> None:
        self._watch = watch
        self._attendant = attendant

    def step(self, loss: Tensor) -> None:
        """A step is done."""
        self._watch.step(loss)

    def rows(self) -> list[dict[str, Any]]:
        """The watch's rows, and what the attendant has told since the last call."""
        rows = self._watch.rows()
        self._attendant.vitals.watched += rows
        told, self._attendant.told = self._attendant.told, []
        return [*rows, *told]

    def close(self) -> None:
        """Close the watch."""
        self._watch.close()
