"""Numbers of a recorded loop: losses that are none, half precision that fails."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.rerun_updates import bfloat16_instead
from leadline.doctor.recording.tape import Tape
from leadline.doctor.recording.turns import models_of
from leadline.doctor.remedy import Remedy

NARROW = frozenset({"float16", "bfloat16"})

LOWEST_SCALE = 1.0
"""A gradient scaler that comes down to this finds nothing that does not overflow."""


def signs(tape: Tape) -> Iterator[Finding]:
    """What losses, scales and movements say of the numbers."""
    yield from _overflow(tape)
    yield from _standing_still(tape)
    yield from _not_finite(tape)


def _overflow(tape: Tape) -> Iterator[Finding]:
    scales = [float(e["scale"]) for e in tape.of("scale_update") if e["scale"] is not None]
    falls = sum(b < a for a, b in itertools.pairwise(scales))
    collapsed = len(scales) >= 10 and (scales[-1] <= LOWEST_SCALE or falls > 0.5 * len(scales))
    half = any(e["autocast"] == "float16" for e in tape.of("forward")) or any(
        "float16" in card.dtypes for card in tape.models
    )
    broken = [n for n, loss in enumerate(tape.losses) if not math.isfinite(loss)]
    if not collapsed and not (half and broken):
        return
    evidence = []
    if collapsed:
        evidence.append(
            Evidence(
                quantity="the gradient scaler's scale at the end",
                measured=scales[-1],
                expected="in the thousands, falling seldom",
            )
        )
        evidence.append(
            Evidence(
                quantity="updates left out because of infinite gradients",
                measured=float(falls),
                expected=f"few of {len(scales)}",
            )
        )
    if broken:
        evidence.append(
            Evidence(
                quantity="losses in float16 that are NaN or infinite",
                measured=float(len(broken)),
                expected=f"0 of {len(tape.losses)}",
            )
        )
    yield Finding(
        cause="low_precision_overflow",
        severity="error",
        summary="float16 overflows beyond 65,504: "
        + ("updates are left out" if collapsed else "the loss is no number any more"),
        evidence=tuple(evidence),
        remedy="compute in bfloat16, or keep the overflowing part (loss, norms, logits) in float32",
        source="NVIDIA/apex#318",
        proven=collapsed,
        change=Remedy(
            title="compute in bfloat16",
            lines=(
                "- torch.autocast(device, dtype=torch.float16)",
                "+ torch.autocast(device, dtype=torch.bfloat16)",
            ),
            rerun=None if any(card.dtypes & NARROW for card in tape.models) else bfloat16_instead,
        ),
    )


def _standing_still(tape: Tape) -> Iterator[Finding]:
    """Weights of 8 bits of mantissa: a step of less than 1/256 of a weight is rounded away."""
    for optimizer in tape.optimizers:
        narrow = [
            tape.models[n]
            for n in models_of(tape, optimizer.number)
            if tape.models[n].dtypes & NARROW
        ]
        steps = tape.of("step", subject=optimizer.number)
        looked = [e for e in steps if e["changed"] is not None and e["given"] and max(e["lr"]) > 0]
        if not narrow or len(looked) < 3:
            continue
        changed = statistics.median(e["changed"] for e in looked)
        if changed > 0.3:
            continue
        dtype = next(iter(narrow[0].dtypes & NARROW))
        yield Finding(
            cause="low_precision_update_lost",
            severity="error" if changed < 0.05 else "warning",
            summary=f"the weights are kept in {dtype}, and most updates are smaller than its "
            "spacing: they are rounded away",
            evidence=(
                Evidence(
                    quantity="share of the weights that a step changes",
                    measured=changed,
                    expected="near 1",
                ),
                Evidence(
                    quantity="learning rate", measured=max(looked[0]["lr"]), expected="any number"
                ),
            ),
            remedy="keep the weights in float32 and compute under torch.autocast",
            proven=True,
            change=Remedy(
                title="keep the weights in float32",
                lines=(
                    f"- model.to(torch.{dtype})",
                    f"+ with torch.autocast(device, dtype=torch.{dtype}):",
                    "      loss = ...",
                ),
            ),
        )
        return


def _not_finite(tape: Tape) -> Iterator[Finding]:
    scaled = any(e["scale"] is not None for e in tape.of("scale_update"))
    broken = [n for n, loss in enumerate(tape.losses, start=1) if not math.isfinite(loss)]
    if not broken or scaled:
        return
    before = tape.losses[broken[0] - 2] if broken[0] > 1 else math.nan
    yield Finding(
        cause="nonfinite_value",
        severity="error",
        summary=f"the loss is NaN or infinite from backward pass {broken[0]:,} on",
        evidence=(
            Evidence(
                quantity="losses that are no number",
                measured=float(len(broken)),
                expected=f"0 of {len(tape.losses)}",
            ),
            Evidence(quantity="the loss before", measured=before, expected="a finite number"),
        ),
        remedy="lower the learning rate or clip the gradients, where it grew before; look for log, "
        "sqrt and divisions, where it came at once",
        proven=True,
    )
