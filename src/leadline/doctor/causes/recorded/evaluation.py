"""Evaluations of a recorded loop: missing, on examples trained on, or with a wrong threshold."""

from __future__ import annotations

from collections.abc import Iterator

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.epochs import trained_forwards
from leadline.doctor.recording.evaluations import Evaluation, evaluations
from leadline.doctor.recording.tape import Tape
from leadline.doctor.remedy import Remedy

LEAK = 0.02
"""Share of an evaluation's examples that may be equal to trained ones by chance."""

LOGIT_LOSSES = frozenset({"binary_cross_entropy_with_logits", "multilabel_soft_margin_loss"})
"""Losses whose outputs are logits: the middle is at 0."""


def signs(tape: Tape) -> Iterator[Finding]:
    """What the tape says of how the training is judged."""
    phases = evaluations(tape)
    yield from _missing(tape, phases)
    yield from _leak(tape, phases)
    yield from _threshold(tape)


def _missing(tape: Tape, phases: list[Evaluation]) -> Iterator[Finding]:
    if phases or tape.updates < 20 or tape.error is not None:
        return
    yield Finding(
        cause="validation_missing",
        severity="note",
        summary="the model is never asked about examples it does not train on: overfitting would "
        "go unseen",
        evidence=(
            Evidence(quantity="evaluations", measured=0.0, expected="one per epoch or so"),
            Evidence(quantity="updates", measured=float(tape.updates), expected="any number"),
        ),
        remedy="hold some of the examples back, and evaluate on them as the training goes on",
        proven=True,
    )


def _leak(tape: Tape, phases: list[Evaluation]) -> Iterator[Finding]:
    """Some or all of the examples were trained on, and no other evaluation is without them."""
    known = [phase for phase in phases if phase.seen is not None]
    if not known:
        return
    least = min(known, key=lambda phase: phase.seen or 0.0)
    seen = least.seen or 0.0
    allowed = LEAK + 5 * least.repeated
    shared = _shared_part(tape, least)
    if seen <= allowed and not shared:
        return
    share = max(seen, shared)
    yield Finding(
        cause="validation_leak",
        severity="warning",
        summary="every evaluation is on examples that were trained on: it says nothing about others"
        if share > 0.99
        else f"{share:.0%} of the evaluated examples were trained on: the figures are too good",
        evidence=(
            Evidence(
                quantity="share of evaluated examples that were trained on",
                measured=share,
                expected=f"below {allowed:.2g}",
            ),
        ),
        remedy="split the examples first, before anything that copies or augments them, and "
        "evaluate on the part that is held back",
        proven=True,
        change=Remedy(
            title="evaluate on examples that are held back",
            lines=(
                "+ training, held_out = torch.utils.data.random_split(data, [0.9, 0.1])",
                "- evaluate(model, DataLoader(training))",
                "+ evaluate(model, DataLoader(held_out))",
            ),
        ),
    )


def _shared_part(tape: Tape, phase: Evaluation) -> float:
    """The share of an evaluation's data set that a training loader draws from too, by number."""
    if phase.loader < 0:
        return 0.0
    own = tape.loaders[phase.loader]
    trained = trained_forwards(tape, phase.model)
    training = {event["loader"] for event in trained} - {-1, phase.loader}
    if own.part is None or not own.part:
        return 0.0
    shares = [
        len(own.part & part) / len(own.part)
        for number in training
        if (part := tape.loaders[number].part) is not None
        and tape.loaders[number].dataset == own.dataset
    ]
    return max(shares, default=0.0)


def _threshold(tape: Tape) -> Iterator[Finding]:
    """Told from regression on zeros and ones, where 0.5 is the middle: the loss takes logits."""
    below = {event["below"] for event in tape.of("backward")}
    names = {name for formula in tape.formulas for name in formula.names}
    if not (below | names) & LOGIT_LOSSES:
        return
    halves = [event for event in tape.of("threshold") if event["value"] == 0.5]
    lowest = min((event["lowest"] for event in halves), default=0.0)
    highest = max((event["highest"] for event in halves), default=1.0)
    if lowest >= 0 and highest <= 1:
        return
    loss = next(iter((below | names) & LOGIT_LOSSES))
    yield Finding(
        cause="metric_on_logits",
        severity="error",
        summary="outputs are compared with 0.5, but they are logits: the middle is at 0, and the "
        "metric counts wrong",
        evidence=(
            Evidence(quantity="loss", measured=loss, expected="one of probabilities"),
            Evidence(quantity="lowest output compared with 0.5", measured=lowest, expected=">= 0"),
            Evidence(quantity="highest output", measured=highest, expected="<= 1"),
        ),
        remedy="compare the logits with 0, or their sigmoid with 0.5",
        proven=True,
        change=Remedy(
            title="compare logits with 0",
            lines=("- predictions = outputs > 0.5", "+ predictions = outputs > 0"),
        ),
    )
