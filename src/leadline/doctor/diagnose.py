"""Diagnose: why a training does not do better: causes ranked, each with evidence and trial.

diagnosis = leadline.diagnose(setup)
print(diagnosis)
healthy = diagnosis.treat(setup)

with leadline.record() as tape:
    train()                                   # any PyTorch loop, as it is
print(tape.diagnose())
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from torch import nn

from leadline.core.errors import ConfigError, TrainingError
from leadline.doctor import record as recording
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.recording.tape import Tape
from leadline.doctor.setup_diagnosis import diagnose_setup
from leadline.doctor.tape_diagnosis import diagnose_tape
from leadline.training.execution import Execution
from leadline.training.setup import Setup


def diagnose(
    subject: Setup | Tape | Callable[[], Any],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    execution: Execution | None = None,
    rerun: bool = False,
) -> Diagnosis:
    """Find the causes, prove them by trials on copies, and say what heals them.

    The subject is a Setup, a tape, or a function that trains: it is called once, and recorded.
    `steps` and `seconds` bound what the trials may cost; the default is 15 % of the training's own
    time, but a minute at least. With `rerun`, a function may be run again with a remedy applied,
    for what no trial on a copy can prove. A Setup stays as it is, and so do the random streams.
    Raises ConfigError for something else, MeasurementError for a Setup that cannot be run.

    >>> import torch
    >>> data = [(torch.eye(3), torch.arange(3))] * 20
    >>> setup = Setup(
    ...     model=lambda: nn.Sequential(nn.Linear(3, 3), nn.Softmax(dim=1)),
    ...     batches=data,
    ...     loss=nn.CrossEntropyLoss(),
    ...     optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.1),
    ... )
    >>> diagnose(setup, seconds=2).findings[0].cause
    'double_softmax'
    """
    if isinstance(subject, Setup):
        return diagnose_setup(subject, steps=steps, seconds=seconds, execution=execution)
    if isinstance(subject, Tape):
        return diagnose_tape(subject, steps=steps, seconds=seconds, execution=execution)
    wrong: Any = subject
    if not callable(wrong) or isinstance(wrong, nn.Module | type):
        raise ConfigError(
            expected="a Setup, a tape, or a function that trains",
            received=type(subject).__name__,
            remedy="leadline.Setup(model=build, batches=loader, loss=loss, optimizer=make), or "
            "the function that holds your loop",
        )
    try:
        with recording.record() as tape:
            value = subject()
    except Exception as error:
        if not tape.events:
            raise TrainingError(
                expected="a function that trains",
                received=f"{type(error).__name__}: {error}, before any model ran",
                remedy="call it by itself until it runs",
            ) from error
        value = None
    if isinstance(value, Setup):
        return diagnose_setup(value, steps=steps, seconds=seconds, execution=execution)
    _require_training(tape, subject, value)
    again = subject if rerun else None
    return diagnose_tape(tape, steps=steps, seconds=seconds, execution=execution, rerun=again)


def _require_training(tape: Tape, function: Callable[[], Any], value: Any) -> None:
    """ConfigError where a function ran to its end, and trained nothing."""
    if tape.error is not None or tape.of("backward", "step"):
        return
    raise ConfigError(
        expected="a function that trains, or returns a Setup",
        received=f"{getattr(function, '__name__', 'a function')}, which returned a "
        f"{type(value).__name__} without a backward pass or an optimizer's step",
        remedy="leadline.check is for a model and a batch; to diagnose, let it run its loop or "
        "return a leadline.Setup",
    )


def record() -> contextlib.AbstractContextManager[Tape]:
    """Record a training loop as it is; `tape.diagnose()` behind the block names what is wrong.

    >>> import torch
    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with record() as tape:
    ...     for _ in range(3):
    ...         optimizer.zero_grad()
    ...         model(torch.ones(4, 2)).square().mean().backward()
    ...         optimizer.step()
    >>> tape.updates
    3
    """
    return recording.record(diagnose=diagnose_tape)
