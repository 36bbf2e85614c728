"""Losses of a recorded loop: a class that is left out of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.formula import Formula
from leadline.doctor.recording.rerun_surroundings import every_class_counted
from leadline.doctor.recording.tape import Tape
from leadline.doctor.remedy import Remedy

OVER_CLASSES = ("cross_entropy", "nll_loss")


def signs(tape: Tape) -> Iterator[Finding]:
    """What the recorded loss says of itself."""
    formula = next((f.formula for f in tape.formulas if f.formula is not None), None)
    if formula is not None:
        yield from _left_out(tape, formula)


def _left_out(tape: Tape, formula: Formula) -> Iterator[Finding]:
    """One label per example, and one of the classes ignored: padding has no place there."""
    ignored = [c.kwargs.get("ignore_index", -100) for c in formula.calls if c.name in OVER_CLASSES]
    hit = next((number for number in ignored if number >= 0), None)
    batches = [b for b in tape.batches if isinstance(b.targets, Tensor) and b.grad]
    if hit is None or not batches or not _one_label_each(batches[0].args, batches[0].targets):
        return
    labels = torch.cat([b.targets.reshape(-1) for b in batches])
    others = labels[labels != hit]
    count = int((labels == hit).sum())
    if not count or not len(others):
        return
    yield Finding(
        cause="ignore_index_hits_class",
        severity="error",
        summary=f"the loss leaves out class {hit} (ignore_index={hit}): its examples teach nothing",
        evidence=(
            Evidence(
                quantity=f"examples of class {hit}",
                measured=float(count),
                expected="0, where it is to be ignored",
            ),
            Evidence(
                quantity="share of the examples that count",
                measured=len(others) / len(labels),
                expected="1",
            ),
        ),
        remedy="drop ignore_index, or give padding a number that is no class, such as -100",
        source="nyu-mll/jiant#925",
        proven=True,
        change=Remedy(
            title="count every class",
            lines=(
                f"- nn.CrossEntropyLoss(ignore_index={hit})",
                "+ nn.CrossEntropyLoss()",
            ),
            rerun=every_class_counted,
        ),
    )


def _one_label_each(args: tuple[object, ...], targets: Tensor) -> bool:
    """Told from tokens, whose padding is rightly ignored: numbers in, one label per example out."""
    given = args[0] if args else None
    numbers = isinstance(given, Tensor) and given.is_floating_point()
    return numbers and targets.ndim == 1 and len(targets) == len(given)  # type: ignore[arg-type]
