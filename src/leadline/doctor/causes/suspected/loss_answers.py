"""Faults that the loss and the measure give away when they are asked about made-up answers.

Right and wrong answers are made up for the targets at hand: which of them the loss prefers, whose
gradient it hands back, and whether the task's accuracy takes a small logit for the yes that it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from leadline.core.seeds import preserved_random_state
from leadline.doctor.causes.suspected.sequences import filler_of, filler_share
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.loss_nature import NUMBERS, ask_loss
from leadline.doctor.patient import Patient
from leadline.doctor.remedies import answers, losses
from leadline.doctor.remedies.answers import behind_the_end
from leadline.doctor.suspicion import suspect

MOST = 512  # examples that a loss is asked about, at most
PADDED = 0.1  # share of padding among the targets from which on a loss that counts it is misled
FEW = 2  # examples of a class from which on a gradient of 0 for all of them is the loss's doing


def certain(patient: Patient) -> Iterator[Finding]:
    """What the answers of loss and measure leave no doubt about."""
    yield from _ignored_class(patient)
    yield from _flipped(patient)
    yield from _binary_labels(patient)
    yield from _padding(patient)
    yield from _measure(patient)


def suspicions(patient: Patient) -> Iterator[Finding]:
    """A loss that grows with right answers in some readings of the outputs only."""
    asked = _asked(patient)
    if asked is None or not _may_be_flipped(patient):
        return
    verdicts = [right > wrong for right, wrong in _right_and_wrong(patient, asked)]
    if any(verdicts) and not all(verdicts):
        yield suspect(
            "gradient_sign_flipped",
            "the loss is larger for some right answers than for wrong ones: what should be "
            "maximised may be minimised",
            Evidence(
                quantity="readings of the outputs in which the loss prefers wrong answers",
                measured=f"{sum(verdicts)} of {len(verdicts)}",
                expected="none",
            ),
            change=losses.other_sign(),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """The loss, and targets it is asked about, with the shape of as many outputs."""

    loss: Any
    targets: Tensor
    shape: tuple[int, ...]

    def value(self, outputs: Tensor, targets: Tensor | None = None) -> float:
        """The loss of made-up outputs; NaN where it cannot be had."""
        try:
            with preserved_random_state(), torch.no_grad():
                value = self.loss(outputs, self.targets if targets is None else targets)
            return float(value) if value.numel() == 1 else math.nan
        except Exception:
            return math.nan  # a question that makes no sense for this loss has no answer

    def gradient(self, outputs: Tensor) -> Tensor | None:
        """The gradient of the loss with respect to made-up outputs."""
        leaf = outputs.clone().requires_grad_()
        try:
            with preserved_random_state(), torch.enable_grad():
                value = self.loss(leaf, self.targets)
                (gradient,) = torch.autograd.grad(value, leaf)
        except Exception:
            return None
        return gradient if bool(torch.isfinite(gradient).all()) else None

    def noise(self) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0))


def _asked(patient: Patient) -> _Asked | None:
    """The targets gathered, as many as outputs can be made up for; None without a plain pair."""
    seen, gathered = patient.seen, patient.gathered
    if seen is None or seen.loss is None or gathered is None or seen.survey.outputs.ndim == 0:
        return None
    outputs, targets = seen.survey.outputs, gathered[1]
    if len(outputs) != len(seen.batch.targets):
        return None
    each = max(1, outputs[0].numel())
    count = min(len(targets), MOST, max(len(outputs), NUMBERS // each))
    return _Asked(loss=seen.loss, targets=targets[:count], shape=(count, *tuple(outputs.shape[1:])))


def _readable(patient: Patient, logits: Tensor) -> Tensor:
    """Logits as the outputs that this loss takes."""
    kind = patient.seen.nature.kind if patient.seen and patient.seen.nature else "other"
    axis = patient.problem.axis
    if kind == "nll":
        return logits.log_softmax(dim=axis)
    if kind == "log_of_probabilities":
        return logits.softmax(dim=axis)
    return logits.sigmoid() if kind == "binary_probabilities" else logits


def _ignored_class(patient: Patient) -> Iterator[Finding]:
    problem, seen, asked = patient.problem, patient.seen, _asked(patient)
    if asked is None or seen is None or seen.nature is None or not seen.nature.over_classes:
        return
    if problem.kind != "classes" or problem.one_hot or problem.soft:
        return
    gradient = asked.gradient(_readable(patient, asked.noise()))
    if gradient is None:
        return
    heard = gradient.movedim(problem.axis, -1).flatten(0, -2).abs().amax(dim=1) > 0
    numbers = asked.targets.reshape(-1)
    if len(heard) != len(numbers):
        return
    counts = torch.bincount(numbers[numbers >= 0], minlength=problem.classes)
    loud = torch.bincount(numbers[heard & (numbers >= 0)], minlength=problem.classes)
    silent = ((counts >= FEW) & (loud == 0)).nonzero().flatten().tolist()
    if not silent or not bool((loud > 0).any()):
        return
    if asked.targets.ndim > 1 and any(_marks_nothing(patient, k) for k in silent):
        return
    share = float(counts[silent].sum()) / max(int(counts.sum()), 1)
    named = " and ".join(map(str, silent))
    yield Finding(
        cause="ignore_index_hits_class",
        severity="error",
        summary=f"the loss leaves out every example of class {named}: the network never learns it",
        evidence=(
            Evidence(
                quantity=f"largest gradient for a target of class {named}",
                measured=0.0,
                expected="above 0, as for the others",
            ),
            Evidence(quantity="share of the targets left out", measured=share, expected="0"),
        ),
        remedy=f"mark what does not count with a number that is no class (-100), not with {named}",
        source="nyu-mll/jiant#925; torch.nn.CrossEntropyLoss, ignore_index",
        change=answers.every_class(
            seen.loss,
            problem,
            ignored=silent[0],
            probabilities=seen.nature.kind == "log_of_probabilities",
        ),
        proven=True,
    )


def _marks_nothing(patient: Patient, number: int) -> bool:
    """Whether a number among targets [B, T] or [B, H, W] stands for what has no answer.

    It does where it fills up sequences behind their ends, where symbols of the same vocabulary
    never hold it, and where it is most of a picture.
    """
    assert patient.gathered is not None, "its targets were asked about"
    inputs, targets = patient.gathered
    held = targets == number
    if inputs.is_floating_point() or inputs.ndim != 2 or targets.ndim != 2:
        return targets.ndim > 2 or float(held.float().mean()) > 0.5
    if inputs.shape == targets.shape and not bool((inputs == number).any()):
        return True
    behind = behind_the_end(targets, torch.tensor(number))
    return float(behind.sum()) > 0.9 * float(held.sum())


def _may_be_flipped(patient: Patient) -> bool:
    seen = patient.seen
    if seen is None or seen.nature is None or seen.nature.kind != "other":
        return False  # every loss of a known kind is smallest for right answers
    groups = seen.optimizer.param_groups if seen.optimizer is not None else []
    return not any(group.get("maximize") for group in groups)


def _flipped(patient: Patient) -> Iterator[Finding]:
    asked = _asked(patient)
    if asked is None or not _may_be_flipped(patient):
        return
    pairs = list(_right_and_wrong(patient, asked))
    if not pairs or not all(right > wrong for right, wrong in pairs):
        return
    right, wrong = pairs[0]
    yield Finding(
        cause="gradient_sign_flipped",
        severity="error",
        summary="the loss is larger for right answers than for wrong ones: the training makes "
        "the answers worse",
        evidence=(
            Evidence(
                quantity="loss of made-up right answers", measured=right, expected="the smallest"
            ),
            Evidence(
                quantity="loss of made-up wrong answers",
                measured=wrong,
                expected=f"above {right:.3g}",
            ),
        ),
        remedy="turn the sign of the loss round, or give the optimizer maximize=True",
        source="Goodfellow et al. 2016, section 8.1",
        change=losses.other_sign(),
        proven=True,
    )


def _right_and_wrong(patient: Patient, asked: _Asked) -> Iterator[tuple[float, float]]:
    """The losses of right answers, and the highest of wrong ones, in every way to read outputs."""
    for right, wrongs in _made_up(patient, asked):
        best, others = asked.value(right), [asked.value(wrong) for wrong in wrongs]
        if not all(map(math.isfinite, (best, *others))):
            continue
        if abs(best - max(others)) > 1e-3 * max(abs(best), abs(max(others))):
            yield best, max(others)


def _made_up(patient: Patient, asked: _Asked) -> Iterator[tuple[Tensor, list[Tensor]]]:
    problem, targets = patient.problem, asked.targets
    if problem.kind == "classes":
        numbers = targets if not (problem.one_hot or problem.soft) else targets.argmax(dim=1)
        right = _one_hot(numbers, patient, asked)
        wrong = _one_hot((numbers + 1) % problem.classes, patient, asked)
        if right is None or wrong is None:
            return
        yield 4 * right, [4 * wrong]
        low = 0.05 / problem.classes
        spread = [(low + (1 - low * problem.classes) * x) for x in (right, wrong)]
        yield spread[0], [spread[1]]
        yield spread[0].log(), [spread[1].log()]
    elif problem.kind == "labels" and math.prod(asked.shape) == targets.numel():
        yes = targets.float().reshape(asked.shape)
        yield 8 * yes - 4, [4 - 8 * yes]
        yield 0.9 * yes + 0.05, [0.95 - 0.9 * yes]
    elif problem.kind == "numbers" and math.prod(asked.shape) == targets.numel():
        wanted = targets.float().reshape(asked.shape)
        step = float(wanted.std()) if wanted.numel() > 1 else 1.0
        step = step if step > 0 else 1.0
        mirrored = 2 * wanted.mean() - wanted
        noise = step * asked.noise()
        yield wanted, [wanted + 3 * step, wanted - 3 * step, mirrored, wanted + noise]


def _one_hot(numbers: Tensor, patient: Patient, asked: _Asked) -> Tensor | None:
    """Rows with a 1 at the class, along the axis of the classes; 0 for what is to be ignored."""
    inside = numbers.clamp(0, patient.problem.classes - 1).long()
    rows = functional.one_hot(inside, patient.problem.classes).float()
    axis = patient.problem.axis
    rows = rows.movedim(-1, axis if rows.ndim > axis else -1)
    return rows if tuple(rows.shape) == asked.shape else None


def _binary_labels(patient: Patient) -> Iterator[Finding]:
    """Two labels that are not 0 and 1, for a binary cross entropy that knows no others."""
    asked, seen = _asked(patient), patient.seen
    if asked is None or seen is None or seen.nature is None or seen.nature.kind != "other":
        return
    values = torch.unique(asked.targets)
    if len(values) != 2 or asked.targets.numel() != math.prod(asked.shape):
        return
    low, high = float(values[0]), float(values[1])
    if (low, high) == (0.0, 1.0) or (high - low, low) not in ((1.0, 1.0), (1.0, -1.0), (2.0, -1.0)):
        return
    moved = (asked.targets - values[0]) / (high - low)
    kind = ask_loss(asked.loss, asked.noise(), moved.to(asked.targets.dtype)).kind
    if kind not in ("binary_logits", "binary_probabilities"):
        return
    yield Finding(
        cause="labels_shifted",
        severity="error",
        summary=f"the labels are {low:g} and {high:g}, and the loss knows 0 and 1 only: it falls "
        "without end for answers that are never right",
        evidence=(
            Evidence(quantity="lower label", measured=low, expected="0"),
            Evidence(quantity="higher label", measured=high, expected="1"),
        ),
        remedy="turn the labels into 0 and 1",
        source="torch.nn.BCEWithLogitsLoss: targets between 0 and 1",
        change=answers.labels_to_zero_and_one(low, high),
        proven=True,
    )


def _padding(patient: Patient) -> Iterator[Finding]:
    """Places behind the ends of sequences that the loss asks answers for."""
    asked, seen = _asked(patient), patient.seen
    if asked is None or seen is None or patient.gathered is None or asked.targets.ndim < 2:
        return
    inputs, targets = patient.gathered
    if inputs.ndim < 2 or inputs.shape[:2] != targets.shape[:2]:
        return
    if filler_of(inputs) is None:
        return
    filler = filler_of(targets)
    if filler is None or (not targets.is_floating_point() and int(filler) < 0):
        return
    share = filler_share(targets, filler)
    padded = behind_the_end(asked.targets, filler)
    axis = _axis_beside(patient, asked)
    if share < PADDED or axis == -1:
        return
    gradient = asked.gradient(_readable(patient, asked.noise()))
    if gradient is None:
        return
    rows = gradient if axis is None else gradient.movedim(axis, -1)
    if not bool((rows[padded] != 0).any()):
        return
    named = f"{float(filler):g}" if filler.ndim == 0 else "all the same"
    yield Finding(
        cause="padding_in_loss",
        severity="warning",
        summary=f"{share:.0%} of the places are padding behind the ends of the sequences, and the "
        "loss counts them: the network is paid for predicting padding",
        evidence=(
            Evidence(
                quantity=f"share of the targets that are padding ({named})",
                measured=share,
                expected=f"below {PADDED:g}, or left out of the loss",
            ),
        ),
        remedy="pass ignore_index to the loss, or take the mean over the places that are known",
        source="dmis-lab/biobert#174",
        change=answers.without_padding(filler, axis=axis),
        proven=True,
    )


def _axis_beside(patient: Patient, asked: _Asked) -> int | None:
    """The axis that outputs have and targets lack; None for equal shapes, -1 for other pairs."""
    if asked.shape == tuple(asked.targets.shape):
        return None
    axis = patient.problem.axis
    if patient.problem.kind != "classes" or len(asked.shape) <= axis:
        return -1
    beside = (*asked.shape[:axis], *asked.shape[axis + 1 :])
    return axis if beside == tuple(asked.targets.shape) else -1


def _measure(patient: Patient) -> Iterator[Finding]:
    """An accuracy that takes logits for probabilities, or probabilities for logits."""
    task, asked, seen = patient.setup.task, _asked(patient), patient.seen
    if task is None or asked is None or seen is None or seen.nature is None:
        return
    kind = seen.nature.kind
    if patient.problem.kind != "labels" or kind not in ("binary_logits", "binary_probabilities"):
        return
    yes = asked.targets.float().reshape(asked.shape)
    if bool((yes == yes.reshape(-1)[0]).all()):
        return
    logits = kind == "binary_logits"
    # right answers that any border reads aright, unsure ones, what a wrong border makes of these
    sure, unsure, misread = (
        (20 * yes - 10, 0.6 * yes - 0.3, torch.full_like(yes, -10.0))
        if logits
        else (0.4 * yes - 0.2, 0.4 * yes + 0.3, torch.full_like(yes, 0.99))
    )
    figures = [_figure(task, outputs, asked.targets) for outputs in (sure, unsure, misread)]
    if any(figure is None for figure in figures):
        return
    if figures[1] != figures[2] or figures[0] == figures[1]:
        return
    yield Finding(
        cause="metric_on_logits",
        severity="error",
        summary=f"{task.main_metric} takes the outputs for "
        + ("probabilities: a logit of 0.3, which means yes, is counted as no" if logits
           else "logits: a probability of 0.3, which means no, is counted as yes"),
        evidence=(
            Evidence(
                quantity=f"{task.main_metric} of right answers that are not very sure",
                measured=float(figures[1] or 0.0),
                expected=f"{figures[0]:.4g}, as for sure ones",
            ),
        ),
        remedy="compare logits with 0, probabilities with 0.5",
        source="torch.nn.BCEWithLogitsLoss takes logits; sigmoid(0) = 0.5",
        change=answers.read_as_probabilities() if logits else answers.read_from_the_middle(),
        proven=True,
    )  # fmt: skip


def _figure(task: Any, outputs: Tensor, targets: Tensor) -> float | None:
    try:
        with torch.no_grad():
            figures = task.evaluate(outputs, targets).metrics()
        return float(figures[task.main_metric])
    except Exception:
        return None  # a task that needs more than these two cannot be asked so
