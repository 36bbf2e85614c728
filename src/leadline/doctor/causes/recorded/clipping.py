"""Clipping in a recorded loop: before there are gradients, behind their use, or far too tight."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.rerun_updates import clipping_before_steps, norms_clipped_at
from leadline.doctor.recording.tape import Tape
from leadline.doctor.recording.turns import Turn, turns_of
from leadline.doctor.remedy import Remedy

OFTEN = 0.5
"""Share of the steps from which on it is the loop's way."""

TINY = 1e-4
"""Relative change of the weights per step below which they hardly move."""


def signs(tape: Tape) -> Iterator[Finding]:
    """What the tape says of clipping."""
    for card in tape.optimizers:
        turns = turns_of(tape, card.number)
        if len(turns) < 3:
            continue
        yield from _misplaced(turns, breaks=not all(map(math.isfinite, tape.losses)))
        scaled = list(_scaled(tape, turns))
        yield from scaled
        if not card.adaptive and not scaled:
            yield from _tight(turns)


def _misplaced(turns: Sequence[Turn], *, breaks: bool) -> Iterator[Finding]:
    """All clipping of a step comes before its first backward pass: nothing there, or used up.

    An error where the loss `breaks` off: that is what clipping was to prevent.
    """
    clipped = [turn for turn in turns if turn.clips and turn.backwards]
    useless = [turn for turn in clipped if turn.clips[-1].index < turn.backwards[0].index]
    if not clipped or len(useless) < OFTEN * len(clipped):
        return
    nothing = not useless[-1].clips[-1]["present"] or any(
        event.index < useless[-1].clips[-1].index for event in useless[-1].zeroed
    )
    yield Finding(
        cause="clip_misplaced",
        severity="error" if breaks else "warning",
        summary="gradients are clipped "
        + ("before backward() has made them" if nothing else "behind the step that used them")
        + ": the steps are not clipped at all",
        evidence=(
            Evidence(
                quantity="steps whose clipping came before their backward pass",
                measured=float(len(useless)),
                expected=f"0 of {len(clipped)}",
            ),
        ),
        remedy="clip between backward() and optimizer.step()",
        proven=True,
        change=_move(),
    )


def _move() -> Remedy:
    return Remedy(
        title="clip between backward and step",
        lines=(
            "  loss.backward()",
            "+ torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)",
            "  optimizer.step()",
        ),
        rerun=clipping_before_steps,
    )


def _scaled(tape: Tape, turns: Sequence[Turn]) -> Iterator[Finding]:
    """Under a gradient scaler the gradients are thousands of times too long until unscale_."""
    scales = [float(e["scale"]) for e in tape.of("scale_update") if e["scale"] is not None]
    if not scales or max(scales) <= 2:
        return
    clipped = [turn for turn in turns if turn.clips and turn.backwards]
    early = [turn for turn in clipped if not _unscaled_first(turn)]
    if not clipped or len(early) < OFTEN * len(clipped):
        return
    norms = [float(e["norm"]) for turn in early for e in turn.clips if e["norm"] is not None]
    yield Finding(
        cause="clip_misplaced",
        severity="error",
        summary="gradients are clipped while they are still multiplied by the scaler's "
        f"{max(scales):,.0f}: every step becomes that much too short",
        evidence=(
            Evidence(
                quantity="gradient norm that was clipped",
                measured=statistics.median(norms) if norms else "unknown",
                expected="that of the gradient itself",
            ),
            Evidence(
                quantity="steps clipped before scaler.unscale_(optimizer)",
                measured=float(len(early)),
                expected=f"0 of {len(clipped)}",
            ),
        ),
        remedy="call scaler.unscale_(optimizer) before clipping",
        proven=True,
        change=Remedy(
            title="unscale before clipping",
            lines=("+ scaler.unscale_(optimizer)", "  torch.nn.utils.clip_grad_norm_(...)"),
            rerun=clipping_before_steps,
        ),
    )


def _unscaled_first(turn: Turn) -> bool:
    first = turn.clips[0].index
    return any(event.kind == "unscale" and event.index < first for event in turn.events)


def _tight(turns: Sequence[Turn]) -> Iterator[Finding]:
    """A limit far below every norm, and steps that hardly move: only the two together tell."""
    pairs = [
        (float(e["norm"]), e["most"])
        for turn in turns
        for e in turn.clips
        if e["norm"] is not None and e["method"] == "clip_grad_norm_"
    ]
    moves = [turn.step["relative"] for turn in turns if turn.step["relative"] is not None]
    if len(pairs) < 3 or not moves:
        return
    most = pairs[0][1]
    clipped = sum(norm > 10 * limit for norm, limit in pairs)
    moved = statistics.median(moves)
    if clipped < 0.9 * len(pairs) or moved > TINY:
        return
    usual = statistics.median(norm for norm, _ in pairs)
    yield Finding(
        cause="clip_too_small",
        severity="error" if moved < TINY / 10 else "warning",
        summary=f"every gradient is cut to {most:g}, {usual / most:,.0f} times below its usual "
        "length: the weights hardly move",
        evidence=(
            Evidence(quantity="usual gradient norm", measured=usual, expected=f"near {most:g}"),
            Evidence(
                quantity="steps clipped to less than a tenth",
                measured=float(clipped),
                expected=f"few of {len(pairs)}",
            ),
            Evidence(
                quantity="relative change of the weights per step",
                measured=moved,
                expected="about 1e-3",
            ),
        ),
        remedy=f"raise max_norm to the usual norm, {usual:.2g}",
        change=Remedy(
            title=f"clip at {usual:.2g}",
            lines=(f"- max_norm={most:g}", f"+ max_norm={usual:.2g}"),
            apply=lambda setup: replace(setup, clip_grad=usual),
            rerun=functools.partial(norms_clipped_at, usual),
        ),
    )
