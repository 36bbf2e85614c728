"""Modes of a recorded loop: training steps in evaluation mode, evaluations in training mode."""

from __future__ import annotations

from collections.abc import Iterator

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.epochs import trained_forwards
from leadline.doctor.recording.evaluations import evaluations
from leadline.doctor.recording.rerun_surroundings import (
    evaluation_mode_without_gradients,
    training_mode_restored,
)
from leadline.doctor.recording.tape import Tape
from leadline.doctor.remedy import Remedy


def signs(tape: Tape) -> Iterator[Finding]:
    """What the tape says of train() and eval()."""
    yield from _evaluating(tape)
    yield from _training(tape)


def _evaluating(tape: Tape) -> Iterator[Finding]:
    """Steps with silent dropout and frozen statistics; behind an evaluation it is an oversight."""
    calls = trained_forwards(tape)
    quiet = [e for e in calls if not e["training"] and e["quiet"] and not e["noisy"]]
    if len(calls) < 3 or len(quiet) < 0.1 * len(calls):
        return
    model = quiet[0].subject
    switched = any(event["training"] for event in calls)
    layers = quiet[0]["quiet"]
    yield Finding(
        cause="eval_mode_in_training",
        severity="error" if switched else "warning",
        summary="training goes on in evaluation mode "
        + ("behind the first evaluation" if switched else "from the start")
        + f": {layers} dropout and batch norm layers do not train",
        evidence=(
            Evidence(
                quantity="training passes in evaluation mode",
                measured=float(len(quiet)),
                expected=f"0 of {len(calls)}",
            ),
            Evidence(
                quantity="dropout and batch norm layers in that mode",
                measured=float(layers),
                expected="0",
            ),
        ),
        remedy="call model.train() at the start of each epoch, behind every evaluation",
        layers=(tape.models[model].name,),
        source="fartashf/vsepp#4",
        proven=switched,
        change=Remedy(
            title="go back to training mode behind each evaluation",
            lines=(
                "  for epoch in ...:",
                "+     model.train()",
                "      for inputs, targets in ...:",
            ),
            rerun=training_mode_restored,
        ),
    )


def _training(tape: Tape) -> Iterator[Finding]:
    """Held-out examples in training mode: noisy answers, and statistics that learn from them."""
    wrong = [
        phase
        for phase in evaluations(tape)
        if phase.held_out and all(e["training"] and e["noisy"] for e in phase.calls)
    ]
    if not wrong:
        return
    card = tape.models[wrong[0].model]
    calls = sum(len(phase.calls) for phase in wrong)
    yield Finding(
        cause="train_mode_in_evaluation",
        severity="error" if card.norms else "warning",
        summary="held-out examples are evaluated in training mode: "
        + ("batch norm uses, and learns from, the evaluated batch" if card.norms else "")
        + ("; " if card.norms and card.dropouts else "")
        + ("dropout disturbs the answers" if card.dropouts else ""),
        evidence=(
            Evidence(
                quantity="evaluations in training mode",
                measured=float(len(wrong)),
                expected=f"0 of {len(evaluations(tape))}",
            ),
            Evidence(quantity="calls of the model in them", measured=float(calls), expected="0"),
        ),
        remedy="call model.eval() before an evaluation, and model.train() behind it",
        layers=(card.name,),
        proven=bool(card.norms),
        change=Remedy(
            title="evaluate in evaluation mode",
            lines=("+ model.eval()", "  with torch.no_grad():"),
            rerun=evaluation_mode_without_gradients,
        ),
    )
