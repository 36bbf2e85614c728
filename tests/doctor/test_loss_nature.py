"""Tests of what a loss is, asked of every usual one, and of what the asking leaves behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.loss_nature import LossNature, ask_loss

LABELS = torch.arange(64) % 5
LOGITS_5 = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
BINARY = (torch.arange(64 * 6).reshape(64, 6) % 3 == 0).float()
LOGITS_6 = torch.randn(64, 6, generator=torch.Generator().manual_seed(2))
NUMBERS = torch.randn(64, 6, generator=torch.Generator().manual_seed(3))


def focal(outputs: Tensor, targets: Tensor) -> Tensor:
    cross = functional.cross_entropy(outputs, targets, reduction="none")
    return ((1 - torch.exp(-cross)) ** 2 * cross).mean()


def smooth(labels: Tensor) -> Tensor:
    return functional.one_hot(labels, 5).float() * 0.9 + 0.02


CROSS_ENTROPIES: dict[str, tuple[Any, Any]] = {
    "plain": (nn.CrossEntropyLoss(), LABELS),
    "function": (functional.cross_entropy, LABELS),
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.2), LABELS),
    "class weights": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9, 1, 3, 0.1])), LABELS),
    "soft targets": (nn.CrossEntropyLoss(), smooth(LABELS)),
    "ignored": (nn.CrossEntropyLoss(), LABELS.where(LABELS > 0, torch.tensor(-100))),
    "ignored 3": (nn.CrossEntropyLoss(ignore_index=3), LABELS),
    "own": (lambda o, t: (o.logsumexp(1) - o.gather(1, t[:, None])[:, 0]).mean(), LABELS),
    "log softmax inside": (lambda o, t: functional.nll_loss(o.log_softmax(1), t), LABELS),
}


@pytest.mark.parametrize("kind", CROSS_ENTROPIES)
def test_a_cross_entropy_is_known_by_its_answers(kind: str) -> None:
    loss, targets = CROSS_ENTROPIES[kind]
    nature = ask_loss(loss, LOGITS_5, targets)
    assert (nature.kind, nature.classes, nature.class_axis) == ("cross_entropy", 5, 1)
    assert nature.at_start == pytest.approx(math.log(5))
    assert not nature.sums
    assert nature.extremes_finite
    assert nature.over_classes


SUMS: dict[str, tuple[Any, Tensor, Tensor, str]] = {
    "cross entropy": (nn.CrossEntropyLoss(reduction="sum"), LOGITS_5, LABELS, "cross_entropy"),
    "with some ignored": (
        nn.CrossEntropyLoss(reduction="sum"),
        LOGITS_5,
        LABELS.where(LABELS > 0, torch.tensor(-100)),
        "cross_entropy",
    ),
    "nll": (nn.NLLLoss(reduction="sum"), LOGITS_5.log_softmax(1), LABELS, "nll"),
    "binary": (nn.BCEWithLogitsLoss(reduction="sum"), LOGITS_6, BINARY, "binary_logits"),
    "squared": (nn.MSELoss(reduction="sum"), LOGITS_6, NUMBERS, "squared"),
    "absolute": (nn.L1Loss(reduction="sum"), LOGITS_6, NUMBERS, "absolute"),
}


@pytest.mark.parametrize("kind", SUMS)
def test_a_loss_that_adds_up_is_told_from_a_mean(kind: str) -> None:
    loss, outputs, targets, expected = SUMS[kind]
    nature = ask_loss(loss, outputs, targets)
    assert (nature.kind, nature.sums) == (expected, True)
    assert not ask_loss(type(loss)(), outputs, targets).sums


def test_a_mean_over_the_examples_of_sums_over_the_outputs_is_no_sum() -> None:
    nature = ask_loss(lambda o, t: ((o - t) ** 2).sum(dim=1).mean(), LOGITS_6, NUMBERS)
    assert (nature.kind, nature.sums) == ("squared", False)


def test_a_language_models_loss_that_flattens_is_a_cross_entropy() -> None:
    outputs, targets = torch.randn(4, 7, 30), torch.randint(0, 30, (4, 7))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    nature = ask_loss(loss, outputs, targets)
    assert (nature.kind, nature.classes, nature.class_axis) == ("cross_entropy", 30, 2)


def test_the_pixels_of_a_picture_have_their_classes_on_axis_1() -> None:
    outputs, targets = torch.randn(2, 4, 6, 6), torch.randint(0, 4, (2, 6, 6))
    nature = ask_loss(nn.CrossEntropyLoss(), outputs, targets)
    assert (nature.kind, nature.classes, nature.class_axis) == ("cross_entropy", 4, 1)
    assert nature.at_start == pytest.approx(math.log(4))


def test_log_probabilities_are_told_from_logits() -> None:
    nature = ask_loss(nn.NLLLoss(), LOGITS_5.log_softmax(1), LABELS)
    assert (nature.kind, nature.classes) == ("nll", 5)
    assert nature.at_start == pytest.approx(math.log(5))


@pytest.mark.parametrize("floor", [1e-8, 1e-4])
def test_a_loss_that_takes_the_logarithm_of_probabilities(floor: float) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return -torch.log(outputs.gather(1, targets[:, None]) + floor).mean()

    nature = ask_loss(loss, LOGITS_5.softmax(1), LABELS)
    assert (nature.kind, nature.classes) == ("log_of_probabilities", 5)


BINARIES: dict[str, tuple[Any, Tensor]] = {
    "plain": (nn.BCEWithLogitsLoss(), BINARY),
    "as many of each": (nn.BCEWithLogitsLoss(), (torch.arange(384) % 2).reshape(64, 6).float()),
    "all positive": (nn.BCEWithLogitsLoss(), torch.ones(64, 6)),
    "weighted positives": (nn.BCEWithLogitsLoss(pos_weight=torch.full((6,), 7.0)), BINARY),
    "weighted labels": (nn.BCEWithLogitsLoss(weight=torch.arange(1.0, 7.0)), BINARY),
    "soft": (nn.BCEWithLogitsLoss(), BINARY * 0.8 + 0.1),
    "own": (lambda o, t: (functional.softplus(o) - o * t).mean(), BINARY),
    "soft margin": (nn.MultiLabelSoftMarginLoss(), BINARY),
}


@pytest.mark.parametrize("kind", BINARIES)
def test_a_binary_loss_of_logits_is_known_whatever_it_weighs(kind: str) -> None:
    loss, targets = BINARIES[kind]
    nature = ask_loss(loss, LOGITS_6, targets)
    assert nature.kind == "binary_logits"
    assert nature.at_start == pytest.approx(float(loss(torch.zeros(64, 6), targets)))
    assert nature.extremes_finite
    probabilities = LOGITS_6.sigmoid()
    plain = ask_loss(
        lambda o, t: loss(torch.logit(o.clamp(1e-6, 1 - 1e-6)), t), probabilities, targets
    )
    assert plain.kind == "binary_probabilities"


def test_torchs_loss_of_probabilities_is_known_with_as_many_of_each() -> None:
    balanced = (torch.arange(384) % 2).reshape(64, 6).float()
    for targets in (BINARY, balanced):
        nature = ask_loss(nn.BCELoss(), LOGITS_6.sigmoid(), targets)
        assert nature.kind == "binary_probabilities"
        assert nature.at_start == pytest.approx(math.log(2), rel=1e-5)
        assert nature.extremes_finite


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (nn.MSELoss(), "squared"),
        (nn.L1Loss(), "absolute"),
        (lambda o, t: 3 * ((o - t) ** 2).mean(), "squared"),
        (lambda o, t: torch.sqrt(functional.mse_loss(o, t)), "absolute"),
    ],
)
def test_a_distance_is_known_by_how_it_grows(loss: Callable[..., Tensor], kind: str) -> None:
    nature = ask_loss(loss, LOGITS_6, NUMBERS)
    assert nature.kind == kind
    assert nature.at_start is None, "nobody knows the scale of the targets"


def test_the_kink_of_a_root_has_no_gradient_and_that_of_the_absolute_error_has() -> None:
    root = ask_loss(lambda o, t: torch.sqrt(functional.mse_loss(o, t)), LOGITS_6, NUMBERS)
    assert root.kink_finite is False
    assert ask_loss(nn.L1Loss(), LOGITS_6, NUMBERS).kink_finite is True
    assert ask_loss(nn.MSELoss(), LOGITS_6, NUMBERS).kink_finite is True


def test_squares_of_labels_of_0_and_1_are_no_binary_cross_entropy() -> None:
    assert ask_loss(nn.MSELoss(), LOGITS_6, BINARY).kind == "squared"
    assert ask_loss(nn.L1Loss(), LOGITS_6, BINARY).kind == "absolute"


def dice(outputs: Tensor, targets: Tensor) -> Tensor:
    p = outputs.sigmoid()
    return 1 - 2 * (p * targets).sum() / (p.sum() + targets.sum())


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (focal, LOGITS_5, LABELS),
        (nn.MultiMarginLoss(), LOGITS_5, LABELS),
        (dice, LOGITS_6, BINARY),
        (nn.HuberLoss(delta=0.3), LOGITS_6, NUMBERS),
        (nn.KLDivLoss(reduction="batchmean"), LOGITS_5.log_softmax(1), smooth(LABELS)),
        (lambda o, t: o.mean(), LOGITS_5, LABELS),
        (lambda o, t: o.mean() * 0, LOGITS_5, LABELS),
    ],
    ids=["focal", "margin", "dice", "huber", "divergence", "the mean", "nothing"],
)
def test_what_has_no_signature_is_another_loss(
    loss: Callable[..., Tensor], outputs: Tensor, targets: Tensor
) -> None:
    nature = ask_loss(loss, outputs, targets)
    assert nature.kind == "other"
    assert nature.at_start is None


def test_one_output_is_no_class_unless_the_loss_never_changes() -> None:
    zeros = torch.zeros(64, dtype=torch.long)
    one = torch.randn(64, 1)
    assert ask_loss(nn.CrossEntropyLoss(), one, zeros) == LossNature(
        kind="cross_entropy", classes=1, class_axis=1, at_start=0.0, extremes_finite=True
    )
    assert ask_loss(nn.MSELoss(), one, torch.randn(64, 1)).kind == "squared"


def test_an_unstable_loss_is_told_from_a_stable_one() -> None:
    def unstable(outputs: Tensor, targets: Tensor) -> Tensor:
        e = outputs.exp()
        return -(e / e.sum(1, keepdim=True)).log().gather(1, targets[:, None]).mean()

    nature = ask_loss(unstable, LOGITS_5, LABELS)
    assert (nature.kind, nature.extremes_finite) == ("cross_entropy", False)
    naive = ask_loss(
        lambda o, t: -(t * o.log() + (1 - t) * (1 - o).log()).mean(), LOGITS_6.sigmoid(), BINARY
    )
    assert (naive.kind, naive.extremes_finite) == ("binary_probabilities", False)


def test_buffers_mode_and_streams_of_a_loss_are_left_as_found() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))
            self.mean = nn.BatchNorm1d(5)

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            self.seen += 1
            noise = torch.rand(()) * 0
            return functional.cross_entropy(self.mean(outputs) * 0 + outputs + noise, targets)

    loss, before = Counting(), torch.get_rng_state()
    assert ask_loss(loss, LOGITS_5, LABELS).kind == "cross_entropy"
    assert loss.seen == 0
    assert loss.mean.num_batches_tracked == 0
    assert torch.equal(loss.mean.running_mean, torch.zeros(5))
    assert loss.training
    assert torch.equal(before, torch.get_rng_state())


def test_a_loss_that_raises_whenever_it_likes_is_another_loss() -> None:
    def moody(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.abs().max() > 50:
            raise ValueError("too large for me")
        return functional.cross_entropy(outputs, targets)

    nature = ask_loss(moody, LOGITS_5, LABELS)
    assert nature.kind == "cross_entropy"
    assert nature.extremes_finite is False
    assert ask_loss(lambda o, t: 1 / 0, LOGITS_5, LABELS).kind == "other"


def test_a_large_batch_is_asked_by_its_first_rows_only() -> None:
    sizes = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        sizes.append(len(outputs))
        return functional.cross_entropy(outputs, targets)

    nature = ask_loss(loss, torch.randn(1000, 5), torch.arange(1000) % 5)
    assert nature.kind == "cross_entropy"
    assert max(sizes) <= 128


def test_targets_that_are_no_tensor_are_no_obstacle() -> None:
    def loss(outputs: Tensor, graph: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(outputs, graph["y"])

    assert ask_loss(loss, LOGITS_5, {"y": LABELS}).kind == "cross_entropy"


@pytest.mark.parametrize("seed", range(4))
def test_targets_of_a_million_leave_a_squared_error_squared(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(64, 1, generator=generator) * 3e5 + 1e6
    outputs = torch.randn(64, 1, generator=generator)
    assert ask_loss(functional.mse_loss, outputs, targets).kind == "squared"
    assert ask_loss(functional.l1_loss, outputs, targets).kind == "absolute"


def test_a_loss_that_refuses_float64_is_asked_with_steps_of_the_targets_spread() -> None:
    def narrow(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.dtype == torch.float64:
            raise TypeError("float32 only")
        return functional.mse_loss(outputs, targets)

    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(64, 1, generator=generator) * 3e5 + 1e6
    nature = ask_loss(narrow, torch.randn(64, 1, generator=generator), targets)
    assert nature.kind == "squared"
    assert nature.extremes_finite


def test_a_loss_knows_whether_it_broadcasts() -> None:
    column, table = torch.randn(64, 1), torch.randn(64, 6)
    squared = lambda o, t: ((o - t) ** 2).mean()  # noqa: E731  (a user's own, inline)
    for outputs, targets in ((column, table), (table, column), (column, column[:, 0])):
        nature = ask_loss(squared, outputs, targets)
        assert (nature.kind, nature.broadcasts) == ("squared", True)
    flat = lambda o, t: squared(o.flatten(), t)  # noqa: E731
    assert not ask_loss(flat, column, column[:, 0]).broadcasts
    assert not ask_loss(squared, table, table + 1).broadcasts


@pytest.mark.parametrize(
    ("loss", "inside"),
    [
        (functional.cross_entropy, False),
        (partial(functional.cross_entropy, reduction="sum"), False),
        (partial(functional.cross_entropy, label_smoothing=0.2), False),
        (partial(functional.cross_entropy, weight=torch.tensor([1.0, 1, 9, 1, 1])), False),
        (lambda o, y: functional.nll_loss(o.log_softmax(dim=1), y), False),
        (lambda o, y: functional.cross_entropy(o.softmax(dim=1), y), True),
        (lambda o, y: functional.cross_entropy(o.softmax(dim=1), y, reduction="sum"), True),
        (lambda o, y: functional.nll_loss(o.softmax(dim=1).log_softmax(dim=1), y), True),
    ],
)
def test_a_softmax_inside_a_cross_entropy_shows_in_what_wrong_answers_cost(
    loss: Any, inside: bool
) -> None:
    nature = ask_loss(loss, LOGITS_5, LABELS)
    assert (nature.kind, nature.softmax_inside) == ("cross_entropy", inside)
