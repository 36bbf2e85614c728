"""record: listens to a training loop as it is, and keeps what it did on a tape."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from leadline.core.errors import TrainingError
from leadline.doctor.recording.loaders import LoaderListener
from leadline.doctor.recording.models import ModelListener
from leadline.doctor.recording.recorder import Recorder
from leadline.doctor.recording.tape import Tape
from leadline.doctor.recording.trace import Listening
from leadline.doctor.recording.updates import UpdateListener

_under_way: list[Tape] = []


@contextlib.contextmanager
def record(*, diagnose: Callable[..., Any] | None = None) -> Iterator[Tape]:
    """Listen to whatever loop runs inside the block; nothing of it has to change.

    Models, losses, gradients, optimizers, schedules and data loaders are seen as they are used, in
    their real order. What listens is taken off at the end, after an error too: the error goes on
    its way, and the tape has what was seen until then. `diagnose` is called by `tape.diagnose()`
    with the tape and its options. Raises TrainingError where another recording is under way.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with record() as tape:
    ...     for _ in range(3):
    ...         optimizer.zero_grad()
    ...         model(torch.ones(4, 2)).square().mean().backward()
    ...         optimizer.step()
    >>> [event.kind for event in tape.events[:4]], tape.updates
    (['zero_grad', 'forward', 'backward', 'step'], 3)
    """
    if _under_way:
        raise TrainingError(
            expected="one recording at a time",
            received="a second one inside of the first, or in another thread",
            remedy="end the first `with leadline.record()` block before the next",
        )
    tape = Tape(diagnosed_by=diagnose)
    _under_way.append(tape)
    try:
        recorder = Recorder()
        updates = UpdateListener(recorder)
        with contextlib.ExitStack() as scopes:
            scopes.enter_context(recorder.points)
            _listen(recorder, updates, scopes)
            try:
                yield tape
            except BaseException as error:
                tape.error = error
                raise
            finally:
                _fill(tape, recorder, updates)
    finally:
        _under_way.remove(tape)


def _listen(recorder: Recorder, updates: UpdateListener, scopes: contextlib.ExitStack) -> None:
    models = ModelListener(recorder)
    models.listen()
    updates.listen(scopes)
    loaders = LoaderListener(recorder)
    loaders.listen()
    recorder.last_words.append(loaders.collect)
    recorder.listening = Listening(models.heard, foreign=recorder.points.foreign)
    scopes.enter_context(recorder.listening)


def _fill(tape: Tape, recorder: Recorder, updates: UpdateListener) -> None:
    limits = []
    for say in recorder.last_words:
        say()
    if recorder.examples.full:
        kept = len(recorder.examples.batches)
        limits.append(f"batches were kept up to {recorder.examples.limit / 2**20:.0f} MB: {kept}")
    tape.events = tuple(recorder.events)
    tape.models = tuple(recorder.models)
    tape.optimizers = tuple(recorder.optimizers)
    tape.schedules = tuple(recorder.schedules)
    tape.loaders = tuple(recorder.loaders)
    tape.batches = tuple(recorder.examples.batches)
    tape.formulas = tuple(updates.formulas)
    tape.formula_fails = updates.formula_fails
    tape.limits = tuple(limits)
    tape.seconds = time.perf_counter() - recorder.begun
    tape.finished = True
