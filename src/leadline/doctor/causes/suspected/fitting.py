"""Faults of what fits together: the problem, the loss and the activation at the end of the model.

                     classes               yes or no             numbers
    cross entropy    logits                -                     -
    - ln p           softmax               -                     -
    binary, logits   (logits)              logits                -
    binary, p        (sigmoid)             sigmoid               -
    squared          loss_wrong            loss_wrong            unbounded

What stands in brackets works, and is tried against the usual one. What is wrong beyond doubt is a
finding; what many train with all the same is a suspicion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.penalty import penalty_share
from leadline.doctor.prescription import ending_of, outputs_are, right_ending
from leadline.doctor.remedies.layers import other_ending
from leadline.doctor.remedies.losses import fitting_loss, without_penalty
from leadline.doctor.remedy import Remedy
from leadline.doctor.suspicion import suspect

SOURCE = "Bishop 2006, section 4.3.6: the canonical link of a loss; Golik et al. 2013"

OUTWEIGHS = 3.0
"""Times the data's gradient from which on a penalty is an error: the weights shrink to nothing."""


def certain(patient: Patient) -> Iterator[Finding]:
    """Combinations that cannot be meant."""
    seen, problem = patient.seen, patient.problem
    if seen is None:
        return
    share = penalty_share(patient.setup, patient.first)
    if share is not None and share > OUTWEIGHS:
        yield replace(_penalty(share), severity="error", proven=True)
    if seen.nature is None:
        return
    _, ending = ending_of(patient)
    kind = seen.nature.kind
    if problem.kind == "labels" and problem.classes > 1 and ending in ("softmax", "log_softmax"):
        cause = "loss_wrong" if seen.nature.over_classes else "output_activation_wrong"
        yield _several_answers(cause, _as_labels(patient))
    elif problem.kind == "labels" and problem.classes > 1 and kind == "cross_entropy":
        yield _several_answers("loss_wrong", fitting_loss(problem, "logits"))
    elif kind == "binary_probabilities" and ending in ("linear", "relu", "tanh", "softsign"):
        yield _not_probabilities(patient, ending, "sigmoid")
    elif kind == "log_of_probabilities" and ending not in ("softmax", "log_softmax"):
        yield _not_probabilities(patient, ending, "softmax")


def _several_answers(cause: str, change: Remedy) -> Finding:
    return Finding(
        cause=cause,
        severity="error",
        summary="several answers can be right at once, and the model is made to share one "
        "probability among them",
        evidence=(
            Evidence(
                quantity="answers that are right for one example",
                measured="0, 1 or several",
                expected="exactly 1 under a softmax",
            ),
        ),
        remedy=change.title,
        source=SOURCE,
        change=change,
    )


def _as_labels(patient: Patient) -> Remedy:
    """A sigmoid at the end, and the binary cross entropy of its probabilities."""
    name, _ = ending_of(patient)
    if name is None:
        return fitting_loss(patient.problem, "probabilities")
    ending = other_ending(name, "sigmoid", was="nn.Softmax(dim=1)")
    loss = fitting_loss(patient.problem, "probabilities")
    return Remedy(
        title="end the model with a sigmoid and use the binary cross entropy",
        apply=lambda setup: loss(ending(setup)),
        lines=(*ending.lines, *loss.lines),
    )


def _not_probabilities(patient: Patient, ending: str, wanted: str) -> Finding:
    seen = patient.seen
    assert seen is not None, "its loss was asked"
    outputs = seen.survey.outputs.float()
    draft = Finding(
        cause="output_activation_wrong",
        severity="error",
        summary=f"the loss takes probabilities, and the model ends with {_named(ending)}",
        evidence=(
            Evidence(
                quantity="range of the outputs",
                measured=f"{float(outputs.min()):.3g} to {float(outputs.max()):.3g}",
                expected="0 to 1",
            ),
            Evidence(quantity="what ends the model", measured=ending, expected=wanted),
        ),
        remedy=f"end the model with a {wanted}, or use the loss that takes logits",
        source=SOURCE,
    )
    change = right_ending(draft, patient)
    return Finding(**{**vars(draft), "change": change})


def _named(ending: str) -> str:
    return "its last linear layer" if ending == "linear" else f"a {ending}"


def suspicions(patient: Patient) -> Iterator[Finding]:
    """A loss that is not the usual one for the problem, and a penalty on the weights."""
    seen, problem = patient.seen, patient.problem
    if seen is None:
        return
    share = penalty_share(patient.setup, patient.first)
    if share is not None and share <= OUTWEIGHS:
        yield _penalty(share)
    if seen.nature is None or problem.kind == "unknown":
        return
    kind = seen.nature.kind
    _, ending = ending_of(patient)
    usual = {
        "classes": ("cross_entropy", "nll", "log_of_probabilities"),
        "labels": ("binary_logits", "binary_probabilities"),
        "numbers": ("squared", "absolute", "other"),
    }[problem.kind]
    if kind in usual or (problem.kind == "numbers" and kind == "binary_logits"):
        return
    if share is not None and kind == "other":
        return  # the penalty hides what the loss is
    change = _usual_loss(patient, ending)
    yield suspect(
        "loss_wrong",
        f"the problem is {problem}, and the loss is {_loss_name(kind)}: its gradient is weak where "
        "the answers are most wrong",
        Evidence(
            quantity="kind of the loss", measured=_loss_name(kind), expected="a cross entropy"
        ),
        change=change,
        source=SOURCE,
    )


def _usual_loss(patient: Patient, ending: str) -> Remedy:
    """The usual loss of the problem, on what the model answers with."""
    name, _ = ending_of(patient)
    exclusive = patient.problem.kind == "classes"
    if exclusive and ending == "sigmoid" and name is not None:
        first = other_ending(name, "softmax", axis=patient.problem.axis, was="nn.Sigmoid()")
        loss = fitting_loss(patient.problem, "probabilities")
        return Remedy(
            title="end the model with a softmax and use the cross entropy",
            apply=lambda setup: loss(first(setup)),
            lines=(*first.lines, *loss.lines),
        )
    return fitting_loss(patient.problem, outputs_are(patient))


def _loss_name(kind: str) -> str:
    return {
        "squared": "a squared error",
        "absolute": "an absolute error",
        "binary_logits": "a binary cross entropy of logits",
        "binary_probabilities": "a binary cross entropy of probabilities",
        "cross_entropy": "a cross entropy",
        "nll": "a negative log likelihood",
        "log_of_probabilities": "a cross entropy of probabilities",
    }.get(kind, "of no usual kind")


def _penalty(share: float) -> Finding:
    return suspect(
        "reg_too_strong",
        "the loss adds a penalty on the weights, which outweighs what the data say",
        Evidence(
            quantity="gradient of the penalty over that of the data",
            measured=share,
            expected="below 0.1",
        ),
        change=without_penalty(),
        source="Goodfellow et al. 2016, section 7.1",
    )
