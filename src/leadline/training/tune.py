"""Tuning: time the few executions that make sense on this machine, keep the fastest.

Which precision, layout and number of threads is fastest depends on the machine, the model and the
shapes: bfloat16 in channels-last is 2 to 4 times faster than the default on a CPU with AMX and
slower on one without. So the candidates are timed on real batches, a few interleaved steps each on
a fresh copy, after a check that their losses agree with plain float32; the winner is remembered per
model, shapes and machine. Plain eager float32 is always among them, so tuning never loses to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.config import from_plain, to_plain
from leadline.core.devices import describe_machine
from leadline.core.errors import LeadlineError
from leadline.core.files import write_atomic
from leadline.core.seeds import preserved_random_state, seed_everything
from leadline.training.batches import positioned
from leadline.training.execution import Execution, widen
from leadline.training.setup import Setup

ROUNDS = 4
"""Timed steps per candidate; its fastest counts, for other work on the machine only slows."""

HOPELESS = 1.6
"""A candidate this many times slower than the fastest at half time is not timed again."""

STEADY = 2.0
"""A winner whose slowest step took this many times its fastest was disturbed: not remembered."""

THREADS_GAIN = 1.25
"""All threads must be this many times faster than one: they wait for each other, and where another
process takes a core they all wait for that one (docs/LOG.md, 2026-11-21)."""

AGREEMENT = 0.05
"""Relative difference of the first losses that bfloat16's 8 bits of mantissa can explain."""

EXAMPLES = 128
"""Examples per timed step, at most: enough to fill the cores, few enough to take seconds."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One candidate: seconds per step of `examples` examples; None when it was not usable."""

    execution: Execution
    seconds: float | None
    slowest: float | None = None
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The fastest execution, what was timed, and the speed it promises."""

    execution: Execution
    examples_per_second: float
    timings: tuple[Timing, ...] = ()


def tune(
    setup: Setup,
    *,
    device: str,
    executions: tuple[Execution, ...] | None = None,
    cache: Path | None = None,
) -> Tuning:
    """The fastest execution of a setup on a device, measured now or remembered in `cache`.

    `executions` None means the `candidates` of the device; given ones are only compared.
    """
    with preserved_random_state():
        seed_everything(setup.seed)
        model = setup.model()
        batch, draw = _draw(setup)
        optimizer = type(setup.optimizer(model)).__name__
        key = _key(model, optimizer, batch=batch, device=device, executions=executions)
        remembered = _recall(cache, key)
        if remembered is not None:
            return remembered
        tuning = _measure(setup, batch, draw=draw, executions=executions or candidates(device))
    if _steady(tuning):
        _remember(cache, key, tuning)
    return tuning


def candidates(device: str) -> tuple[Execution, ...]:
    """The executions worth timing on a device; the first is the plain default."""
    threads = torch.get_num_threads() if device == "cpu" else None
    plain = Execution(device=device, threads=threads)
    wide = dataclasses.replace(plain, layout="channels_last")
    narrow = [dataclasses.replace(e, precision="bfloat16") for e in (plain, wide)]
    return (plain, wide, *narrow)


def _measure(
    setup: Setup,
    batch: tuple[Tensor, Tensor],
    *,
    draw: float,
    executions: tuple[Execution, ...],
) -> Tuning:
    timings = _race(setup, executions, batch)
    best = min(timings, key=lambda t: t.seconds or float("inf"))
    if len(executions) > 1 and best.execution.threads not in (None, 1):
        single = dataclasses.replace(best.execution, threads=1)
        again = _race(setup, (best.execution, single), batch)
        timings = [*timings, again[-1]]
        many, one = (t.seconds or float("inf") for t in again)
        best = again[1] if one <= THREADS_GAIN * many else again[0]
    assert best.seconds is not None, "plain eager float32 always runs, or its error was raised"
    return Tuning(
        execution=best.execution,
        examples_per_second=1 / (best.seconds / len(batch[0]) + draw),
        timings=tuple(timings),
    )


class Candidate:
    """A fresh copy of the training under one execution."""

    def __init__(self, setup: Setup, execution: Execution) -> None:
        self.execution = execution
        self.setup = setup
        self.seconds: list[float] = []
        self.remark = ""
        self.loss = float("nan")
        seed_everything(setup.seed)
        self.model = execution.place(setup.model()).train()
        if setup.freezing is not None:
            setup.freezing.apply(self.model, step=0)
        self.forward = execution.forward(self.model)
        self.optimizer = setup.optimizer(self.model)

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        if self.execution.threads is not None:
            torch.set_num_threads(self.execution.threads)
        begun = time.perf_counter()
        inputs, targets = self.execution.place_batch(*batch)
        self.optimizer.zero_grad(set_to_none=True)
        with self.execution.precision_scope():
            outputs = self.forward(inputs)
        loss = self.setup.loss(widen(outputs), targets)
        loss.backward()
        self.optimizer.step()
        value = loss.item()
        self.seconds.append(time.perf_counter() - begun)
        if len(self.seconds) == 1:
            self.loss = value

    def timing(self) -> Timing:
        timed = self.seconds[1:]
        if not timed or self.remark:
            return Timing(execution=self.execution, seconds=None, remark=self.remark)
        return Timing(execution=self.execution, seconds=min(timed), slowest=max(timed))


def _race(
    setup: Setup, executions: tuple[Execution, ...], batch: tuple[Tensor, Tensor]
) -> list[Timing]:
    """Interleaved steps of every candidate; the first of each only warms up and checks the loss."""
    threads = torch.get_num_threads()
    try:
        racers = [Candidate(setup, execution) for execution in executions]
        for racer in racers:
            _warm_up(racer, batch, plain=racers[0])
        running = [racer for racer in racers if not racer.remark]
        for number in range(1, ROUNDS + 1):
            for racer in running:
                racer.step(batch)
            if number >= ROUNDS // 2:
                fastest = min(min(racer.seconds[1:]) for racer in running)
                running = [r for r in running if min(r.seconds[1:]) <= HOPELESS * fastest]
    finally:
        torch.set_num_threads(threads)
    return [racer.timing() for racer in racers]


def _warm_up(racer: Candidate, batch: tuple[Tensor, Tensor], *, plain: Candidate) -> None:
    try:
        racer.step(batch)
    except LeadlineError:
        raise
    except RuntimeError as error:
        if racer is plain:
            raise
        racer.remark = f"failed: {str(error).splitlines()[0]}"
        return
    difference = abs(racer.loss - plain.loss)
    agrees = difference <= AGREEMENT * max(abs(plain.loss), 1.0)  # never so when one is NaN
    if racer is not plain and not agrees:
        racer.remark = f"its loss {racer.loss:.4g} disagrees with {plain.loss:.4g} in float32"


def _draw(setup: Setup) -> tuple[tuple[Tensor, Tensor], float]:
    """A batch to time steps on, and the seconds to draw one example, batches left where they are.

    The second batch is the one timed: the first may start workers or fill caches.
    """
    batches = positioned(setup.batches)
    before = batches.state_dict()
    iterator = iter(batches)
    inputs, targets = next(iterator)
    begun = time.perf_counter()
    second = next(iterator, None)
    seconds = time.perf_counter() - begun
    batches.load_state_dict(before)
    draw = 0.0 if second is None else seconds / len(second[0])
    return (inputs[:EXAMPLES], targets[:EXAMPLES]), draw


def _steady(tuning: Tuning) -> bool:
    """Whether the steps of the winner took about the same time, so that nothing else disturbed."""
    winner = [t for t in tuning.timings if t.execution == tuning.execution and t.seconds]
    return all(t.slowest is not None and t.slowest <= STEADY * (t.seconds or 0) for t in winner)


def _key(
    model: nn.Module,
    optimizer: str,
    *,
    batch: tuple[Tensor, Tensor],
    device: str,
    executions: tuple[Execution, ...] | None,
) -> str:
    machine = describe_machine()
    facts = [
        str(model),
        optimizer,
        str([tuple(part.shape) for part in batch]),
        device,
        str(executions),
        str(torch.get_num_threads()),
        machine.device,
        machine.cpu,
        str(machine.cores),
        machine.torch,
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]


def cache_file() -> Path:
    """Where tunings are remembered: `executions.json` in Leadline's cache folder."""
    root = os.environ.get("LEADLINE_CACHE") or Path.home() / ".cache" / "leadline"
    return Path(root) / "executions.json"


def _recall(cache: Path | None, key: str) -> Tuning | None:
    entry = _known(cache).get(key) if cache else None
    try:
        return from_plain(Tuning, entry) if entry else None
    except LeadlineError:  # written by another version
        return None


def _remember(cache: Path | None, key: str, tuning: Tuning) -> None:
    """Keep a tuning; a cache that cannot be written only costs the next run a few seconds."""
    if cache is None:
        return
    with contextlib.suppress(OSError, LeadlineError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps({**_known(cache), key: to_plain(tuning)}, indent=1))


def _known(cache: Path) -> dict[str, Any]:
    """What the cache holds; nothing, where it is not there or not what was written."""
    try:
        found = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
