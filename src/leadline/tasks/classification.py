"""Classification: one class per example; cross entropy, accuracy, confusion, calibration.

    loss = - sum_k q_k log softmax(z)_k,   q = (1 - s) target + s / K

with smoothing s (Szegedy et al. 2016, arXiv:1512.00567). The expected calibration error sorts the
answers into 15 equal bins of confidence, the highest softmax probability, and takes the mean
distance between confidence and accuracy, weighted by the answers in a bin (Naeini et al. 2015;
Guo et al. 2017, arXiv:1706.04599).

The surprising choice: no metric library. Importing torchmetrics takes as long as importing torch
and fails beside a torchvision that does not fit, and everything here follows from one table of
counts and one of bins, which it does not hand out. It is the oracle of the tests instead.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from torch.nn import functional

from leadline.core.config import check, in_range
from leadline.core.errors import DataError, NonFiniteError
from leadline.nn.auxiliary import WithAuxiliary

# Axis legend: B batch, N examples of a split, K classes. (A space before a single letter keeps
# formatters from taking the quotes off.)

AUXILIARY_WEIGHT = 0.3
"""What the loss of an auxiliary head counts beside the main one's (Szegedy et al. 2014)."""

CALIBRATION_BINS = 15
"""The number of confidence bins, as in Guo et al. 2017."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The answers whose confidence lies in (low, high]; the means are 0 where there are none."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassificationResult:
    """What an evaluation of a classifier found; all shares are in [0, 1].

    `loss` is the plain cross entropy in nats, without smoothing. `top5` is None with five classes
    or fewer, where it says nothing. `per_class[k]` is the share of the examples of class k that
    were named so, None where there are none. `confusion[i, j]` counts the examples of class i that
    were named j. `reliability` holds the bins behind `calibration_error`.
    """

    loss: float
    accuracy: float
    top5: float | None
    per_class: tuple[float | None, ...]
    calibration_error: float
    confusion: Int[Tensor, "K K"]
    reliability: tuple[ReliabilityBin, ...]

    def metrics(self) -> dict[str, float]:
        """The figures by name; `top5` only where there are more than five classes."""
        figures = {"loss": self.loss, "accuracy": self.accuracy}
        if self.top5 is not None:
            figures["top5"] = self.top5
        figures["calibration_error"] = self.calibration_error
        return figures


@dataclass(frozen=True)
class Classification:
    """One of `num_classes` classes for each example.

    `label_smoothing`, in [0, 1), moves that share of each target to all classes alike, in the loss
    only. `class_names` are in the order of the class numbers, or empty.

    >>> task = Classification(2)
    >>> logits = torch.tensor([[0.0, 0.0], [0.0, 100.0]])
    >>> round(task.loss(logits, torch.tensor([0, 1])).item(), 6)  # log(2) / 2
    0.346574
    >>> task.evaluate(logits, torch.tensor([1, 1])).accuracy
    0.5
    """

    main_metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    num_classes: int
    _: KW_ONLY
    label_smoothing: float = 0.0
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = None
        if self.class_names and len(self.class_names) != self.num_classes:
            names = f"class_names must be {self.num_classes}, received {len(self.class_names)}"
        check(
            self,
            in_range("num_classes", self.num_classes, 2),
            in_range("label_smoothing", self.label_smoothing, 0, 1, open_high=True),
            names,
        )

    @property
    def head_size(self) -> int:
        """One logit per class."""
        return self.num_classes

    def loss(
        self,
        outputs: Float[Tensor, "B K"] | WithAuxiliary,
        targets: Integer[Tensor, " B"] | Float[Tensor, "B K"],
    ) -> Float[Tensor, ""]:
        """The mean cross entropy in nats, of class numbers or of a distribution per example.

        Auxiliary heads add `AUXILIARY_WEIGHT` of theirs.
        """
        if isinstance(outputs, WithAuxiliary):
            extra = torch.stack([self.loss(logits, targets) for logits in outputs.auxiliary])
            return self.loss(outputs.logits, targets) + AUXILIARY_WEIGHT * extra.sum()
        if not targets.is_floating_point():
            targets = targets.long()
        return functional.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def check_targets(self, targets: Integer[Tensor, " N"]) -> None:
        """Raise a DataError when a target is not a class number; it names the first such one."""
        outside = (targets < 0) | (targets >= self.num_classes)
        if not bool(outside.any()):
            return
        first = int(outside.int().argmax())
        low, high = int(targets.min()), int(targets.max())
        raise DataError(
            expected=f"class numbers from 0 to {self.num_classes - 1}",
            received=f"numbers from {low} to {high}; {int(outside.sum())} of {len(targets)} lie "
            f"outside, the first is {int(targets[first])} at index {first}",
            remedy="number the classes from 0 without gaps, or give num_classes="
            f"{high + 1} if they are that many",
        )

    @torch.no_grad()
    def evaluate(
        self, outputs: Float[Tensor, "N K"], targets: Integer[Tensor, " N"]
    ) -> ClassificationResult:
        """Judge the logits of a whole split; the loss is that of the plain targets.

        No examples, or targets out of range, are a DataError; logits with NaN a NonFiniteError.
        """
        self._check_outputs(outputs, targets)
        targets = targets.long()
        log_probabilities = outputs.float().log_softmax(dim=1)
        bad = log_probabilities.isnan().any(dim=1)
        if bool(bad.any()):
            raise NonFiniteError(
                expected="logits that are finite",
                received=f"NaN or infinity for {int(bad.sum())} of {len(bad)} examples, the first "
                f"at index {int(bad.int().argmax())}",
                remedy="look at these inputs and at the weights for values that are not finite",
            )
        losses = -log_probabilities.gather(1, targets[:, None])
        confidence, answers = log_probabilities.exp().max(dim=1)
        right = answers == targets
        cells = targets * self.num_classes + answers
        confusion = cells.bincount(minlength=self.num_classes**2)
        confusion = confusion.view(self.num_classes, self.num_classes).cpu()
        bins = _reliability(confidence, right)
        return ClassificationResult(
            loss=losses.double().mean().item(),
            accuracy=right.double().mean().item(),
            top5=_top5(log_probabilities, targets) if self.num_classes > 5 else None,
            per_class=_per_class(confusion),
            calibration_error=sum(b.count * abs(b.accuracy - b.confidence) for b in bins)
            / len(targets),
            confusion=confusion,
            reliability=bins,
        )

    def _check_outputs(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.shape != (len(targets), self.num_classes) or len(targets) == 0:
            raise DataError(
                expected=f"logits of shape [N, {self.num_classes}] and N targets, N at least 1",
                received=f"{list(outputs.shape)} and {len(targets)} targets",
                remedy="evaluate a split that has examples with a model that has one output per "
                "class",
            )
        self.check_targets(targets)


def _top5(log_probabilities: Tensor, targets: Tensor) -> float:
    likeliest = log_probabilities.topk(5, dim=1).indices
    return (likeliest == targets[:, None]).any(dim=1).double().mean().item()


def _per_class(confusion: Tensor) -> tuple[float | None, ...]:
    right, totals = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    return tuple(r / n if n else None for r, n in zip(right, totals, strict=True))


def _reliability(confidence: Tensor, right: Tensor) -> tuple[ReliabilityBin, ...]:
    size = CALIBRATION_BINS
    index = (confidence * size).ceil().long().sub(1).clamp(0, size - 1)
    counts = index.bincount(minlength=size).tolist()
    sure = index.bincount(weights=confidence.double(), minlength=size).tolist()
    correct = index.bincount(weights=right.double(), minlength=size).tolist()
    return tuple(
        ReliabilityBin(
            low=i / size,
            high=(i + 1) / size,
            confidence=sure[i] / max(1, counts[i]),
            accuracy=correct[i] / max(1, counts[i]),
            count=counts[i],
        )
        for i in range(size)
    )
