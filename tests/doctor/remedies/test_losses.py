"""Tests of the remedies of the loss: value and gradient are those of the code mended by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.problem import Problem
from leadline.doctor.remedies.losses import (
    FittingLoss,
    Outputs,
    ThroughOutputs,
    fitting_loss,
    mean_instead_of_sum,
    on_logits_of_probabilities,
    other_sign,
    targets_like_outputs,
    without_penalty,
    without_softmax,
)
from leadline.training.setup import Setup

CLASSES = Problem(kind="classes", classes=3)
LABELS = Problem(kind="labels", classes=1)
NUMBERS = Problem(kind="numbers")


def same_gradient(
    loss: Callable[[Tensor, Any], Tensor],
    by_hand: Callable[[Tensor], Tensor],
    outputs: Tensor,
    targets: Any,
) -> None:
    """Value and gradient with respect to the outputs are those of the loss written by hand."""
    mine, its = (outputs.detach().clone().requires_grad_() for _ in range(2))
    value, expected = loss(mine, targets), by_hand(its)
    torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(value, mine)
    (wanted,) = torch.autograd.grad(expected, its)
    torch.testing.assert_close(gradient, wanted)


# --------------------------------------------------------------------------------- the fitting loss


def test_classes_get_the_cross_entropy_of_their_logits() -> None:
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, -100])
    loss = FittingLoss(problem=CLASSES, outputs="logits")
    same_gradient(loss, lambda o: functional.cross_entropy(o, targets), outputs, targets)


def test_classes_on_the_last_axis_get_it_too() -> None:
    outputs, targets = torch.randn(4, 7, 3), torch.randint(0, 3, (4, 7))
    loss = FittingLoss(problem=replace(CLASSES, axis=2), outputs="logits")
    same_gradient(
        loss,
        lambda o: functional.cross_entropy(o.reshape(-1, 3), targets.reshape(-1)),
        outputs,
        targets,
    )


@pytest.mark.parametrize("hot", [True, False])
def test_rows_of_probabilities_are_targets_too(hot: bool) -> None:
    outputs = torch.randn(6, 3)
    rows = torch.eye(3).repeat(2, 1) if hot else torch.randn(6, 3).softmax(dim=1)
    targets = rows.long() if hot else rows
    loss = FittingLoss(problem=replace(CLASSES, one_hot=hot, soft=not hot), outputs="logits")
    same_gradient(loss, lambda o: -(rows * o.log_softmax(1)).sum(1).mean(), outputs, targets)


def test_probabilities_get_the_negative_log_of_the_right_one() -> None:
    """ln p is a logit whose softmax is p again, so the value is - ln p, its gradient one-sided."""
    outputs, targets = torch.randn(6, 3).softmax(1), torch.tensor([0, 1, 2, 2, 1, 0])
    loss = FittingLoss(problem=CLASSES, outputs="probabilities")
    same_gradient(
        loss,
        lambda o: (o.sum(1).log() - o[range(6), targets].log()).mean(),
        outputs,
        targets,
    )


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 4)])
def test_yes_or_no_gets_the_binary_cross_entropy(shape: tuple[int, ...]) -> None:
    outputs, targets = torch.randn(shape), torch.randint(0, 2, shape)
    wanted = targets.float()
    same_gradient(
        FittingLoss(problem=LABELS, outputs="logits"),
        lambda o: functional.binary_cross_entropy_with_logits(o, wanted),
        outputs,
        targets,
    )
    same_gradient(
        FittingLoss(problem=LABELS, outputs="probabilities"),
        lambda o: functional.binary_cross_entropy(o, wanted),
        outputs.sigmoid(),
        targets,
    )


def test_targets_without_the_last_axis_of_one_are_given_it() -> None:
    outputs, targets = torch.randn(6, 1), torch.randint(0, 2, (6,))
    wanted = targets[:, None].float()
    for problem, by_hand in (
        (LABELS, functional.binary_cross_entropy_with_logits),
        (NUMBERS, functional.mse_loss),
    ):
        loss = FittingLoss(problem=problem, outputs="logits")
        same_gradient(loss, lambda o, by_hand=by_hand: by_hand(o, wanted), outputs, targets)  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_probabilities_of_exactly_0_and_1_give_a_finite_loss_and_gradient(kind: Any) -> None:
    problem = Problem(kind=kind, classes=2)
    outputs = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    targets = torch.tensor([1, 0]) if kind == "classes" else torch.tensor([[0.0, 1], [1, 0]])
    loss = FittingLoss(problem=problem, outputs="probabilities")(outputs, targets)
    loss.backward()
    assert math.isfinite(loss.item()) and bool(torch.isfinite(outputs.grad).all())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "outputs", "code"),
    [
        ("classes", "logits", "nn.CrossEntropyLoss()"),
        ("classes", "probabilities", "nn.NLLLoss() of outputs.log()"),
        ("labels", "logits", "nn.BCEWithLogitsLoss()"),
        ("labels", "probabilities", "nn.BCELoss()"),
        ("numbers", "logits", "nn.MSELoss()"),
    ],
)
def test_the_remedy_names_the_loss_and_puts_it_in_place(
    make_setup: Any, kind: Any, outputs: Outputs, code: str
) -> None:
    remedy = fitting_loss(Problem(kind=kind, classes=2), outputs)
    assert code in remedy.title and code in remedy.diff
    assert isinstance(remedy(make_setup()).loss, FittingLoss)


def test_the_code_it_names_computes_the_same() -> None:
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    logits = FittingLoss(problem=CLASSES, outputs="logits")
    assert logits.code == "nn.CrossEntropyLoss()"
    torch.testing.assert_close(logits(outputs, targets), nn.CrossEntropyLoss()(outputs, targets))
    shares = FittingLoss(problem=CLASSES, outputs="probabilities")
    written = nn.NLLLoss()(outputs.softmax(1).log(), targets)
    torch.testing.assert_close(shares(outputs.softmax(1), targets), written)


# --------------------------------------------------------------------- the logits of probabilities


def test_a_softmax_before_a_cross_entropy_is_undone(make_setup: Any, alike: Any) -> None:
    """The gradients of the weights are those of the network without the softmax."""
    setup = make_setup()
    sick = replace(setup, model=lambda: nn.Sequential(*setup.model(), nn.Softmax(dim=1)))
    mended = on_logits_of_probabilities("softmax")(sick)
    by_hand = replace(
        sick,
        loss=lambda o, t: functional.nll_loss(o.log(), t),
    )
    alike(mended, by_hand)
    logits, expected = setup.model(), nn.CrossEntropyLoss()
    shares = nn.Sequential(*logits, nn.Softmax(dim=1))
    inputs, targets = setup.batches[0]
    value = mended.loss(shares(inputs), targets)
    torch.testing.assert_close(value, expected(logits(inputs), targets))
    mine = torch.autograd.grad(value, list(logits.parameters()))
    its = torch.autograd.grad(expected(logits(inputs), targets), list(logits.parameters()))
    for gradient, wanted in zip(mine, its, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


def test_a_sigmoid_before_a_loss_of_logits_is_undone() -> None:
    logits = torch.linspace(-8, 8, 17, requires_grad=True)
    targets = (torch.arange(17) % 2).float()
    remedy = on_logits_of_probabilities("sigmoid")
    assert remedy.lines == ("- return sigmoid(logits)", "+ return logits")
    expected = functional.binary_cross_entropy_with_logits(logits, targets)
    (wanted,) = torch.autograd.grad(expected, logits)

    setup = Setup(
        model=nn.Sigmoid,
        batches=[],
        loss=nn.BCEWithLogitsLoss(),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    value = remedy(setup).loss(logits.sigmoid(), targets)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5)


# -------------------------------------------------------------------------- means, signs and shapes


def test_a_sum_over_class_numbers_becomes_their_mean(make_setup: Any, alike: Any) -> None:
    remedy = mean_instead_of_sum(8)
    mended = remedy(make_setup(loss=nn.CrossEntropyLoss(reduction="sum")))
    alike(mended, replace(mended, loss=nn.CrossEntropyLoss()))
    assert "8" in remedy.diff


def test_a_sum_over_sequences_of_class_numbers_becomes_the_mean_of_all() -> None:
    outputs, targets = torch.randn(4, 3, 7), torch.randint(0, 3, (4, 7))
    setup = Setup(
        model=nn.Identity,
        batches=[],
        loss=nn.CrossEntropyLoss(reduction="sum"),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    mended = mean_instead_of_sum(4)(setup).loss
    same_gradient(mended, lambda o: functional.cross_entropy(o, targets), outputs, targets)


def test_a_sum_of_squares_becomes_the_mean_over_the_examples(make_setup: Any) -> None:
    outputs, targets = torch.randn(6, 2), torch.randn(6, 2)
    mended = mean_instead_of_sum(6)(make_setup(loss=nn.MSELoss(reduction="sum"))).loss
    same_gradient(mended, lambda o: (o - targets).square().sum(1).mean(), outputs, targets)


def test_the_other_sign_descends_what_was_climbed(make_setup: Any, alike: Any) -> None:
    cross_entropy = nn.CrossEntropyLoss()
    sick = make_setup(loss=lambda o, t: -cross_entropy(o, t))
    alike(other_sign()(sick), replace(sick, loss=cross_entropy))


def test_targets_get_the_outputs_shape() -> None:
    outputs, targets = torch.randn(6, 1), torch.randn(6)
    setup = Setup(
        model=nn.Identity,
        batches=[],
        loss=lambda o, t: (o - t).square().mean(),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    mended = targets_like_outputs()(setup).loss
    same_gradient(mended, lambda o: functional.mse_loss(o[:, 0], targets), outputs, targets)
    assert not torch.isclose(setup.loss(outputs, targets), mended(outputs, targets))


# ------------------------------------------------------------------------------------- the penalty


def test_without_its_penalty_a_loss_has_the_gradient_of_the_outputs_alone() -> None:
    model, inputs = nn.Linear(4, 1), torch.randn(6, 4)
    targets = torch.randn(6, 1)

    def loss(outputs: Tensor, wanted: Tensor) -> Tensor:
        return functional.mse_loss(outputs, wanted) + 100 * model.weight.square().sum()

    value = ThroughOutputs(loss)(model(inputs), targets)
    mine = torch.autograd.grad(value, list(model.parameters()))
    its = torch.autograd.grad(functional.mse_loss(model(inputs), targets), list(model.parameters()))
    for gradient, wanted in zip(mine, its, strict=True):
        torch.testing.assert_close(gradient, wanted)
    torch.testing.assert_close(value, loss(model(inputs), targets))


def test_without_a_graph_its_value_is_told_and_no_more() -> None:
    outputs, targets = torch.randn(6, 1), torch.randn(6, 1)
    value = ThroughOutputs(functional.mse_loss)(outputs, targets)
    assert not value.requires_grad
    torch.testing.assert_close(value, functional.mse_loss(outputs, targets))


def test_the_remedy_trains_as_the_loss_without_the_penalty(make_setup: Any, alike: Any) -> None:
    held: list[nn.Module] = []
    plain = make_setup()

    def build() -> nn.Module:
        held.append(plain.model())
        return held[-1]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        size = sum(p.square().sum() for p in held[-1].parameters())
        return functional.cross_entropy(outputs, targets) + 3 * size - 3 * size.detach()  # type: ignore[union-attr]

    alike(without_penalty()(replace(plain, model=build, loss=loss)), plain)


# ---------------------------------------------------------------------- the softmax inside the loss


@pytest.mark.parametrize(
    "softmax",
    [
        lambda x: x.softmax(dim=1),
        lambda x: torch.softmax(x, dim=1),
        lambda x: torch.softmax(input=x, dim=1),
        lambda x: functional.softmax(x, dim=1),
        nn.Softmax(dim=1),
    ],
)
def test_a_loss_without_its_softmax_is_that_of_the_logits(softmax: Any) -> None:
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, -100])

    def twice(x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(softmax(x), y)

    setup = Setup(
        model=lambda: nn.Linear(2, 3),
        batches=[(torch.randn(6, 2), targets)],
        loss=twice,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    mended = without_softmax()(setup).loss
    same_gradient(mended, lambda o: functional.cross_entropy(o, targets), outputs, targets)
    assert functional.softmax(outputs, dim=1).sum().item() == pytest.approx(6)
