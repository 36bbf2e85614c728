"""Gradients of a recorded loop: added up over steps, dropped before them, never used, or turned."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator, Sequence

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.events import Event
from leadline.doctor.recording.models import LOSSES
from leadline.doctor.recording.rerun_updates import (
    clearing_left_to_updates,
    gradients_cleared,
    loss_multiplied,
    steps_taken,
)
from leadline.doctor.recording.tape import Tape
from leadline.doctor.recording.turns import Turn, models_of, turns_of
from leadline.doctor.remedy import Remedy

OFTEN = 1 / 3
"""Share of steps above which a fault is the loop's way, and no accident of a few steps."""

ENOUGH = 3
"""Backward passes or steps below which a loop has not shown its way yet."""


def signs(tape: Tape) -> Iterator[Finding]:
    """What the tape says of the gradients of each optimizer."""
    yield from _cut(tape)
    yield from _never_used(tape)
    for card in tape.optimizers:
        turns = turns_of(tape, card.number)
        yield from _added_up(turns)
        yield from _dropped(turns)
        yield from _thrown_away(tape, card.number, turns)
        yield from _turned(tape, turns)
        yield from _not_divided(tape, card.number, turns)


def _evidence(quantity: str, measured: float | str, expected: str) -> Evidence:
    return Evidence(quantity=quantity, measured=measured, expected=expected)


def _added_up(turns: Sequence[Turn]) -> Iterator[Finding]:
    """Told from accumulation, which adds up between steps: here what a step used stays in."""
    later = [turn for turn in turns[1:] if turn.backwards]
    stale = [turn for turn in later if _left_over(turn)]
    if len(later) < 2 or len(stale) < OFTEN * len(later):
        return
    called = sum(bool(turn.zeroed) for turn in turns)
    yield Finding(
        cause="zero_grad_missing",
        severity="error",
        summary="the gradients are not cleared between two steps: each step goes along the sum of "
        "all gradients since the last clearing",
        evidence=(
            _evidence(
                "steps whose gradients still held those of an earlier step",
                float(len(stale)),
                f"0 of {len(later)}",
            ),
            _evidence(
                "steps with a zero_grad() since the step before", float(called), f"{len(turns)}"
            ),
        ),
        remedy="call optimizer.zero_grad() before each backward()",
        source="pytorch/pytorch#47175",
        proven=True,
        change=Remedy(
            title="clear the gradients before each backward pass",
            lines=("+ optimizer.zero_grad()", "  loss.backward()", "  optimizer.step()"),
            rerun=gradients_cleared,
        ),
    )


def _left_over(turn: Turn) -> bool:
    """In `step(closure)` the clearing comes inside of the step: the backward passes tell."""
    inside = [event for event in turn.backwards if event.closure]
    return any(event["stale"] for event in inside) if inside else bool(turn.step["stale"])


def _dropped(turns: Sequence[Turn]) -> Iterator[Finding]:
    """zero_grad between backward and step: the optimizer finds nothing, or only zeros."""
    used = [turn for turn in turns if turn.backwards]
    empty = [turn for turn in used if turn.step["empty"] and _cleared_last(turn)]
    if len(used) < ENOUGH or len(empty) < OFTEN * len(used):
        return
    yield Finding(
        cause="zero_grad_misplaced",
        severity="error",
        summary="zero_grad() comes between backward() and step(): the optimizer finds no gradient, "
        "and the weights stay as they are",
        evidence=(
            _evidence(
                "steps that found no gradient although backward() had come",
                float(len(empty)),
                f"0 of {len(used)}",
            ),
        ),
        remedy="call zero_grad() before backward(), or behind step()",
        source="pytorch/pytorch#47175",
        proven=True,
        change=Remedy(
            title="clear the gradients before the backward pass, not behind it",
            lines=(
                "+ optimizer.zero_grad()",
                "  loss.backward()",
                "- optimizer.zero_grad()",
                "  optimizer.step()",
            ),
            rerun=clearing_left_to_updates,
        ),
    )


def _cleared_last(turn: Turn) -> bool:
    kinds = [event.kind for event in turn.events if event.kind in ("backward", "zero_grad")]
    return kinds[-1:] == ["zero_grad"]


def _never_used(tape: Tape) -> Iterator[Finding]:
    """Backward passes without a step, and weights that are still what they were."""
    passes = [e for e in tape.of("backward") if e["models"] and not e.closure]
    trained = {n for event in passes for n in event["models"]}
    if len(passes) < ENOUGH or tape.of("step") or not trained:
        return
    if any(tape.moved(n) is not False for n in trained):
        return  # the loop updates the weights by hand, or nobody knows
    if any(event["scale"] is not None for event in tape.of("scale_update")):
        return  # a scaler skips steps whose gradients overflow
    stepped = len(tape.of("schedule"))
    yield Finding(
        cause="optimizer_step_missing",
        severity="error",
        summary="no optimizer steps: the gradients are computed, and no weight changes"
        + (" (the schedule's step() does not update anything)" if stepped else ""),
        evidence=(
            _evidence("backward passes", float(len(passes)), "as many as the loop has"),
            _evidence("optimizer steps", 0.0, "one for each, or for each few of them"),
        ),
        remedy="call optimizer.step() behind backward()",
        source="pytorch/tutorials#640" if stepped else "",
        proven=True,
        change=_step_remedy(),
    )


def _step_remedy() -> Remedy:
    return Remedy(
        title="step behind each backward pass",
        lines=("  loss.backward()", "+ optimizer.step()"),
        rerun=steps_taken,
    )


def _thrown_away(tape: Tape, optimizer: int, turns: Sequence[Turn]) -> Iterator[Finding]:
    """Most gradients are cleared before any step used them: a step outside of the inner loop.

    In a pair of networks that learn against each other one's loss gives the other gradients that
    are rightly thrown away: only passes that reach this optimizer's models alone are counted.
    """
    own = models_of(tape, optimizer)
    lost = [
        sum(event.kind == "zero_grad" and bool(event["lost"]) for event in turn.events)
        for turn in turns
    ]
    alone = all(set(e["models"]) <= own for turn in turns for e in turn.backwards)
    passes = sum(len(turn.backwards) for turn in turns)
    closures = any(event.closure for turn in turns for event in turn.backwards)
    if not turns or not alone or closures or statistics.median(lost) < 2 or passes < 2 * ENOUGH:
        return
    yield Finding(
        cause="optimizer_step_missing",
        severity="error",
        summary=f"the optimizer steps once for {passes / len(turns):.0f} backward passes, and "
        "zero_grad() throws the gradients between away: most of the data change nothing",
        evidence=(
            _evidence("backward passes", float(passes), f"{len(turns)}, one for each step"),
            _evidence("zero_grad() calls that lost unused gradients", float(sum(lost)), "0"),
        ),
        remedy="move optimizer.step() into the inner loop, behind backward()",
        proven=True,
        change=_step_remedy(),
    )


def _turned(tape: Tape, turns: Sequence[Turn]) -> Iterator[Finding]:
    """The negative of a loss that is to become small; pairs of adversaries do that on purpose."""
    passes = [event for turn in turns for event in turn.backwards]
    turned = [e for e in passes if e["factor"] < 0 and e["below"] in LOSSES]
    stepped = {event.subject for event in tape.of("step")}
    if len(passes) < ENOUGH or len(turned) < len(passes) or len(stepped) > 1:
        return
    yield Finding(
        cause="gradient_sign_flipped",
        severity="error",
        summary=f"backward() is called on the negative of {turned[0]['below']}: each step makes "
        "the loss larger",
        evidence=(
            _evidence("factor before the loss", turned[0]["factor"], "above 0"),
            _evidence("backward passes with it", float(len(turned)), f"0 of {len(passes)}"),
        ),
        remedy="drop the minus before the loss",
        proven=True,
        change=Remedy(
            title="call backward on the loss itself",
            lines=("- (-loss).backward()", "+ loss.backward()"),
            rerun=functools.partial(loss_multiplied, -1.0),
        ),
    )


def _not_divided(tape: Tape, optimizer: int, turns: Sequence[Turn]) -> Iterator[Finding]:
    counts = [_batches(tape, turn) for turn in turns]
    usual = statistics.mode(counts) if counts else 0
    same = [turn for turn, count in zip(turns, counts, strict=True) if count == usual]
    if usual < 2 or len(turns) < ENOUGH or len(same) < 0.7 * len(turns):
        return
    lost = [event for turn in same for event in turn.zeroed if event["lost"]]
    factors = [event["factor"] for turn in same for event in turn.backwards]
    if len(lost) > len(same):
        return  # a step outside of the loop over batches
    if any(abs(factor) < 0.99 for factor in factors) or _sums(tape):
        return
    card = tape.optimizers[optimizer]
    yield Finding(
        cause="accumulation_not_scaled",
        severity="note" if card.adaptive else "warning",
        summary=f"the gradients of {usual} batches are added, not averaged: the step is {usual} "
        "times as long as the learning rate says"
        + (f", which {card.name} hardly notices" if card.adaptive else ""),
        evidence=(
            _evidence("backward passes per step", float(usual), "1, or a loss divided by them"),
            _evidence("factor before the loss", factors[0], f"1/{usual} = {1 / usual:.3g}"),
        ),
        remedy=f"call backward on loss / {usual}",
        source="karpathy/nanoGPT#206",
        proven=True,
        change=Remedy(
            title=f"divide the loss by the {usual} batches of a step",
            lines=("- loss.backward()", f"+ (loss / {usual}).backward()"),
            rerun=functools.partial(loss_multiplied, 1 / usual),
        ),
    )


def _batches(tape: Tape, turn: Turn) -> int:
    """How many batches of a loader gave a step its gradients; 1 where there is no loader.

    No more than there were backward passes: two loaders may feed one.
    """
    forwards = [tape.events[n] for event in turn.backwards for n in event["forwards"]]
    drawn = {event["drawn"] for event in forwards if event["drawn"] >= 0}
    return max(1, min(len(drawn), len(turn.backwards)))


def _sums(tape: Tape) -> bool:
    """Whether the loss is a sum, whose parts are rightly added."""
    formula = next((f.formula for f in tape.formulas if f.formula is not None), None)
    if formula is None:
        return False
    return any("sum" in (c.name, c.kwargs.get("reduction")) for c in formula.calls)


def _cut(tape: Tape) -> Iterator[Finding]:
    """backward() on something that no weight is connected to."""
    passes = tape.of("backward")
    loose = [event for event in passes if not event["models"]]
    failed = [event for event in loose if not event["connected"]]
    trainable = any(card.trainable for card in tape.models)
    known = [event for event in loose[1:] if event["connected"]]  # the first may be overlooked
    if not trainable or not (failed or (len(known) > 1 and len(loose) > 0.5 * len(passes))):
        return
    first: Event = (failed or known)[0]
    yield Finding(
        cause="graph_cut",
        severity="error",
        summary="backward() is called on a tensor that no weight of a model is connected to: "
        + ("it fails" if failed else "nothing gets a gradient"),
        evidence=(
            _evidence(
                "backward passes that reached no model",
                float(len(loose)),
                f"0 of {len(passes)}",
            ),
            _evidence("what the tensor depends on", first["problem"] or "no weights", "a model"),
        ),
        remedy="look for .detach(), .item(), .data, .numpy(), argmax, torch.no_grad() or a new "
        "torch.tensor(...) between the model's outputs and the loss",
        proven=True,
        change=Remedy(
            title="keep the loss connected to the outputs",
            lines=("- loss = torch.tensor(loss.item(), requires_grad=True)", "  loss.backward()"),
        ),
    )
