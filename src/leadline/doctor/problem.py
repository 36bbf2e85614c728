"""The problem: what is to be learned, read from outputs and targets; and a yardstick for answers.

A trial compares trainings whose losses may differ, so the loss cannot be the judge. What can is
how the answers fit the targets, on a scale that means the same everywhere: `error` is 0 for
perfect answers and 1 for those of a model that knows nothing but the targets' distribution.

    classes   wrong answers over those of always naming the commonest class
    labels    1 - the mean of 2 AUC - 1 over outputs of two answers each
    numbers   mean squared error over the targets' variance

`surprise` is the same idea, finer, and blind to the scale and offset of the outputs: for classes
the log likelihood at the best temperature over the entropy of the classes; for numbers what a
straight line through outputs and targets leaves unexplained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from leadline.doctor.loss_nature import LossNature

ProblemKind = Literal["classes", "labels", "numbers", "unknown"]

MOST_ANSWERS = 20_000
"""Answers that are judged, at most: more do not move the figures."""

FEWEST_OF_EITHER = 10
"""Answers of yes and of no without which their shares are chance."""

FILLER = -1
"""What stands among targets of 0 and 1 for those that do not count."""

TEMPERATURES = tuple(2.0**power for power in range(-6, 8))
"""Factors on the logits among which the best is taken."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be learned.

    `classes` counts the exclusive answers of 'classes' (their axis in the outputs is `axis`) and
    the yes-or-no outputs of 'labels'. `one_hot` says that targets are rows with a single 1,
    `soft` that they are rows of probabilities.
    """

    kind: ProblemKind
    classes: int = 0
    axis: int = 1
    one_hot: bool = False
    soft: bool = False

    def __str__(self) -> str:
        if self.kind == "classes":
            return f"one of {self.classes} classes"
        if self.kind == "labels":
            return "yes or no" if self.classes == 1 else f"{self.classes} yes-or-no answers"
        return "numbers" if self.kind == "numbers" else "a problem of no known kind"

    @property
    def measured(self) -> str:
        """What `error` is, in words."""
        return {
            "classes": "wrong answers, over those of always naming the commonest class",
            "labels": "pairs in the wrong order, over those of chance",
            "numbers": "squared error, over the variance of the targets",
            "unknown": "loss, over that of the untrained network",
        }[self.kind]


def read_problem(outputs: Tensor, targets: Any, nature: LossNature | None) -> Problem:
    """What is to be learned, from a model's outputs and as many targets as are at hand.

    >>> read_problem(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]), None).kind
    'classes'
    >>> read_problem(torch.zeros(4, 1), torch.tensor([[0.0], [1.0], [1.0], [0.0]]), None).kind
    'labels'
    >>> read_problem(torch.zeros(4, 1), torch.tensor([[0.1], [3.0], [1.0], [0.0]]), None).kind
    'numbers'
    """
    if not isinstance(targets, Tensor) or targets.is_complex() or not targets.numel():
        return Problem(kind="unknown")
    if outputs.ndim == 0 or not outputs.numel():
        return Problem(kind="unknown")
    whole = not targets.is_floating_point()
    if whole and targets.dtype != torch.bool and targets.shape != outputs.shape:
        found = _class_numbers(outputs, targets, nature)
        if found is not None:
            return found
    known = _without_filler(targets, nature)
    if bool(((known == 0) | (known == 1)).all()) and targets.numel() == outputs.numel():
        return _zeros_and_ones(outputs, targets)
    rows = targets.shape == outputs.shape and targets.ndim >= 2 and targets.shape[1] > 1
    if rows and not whole and _distributions(targets):
        one_hot = bool(((targets == 0) | (targets == 1)).all())
        return Problem(
            kind="classes", classes=targets.shape[1], axis=1, one_hot=one_hot, soft=not one_hot
        )
    if targets.numel() == outputs.numel() or _broadcastable(outputs, targets):
        return Problem(kind="numbers")
    return Problem(kind="unknown")


def _without_filler(targets: Tensor, nature: LossNature | None) -> Tensor:
    """The targets that count. Where -1 and 1 are the answers, or numbers, -1 is no filler."""
    numbers = nature is not None and nature.kind in ("squared", "absolute")
    if numbers or not bool((targets == 0).any()):
        return targets
    return targets[targets != FILLER]


def _class_numbers(outputs: Tensor, targets: Tensor, nature: LossNature | None) -> Problem | None:
    if nature is not None and nature.over_classes and nature.class_axis is not None:
        axis = nature.class_axis
    elif outputs.ndim >= 2 and targets.shape == outputs.shape[:1] + outputs.shape[2:]:
        axis = 1
    elif outputs.ndim >= 2 and targets.shape == outputs.shape[:-1]:
        axis = outputs.ndim - 1
    else:
        return None
    if outputs.shape[axis] < 2:
        return None
    return Problem(kind="classes", classes=outputs.shape[axis], axis=axis)


def _zeros_and_ones(outputs: Tensor, targets: Tensor) -> Problem:
    if targets.ndim == 2 and targets.shape[1] > 1 and targets.shape == outputs.shape:
        if _distributions(targets):
            return Problem(kind="classes", classes=targets.shape[1], axis=1, one_hot=True)
        return Problem(kind="labels", classes=targets.shape[1])
    return Problem(kind="labels", classes=1)


def _distributions(targets: Tensor) -> bool:
    sums = targets.float().sum(dim=1)
    return bool((targets >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())


def _broadcastable(outputs: Tensor, targets: Tensor) -> bool:
    """Whether each output has its target, or one for a whole row of equal length."""
    alike = targets.ndim == outputs.ndim and targets.shape[0] == outputs.shape[0]
    return alike and (targets.shape[-1] == outputs.shape[-1] or outputs.shape[-1] == 1)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How answers fit their targets: 0 is perfect, 1 is what a model that knows nothing gives.

    `doubt` is the standard error of `error`: with few answers a difference may be chance.
    `balanced` is the error with every class counted alike, NaN for other problems. `each` [N] are
    the parts of the answers in `error`, one by one, where it is their mean.
    """

    error: float
    surprise: float
    doubt: float = 0.0
    balanced: float = math.nan
    each: Tensor | None = field(default=None, compare=False, repr=False)

    def doubt_beside(self, other: Verdict) -> float:
        """The standard error of the difference of two errors.

        The same examples are put to both arms of a trial. What is hard for both is no doubt.
        """
        own, theirs = self.each, other.each
        paired = own is not None and theirs is not None and own.shape == theirs.shape
        if own is None or theirs is None or not paired or len(own) < 2:
            return math.hypot(self.doubt, other.doubt)
        if self.doubt == other.doubt == 0:
            return 0.0  # all examples there are were asked
        return float((own - theirs).std()) / math.sqrt(len(own))


def judge(outputs: Tensor, targets: Tensor, problem: Problem) -> Verdict:
    """Hold answers against targets.

    >>> targets = torch.tensor([0, 1, 1, 0])
    >>> two = Problem(kind="classes", classes=2)
    >>> judge(torch.eye(2)[targets], targets, two).error
    0.0
    >>> judge(torch.zeros(4, 2), targets, two).error
    1.0
    """
    outputs = outputs.detach().float()
    if not bool(torch.isfinite(outputs).all()):
        return Verdict(error=math.inf, surprise=math.inf)
    if problem.kind == "classes":
        return _judge_classes(outputs, targets, problem)
    if problem.kind == "labels":
        return _judge_labels(outputs, targets.float())
    if problem.kind == "numbers":
        return _judge_numbers(outputs, targets.float())
    return Verdict(error=math.nan, surprise=math.nan)


def _judge_classes(outputs: Tensor, targets: Tensor, problem: Problem) -> Verdict:
    rows = outputs.movedim(problem.axis, -1).reshape(-1, problem.classes)
    if problem.one_hot or problem.soft:
        wanted = targets.argmax(dim=problem.axis).reshape(-1)
    else:
        wanted = targets.reshape(-1)
    counted = (wanted >= 0) & (wanted < problem.classes)
    rows, wanted = rows[counted][:MOST_ANSWERS], wanted[counted][:MOST_ANSWERS]
    if not len(wanted):
        return Verdict(error=math.nan, surprise=math.nan)
    shares = torch.bincount(wanted, minlength=problem.classes).float() / len(wanted)
    ignorance = 1 - float(shares.max())
    missed = (rows.argmax(dim=1) != wanted).float()
    wrong = float(missed.mean())
    entropy = float(-(shares * shares.clamp_min(1e-12).log()).sum())
    doubt = math.sqrt(max(wrong * (1 - wrong), 1 / len(wanted)) / len(wanted))
    if ignorance == 0:
        return Verdict(error=math.nan, surprise=math.nan)
    return Verdict(
        error=wrong / ignorance,
        surprise=_log_loss(rows, wanted) / entropy,
        doubt=doubt / ignorance,
        balanced=_balanced(missed == 0, wanted),
        each=missed / ignorance,
    )


def _balanced(right: Tensor, wanted: Tensor) -> float:
    """The mean over the classes of their wrong answers, over that of chance."""
    counts = torch.bincount(wanted)
    hits = torch.bincount(wanted, weights=right.float(), minlength=len(counts))
    present = counts > 0
    classes = int(present.sum())
    recall = float((hits[present] / counts[present]).mean())
    return (1 - recall) / (1 - 1 / classes) if classes > 1 else math.nan


def _log_loss(rows: Tensor, wanted: Tensor) -> float:
    """The log loss at the best temperature; rows of probabilities are turned into logits first."""
    logits = rows.clamp_min(1e-7).log() if bool((rows >= 0).all()) else rows
    spread = float(logits.std()) if logits.numel() > 1 else 1.0
    logits = logits / max(spread, 1e-12)
    losses = [float(functional.cross_entropy(logits * t, wanted)) for t in (0.0, *TEMPERATURES)]
    return min(losses)


def _judge_labels(outputs: Tensor, targets: Tensor) -> Verdict:
    count = targets.shape[1] if targets.ndim == 2 and targets.shape[1] > 1 else 1
    rows, wanted = outputs.reshape(-1, count), targets.reshape(-1, count)
    counted = (wanted != FILLER).all(dim=1)
    rows, wanted = rows[counted][:MOST_ANSWERS], wanted[counted][:MOST_ANSWERS]
    areas = [area for k in range(count) if (area := _area(rows[:, k], wanted[:, k])) is not None]
    if not areas:
        return Verdict(error=math.nan, surprise=math.nan)
    middle = 0.5 if bool(((rows >= 0) & (rows <= 1)).all()) else 0.0
    error = 2 * (1 - sum(areas) / len(areas))
    wrong = float(((rows > middle) != (wanted > 0.5)).float().mean())
    shares = wanted.mean(dim=0)
    ignorance = float(torch.minimum(shares, 1 - shares).mean())
    doubt = math.sqrt(max(wrong * (1 - wrong), 1 / len(rows)) / len(rows))
    missed = wrong / ignorance if ignorance > 0 else math.nan
    return Verdict(
        error=max(error, min(missed, 1.0)),
        surprise=error,
        doubt=2 * doubt,
        balanced=_balanced_answers(rows > middle, wanted > 0.5) if count == 1 else math.nan,
    )


def _balanced_answers(said: Tensor, wanted: Tensor) -> float:
    """The shares of yes and of no that are missed, together; NaN with too few of either."""
    if min(int(wanted.sum()), int((~wanted).sum())) < FEWEST_OF_EITHER:
        return math.nan
    missed = (~said[wanted]).float().mean() + said[~wanted].float().mean()
    return float(missed)


def _area(scores: Tensor, wanted: Tensor) -> float | None:
    """The area under the ROC curve: the share of pairs in the right order; equals count half."""
    positive = wanted > 0.5
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return None
    _, inverse, counts = torch.unique(scores, sorted=True, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse].double()  # mean rank of equal scores
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _judge_numbers(outputs: Tensor, targets: Tensor) -> Verdict:
    if targets.numel() == outputs.numel():
        outputs = outputs.reshape(targets.shape)
    else:
        outputs, targets = torch.broadcast_tensors(outputs, targets)
    rows = outputs.reshape(len(targets), -1)[:MOST_ANSWERS].double()
    wanted = targets.reshape(len(targets), -1)[:MOST_ANSWERS].double()
    spread = wanted - wanted.mean(dim=0)
    variance = float(spread.square().mean())
    if not variance > 0:
        return Verdict(error=math.nan, surprise=math.nan)
    squares = (rows - wanted).square().mean(dim=1)
    own = rows - rows.mean(dim=0)
    along = float((own * spread).mean())
    explained = along**2 / max(float(own.square().mean()) * variance, 1e-300) if along > 0 else 0.0
    return Verdict(
        error=float(squares.mean()) / variance,
        surprise=1 - min(explained, 1.0),
        doubt=float(squares.std()) / variance / math.sqrt(len(squares))
        if len(squares) > 1
        else 0.0,
        each=squares / variance,
    )
