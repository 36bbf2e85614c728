"""The diagnosis of a recorded loop: what the tape shows, and its training in a sound loop.

A fault of the loop is proven by the same training without it: the model as first seen, on the
recorded batches, in a loop that is sound, beside the losses that were recorded. Where the user
allows it, the function itself is run once more with the remedy applied.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from leadline.core.errors import LeadlineError
from leadline.core.seeds import capture_random_state, restore_random_state
from leadline.doctor.causes.recorded.signs import signs_of_tape
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.finding import SEVERITIES, Finding
from leadline.doctor.first_look import without_explained
from leadline.doctor.record import record
from leadline.doctor.recording.tape import Tape
from leadline.doctor.remedy import Remedy
from leadline.doctor.setup_diagnosis import diagnose_setup
from leadline.doctor.trial import Arm, Trial, smoothed
from leadline.training.execution import Execution
from leadline.training.setup import Setup

MEASURED = "loss at the end, over that at the start"
"""What the error of a recorded loop is: how its model answers at the end is not known."""


def diagnose_tape(
    tape: Tape,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    execution: Execution | None = None,
    rerun: Callable[[], Any] | None = None,
) -> Diagnosis:
    """Name what is wrong with a recorded loop, and with the training in it.

    `rerun` is the function that was recorded, where it may be run again.
    """
    begun = time.perf_counter()
    shown = signs_of_tape(tape)
    if tape.error is not None:
        said = f"the loop stopped with {type(tape.error).__name__}: {tape.error}"
        limits: tuple[str, ...] = (said, *tape.limits)
    else:
        limits = tape.limits
    inner: Diagnosis | None = None
    setup: Setup | None = None
    try:
        setup = tape.setup()
        inner = diagnose_setup(setup, steps=steps, seconds=seconds, execution=execution)
    except LeadlineError as error:
        limits = (*limits, f"no trial could be made: {error.received}; {error.remedy}")
    if inner is not None:
        told = [f for f in shown if _of_the_loop(f)]
        alone = told[:1]  # a sound loop lacks every fault at once: it speaks for the worst alone
        every = setup.accumulate if setup is not None else 1
        losses = _per_update(tape.losses, every)
        shown = [_against_sound_loop(f, losses, inner.baseline) if f in alone else f for f in shown]
    if rerun is not None:
        until = math.inf if seconds is None else begun + seconds
        shown, untold = _by_reruns(shown, tape, rerun, until=until)
        limits = (*limits, *untold)
    return Diagnosis(
        model=inner.model if inner else _model_name(tape),
        problem=inner.problem if inner else "a recorded loop",
        measured=inner.measured if inner else MEASURED,
        findings=_merged(shown, inner.findings if inner else ()),
        ruled_out=inner.ruled_out if inner else (),
        baseline=inner.baseline if inner else _arm(tape.losses),
        limits=(*limits, *(inner.limits if inner else ())),
        steps=inner.steps if inner else 0,
        seconds=time.perf_counter() - begun,
        allowance=inner.allowance if inner else "none",
        share=(time.perf_counter() - begun) / tape.seconds if tape.seconds else None,
        recorded=setup,
    )


def _model_name(tape: Tape) -> str:
    return tape.models[0].name if tape.models else "no model"


def _merged(shown: Sequence[Finding], inner: Sequence[Finding]) -> tuple[Finding, ...]:
    """The loop's errors, then those of the training in it, by severity; each cause once.

    What the training shows in a sound loop too is no consequence of a fault of the loop.
    """
    told = without_explained(shown, by=[*shown, *inner])
    known = {finding.cause for finding in told}
    rest = [f for f in without_explained(inner, by=inner) if f.cause not in known]
    return tuple(sorted([*told, *rest], key=lambda finding: SEVERITIES.index(finding.severity)))


def _arm(losses: Sequence[float]) -> Arm:
    """A recorded loop as an arm: its losses, and the last ones over the first as its error."""
    first = smoothed(losses[:5], last=5)
    relative = smoothed(losses) / first if losses and first not in (0.0, math.inf) else math.inf
    return Arm(losses=tuple(losses), error=relative, surprise=relative)


def _of_the_loop(finding: Finding) -> bool:
    """Whether it is a fault of the loop, more than a note, that a sound loop does not have."""
    change = finding.change
    return finding.severity != "note" and change is not None and change.rerun is not None


def _per_update(losses: Sequence[float], every: int) -> tuple[float, ...]:
    """The mean loss of every so many backward passes, which make one update."""
    groups = [losses[i : i + every] for i in range(0, len(losses), every)]
    return tuple(sum(group) / len(group) for group in groups)


def _against_sound_loop(finding: Finding, losses: Sequence[float], sound: Arm | None) -> Finding:
    """The recorded losses beside those of the sound loop on the same batches."""
    if sound is None or finding.trial is not None:
        return finding
    count = min(len(losses), len(sound.losses))
    if count < 5:
        return finding
    without, treated = _arm(losses[:count]), _arm(sound.losses[:count])
    helps = treated.error < 0.75 * without.error
    assert finding.change is not None, "asked above"
    trial = Trial(
        remedy=f"{finding.change.title} (a sound loop on the recorded batches)",
        steps=count,
        without=without,
        treated=treated,
        measured=MEASURED,
        helps=helps,
    )
    return replace(finding, trial=trial, proven=finding.proven or helps)


def _by_reruns(
    shown: Sequence[Finding], tape: Tape, function: Callable[[], Any], *, until: float
) -> tuple[list[Finding], list[str]]:
    """The findings with the function run again for each, and what the time did not suffice for."""
    found, left = [], []
    for finding in shown:
        over = time.perf_counter() > until
        told = finding if over else _by_rerun(finding, tape, function)
        if over and _of_the_loop(finding):
            left.append(finding.cause)
        found.append(told)
    said = "the allowance was spent before the function could be run again for " + ", ".join(left)
    return found, [said] if left else []


def _by_rerun(finding: Finding, tape: Tape, function: Callable[[], Any]) -> Finding:
    """The function run once more with the remedy applied, its losses beside the first."""
    change = finding.change
    if finding.severity == "note" or change is None or change.rerun is None:
        return finding
    again = losses_of(function, change)
    if not again or not _begins_alike(tape.losses, again):
        return finding  # it goes on with what the first run left: that proves nothing
    without, treated = _arm(tape.losses), _arm(again)
    helps = treated.error < 0.75 * without.error
    trial = Trial(
        remedy=f"{change.title} (the function run again)",
        steps=len(again),
        without=without,
        treated=treated,
        measured=MEASURED,
        helps=helps,
    )
    return replace(finding, trial=trial, proven=finding.proven or helps)


def _begins_alike(first: Sequence[float], again: Sequence[float]) -> bool:
    """Whether the run under the remedy began with the model the first run began with."""
    return bool(first) and math.isclose(first[0], again[0], rel_tol=0.5, abs_tol=1e-6)


def losses_of(function: Callable[[], Any], change: Remedy) -> tuple[float, ...] | None:
    """The losses of the user's function under a remedy; None where it fails under it."""
    assert change.rerun is not None, "asked by the caller"
    now = capture_random_state()
    try:
        with change.rerun(), record() as tape:
            function()
    except Exception:
        return None  # what it does under the remedy is no proof, and its own error is known
    finally:
        restore_random_state(now)
    return tape.losses
