"""Tests of the yardstick: what is to be learned, and every figure against scikit-learn's."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    log_loss,
    r2_score,
    roc_auc_score,
    zero_one_loss,
)
from torch import Tensor
from torch.nn import functional

from leadline.doctor.loss_nature import ask_loss
from leadline.doctor.problem import (
    MOST_ANSWERS,
    TEMPERATURES,
    Problem,
    judge,
    read_problem,
)

THREE = Problem(kind="classes", classes=3)
YES_NO = Problem(kind="labels", classes=1)
NUMBERS = Problem(kind="numbers")


@pytest.fixture
def scored() -> tuple[Tensor, Tensor]:
    """300 answers to a question of three classes, of which most are right; class 2 is rare."""
    wanted = torch.multinomial(torch.tensor([0.6, 0.35, 0.05]), 300, replacement=True)
    return torch.randn(300, 3) + 1.5 * functional.one_hot(wanted, 3), wanted


# --------------------------------------------------------------------------- what is to be learned


@pytest.mark.parametrize(
    ("outputs", "targets", "kind", "classes"),
    [
        (torch.zeros(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), "classes", 3),
        (torch.zeros(6, 3), torch.eye(3).repeat(2, 1), "classes", 3),
        (torch.zeros(6, 3), torch.eye(3).repeat(2, 1).long(), "classes", 3),
        (torch.zeros(6, 3), torch.full((6, 3), 1 / 3), "classes", 3),
        (torch.zeros(2, 5, 7), torch.ones(2, 7, dtype=torch.long), "classes", 5),
        (torch.zeros(2, 3, 4, 4), torch.ones(2, 4, 4, dtype=torch.long), "classes", 3),
        (torch.zeros(6, 1), torch.tensor([0.0, 1, 1, 0, 1, 0])[:, None], "labels", 1),
        (torch.zeros(6, 1), torch.tensor([0, 1, 1, 0, 1, 0]), "labels", 1),
        (torch.zeros(6), torch.tensor([True, False] * 3), "labels", 1),
        (torch.zeros(2, 3), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), "labels", 3),
        (torch.zeros(6, 1), torch.randn(6, 1), "numbers", 0),
        (torch.zeros(6, 1), torch.arange(6), "numbers", 0),
        (torch.zeros(6, 4), torch.randn(6, 4), "numbers", 0),
        (torch.zeros(6, 1, 8, 8), torch.randn(6, 1, 8, 8), "numbers", 0),
        (torch.zeros(6, 4), torch.randn(6, 2, 2, 3), "unknown", 0),
        (torch.zeros(6, 3), torch.randn(6, 3, dtype=torch.cfloat), "unknown", 0),
        (torch.zeros(6, 3), {"y": torch.zeros(6)}, "unknown", 0),
        (torch.zeros(6, 3), torch.zeros(0, 3), "unknown", 0),
        (torch.tensor(0.0), torch.zeros(6), "unknown", 0),
    ],
)
def test_outputs_and_targets_say_what_is_to_be_learned(
    outputs: Tensor, targets: Any, kind: str, classes: int
) -> None:
    found = read_problem(outputs, targets, None)
    assert (found.kind, found.classes) == (kind, classes)


def test_rows_with_a_single_one_and_rows_of_probabilities_are_told_apart() -> None:
    hot = read_problem(torch.zeros(6, 3), torch.eye(3).repeat(2, 1), None)
    soft = read_problem(torch.zeros(6, 3), torch.randn(6, 3).softmax(dim=1), None)
    assert (hot.one_hot, hot.soft) == (True, False)
    assert (soft.one_hot, soft.soft) == (False, True)


def test_the_axis_of_the_classes_is_the_one_the_loss_uses() -> None:
    """[B, T, T] outputs fit both axes: only the loss tells."""
    outputs, targets = torch.randn(4, 6, 6), torch.randint(0, 6, (4, 6))
    last = ask_loss(
        lambda o, t: functional.cross_entropy(o.flatten(0, 1), t.flatten()), outputs, targets
    )
    second = ask_loss(functional.cross_entropy, outputs, targets)
    assert read_problem(outputs, targets, last).axis == 2
    assert read_problem(outputs, targets, second).axis == 1


def test_filler_among_zeros_and_ones_does_not_count() -> None:
    wanted = (torch.rand(60) < 0.4).float()
    filled = torch.cat([wanted, torch.full((20,), -1.0)])[:, None]
    scores = torch.randn(80, 1)
    assert read_problem(scores, filled, None) == YES_NO
    assert judge(scores, filled, YES_NO) == judge(scores[:60], wanted[:, None], YES_NO)


@pytest.mark.parametrize("values", [(-1.0, 1.0), (-1.0, 0.0, 1.0)])
def test_answers_of_minus_1_under_a_squared_error_are_numbers(values: tuple[float, ...]) -> None:
    targets = torch.tensor(values).repeat(8)[:, None]
    nature = ask_loss(functional.mse_loss, torch.randn_like(targets), targets)
    assert nature.kind == "squared"
    assert read_problem(torch.zeros_like(targets), targets, nature) == NUMBERS


def test_answers_of_minus_1_and_1_alone_are_no_filler() -> None:
    targets = torch.tensor([-1.0, 1.0] * 8)[:, None]
    assert read_problem(torch.zeros_like(targets), targets, None) == NUMBERS


def test_text_has_its_classes_last_without_a_loss_to_ask() -> None:
    found = read_problem(torch.zeros(4, 6, 50), torch.ones(4, 6, dtype=torch.long), None)
    assert (found.kind, found.axis, found.classes) == ("classes", 2, 50)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (THREE, "one of 3 classes"),
        (YES_NO, "yes or no"),
        (Problem(kind="labels", classes=4), "4 yes-or-no answers"),
        (NUMBERS, "numbers"),
        (Problem(kind="unknown"), "a problem of no known kind"),
    ],
)
def test_a_problem_is_said_in_words(problem: Problem, said: str) -> None:
    assert str(problem) == said
    assert "over" in problem.measured


# ----------------------------------------------------------------------------------- the classes


def test_the_error_of_classes_is_the_wrong_ones_over_those_of_the_commonest_class(
    scored: Any,
) -> None:
    outputs, wanted = scored
    constant = torch.full_like(wanted, wanted.bincount().argmax())
    expected = zero_one_loss(wanted, outputs.argmax(1)) / zero_one_loss(wanted, constant)
    assert judge(outputs, wanted, THREE).error == pytest.approx(expected, abs=1e-6)


def test_the_balanced_error_is_that_of_scikit_learn_over_chance(scored: Any) -> None:
    outputs, wanted = scored
    kept = balanced_accuracy_score(wanted, outputs.argmax(1), adjusted=True)
    assert judge(outputs, wanted, THREE).balanced == pytest.approx(1 - kept, abs=1e-6)


def test_a_class_that_never_comes_is_left_out_of_the_balance(scored: Any) -> None:
    outputs, wanted = scored
    wider = torch.cat([outputs, torch.full((300, 1), -50.0)], dim=1)
    four = Problem(kind="classes", classes=4)
    assert judge(wider, wanted, four).balanced == pytest.approx(
        judge(outputs, wanted, THREE).balanced
    )


def test_the_surprise_is_the_log_loss_at_the_best_temperature_over_the_entropy(
    scored: Any,
) -> None:
    """Within the grid's factor of 2 of the best temperature; never below the true optimum."""
    outputs, wanted = scored
    shares = wanted.bincount().double() / len(wanted)
    entropy = float(-(shares * shares.log()).sum())

    def at(log_factor: float) -> float:
        rows = (outputs.double() * math.exp(log_factor)).softmax(dim=1)
        return float(log_loss(wanted, rows))

    best = min(at(x) for x in torch.linspace(-5, 5, 101).tolist())
    surprise = judge(outputs, wanted, THREE).surprise
    assert best / entropy <= surprise + 1e-6
    assert surprise == pytest.approx(best / entropy, rel=0.05)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_neither_figure_of_classes_depends_on_the_scale_of_the_logits(
    scored: Any, scale: float
) -> None:
    outputs, wanted = scored
    plain, scaled = judge(outputs, wanted, THREE), judge(outputs * scale, wanted, THREE)
    assert (scaled.error, scaled.balanced) == (plain.error, plain.balanced)
    assert scaled.surprise == pytest.approx(plain.surprise, rel=1e-4)


def test_probabilities_are_judged_as_their_logits_are(scored: Any) -> None:
    outputs, wanted = scored
    logits, shares = judge(outputs, wanted, THREE), judge(outputs.softmax(1), wanted, THREE)
    assert shares.error == logits.error
    assert shares.surprise == pytest.approx(logits.surprise, rel=0.05)


def test_a_model_that_knows_nothing_has_the_figures_1() -> None:
    wanted = torch.tensor([0, 1, 2] * 20)
    verdict = judge(torch.zeros(60, 3), wanted, THREE)
    assert verdict.error == pytest.approx(1.0)
    assert verdict.surprise == pytest.approx(1.0, abs=1e-6)
    assert verdict.balanced == pytest.approx(1.0)


def test_one_hot_targets_are_judged_as_class_numbers_are(scored: Any) -> None:
    outputs, wanted = scored
    hot = Problem(kind="classes", classes=3, one_hot=True)
    rows = functional.one_hot(wanted, 3).float()
    assert judge(outputs, rows, hot) == judge(outputs, wanted, THREE)


def test_ignored_labels_do_not_count(scored: Any) -> None:
    outputs, wanted = scored
    more = torch.cat([outputs, torch.randn(50, 3)])
    ignored = torch.cat([wanted, torch.full((50,), -100)])
    assert judge(more, ignored, THREE) == judge(outputs, wanted, THREE)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_the_classes_may_stand_on_any_axis(axis: int) -> None:
    outputs, wanted = torch.randn(8, 5, 5, 3), torch.randint(0, 3, (8, 5, 5))
    moved = Problem(kind="classes", classes=3, axis=axis)
    expected = judge(outputs.reshape(-1, 3), wanted.reshape(-1), THREE)
    assert judge(outputs.movedim(-1, axis), wanted, moved) == expected


def test_the_doubt_is_the_standard_error_of_the_error() -> None:
    """By drawing: the spread of the error over many samples of 400 answers, 30 % of them wrong."""
    errors, doubts = [], []
    for _ in range(300):
        wanted = torch.arange(400) % 4
        right = torch.rand(400) > 0.3
        answers = functional.one_hot(torch.where(right, wanted, (wanted + 1) % 4), 4).float()
        verdict = judge(answers, wanted, Problem(kind="classes", classes=4))
        errors.append(verdict.error)
        doubts.append(verdict.doubt)
    assert statistics.mean(doubts) == pytest.approx(statistics.stdev(errors), rel=0.15)


def test_targets_of_a_single_class_cannot_be_judged() -> None:
    verdict = judge(torch.randn(8, 3), torch.zeros(8, dtype=torch.long), THREE)
    assert math.isnan(verdict.error) and math.isnan(verdict.surprise)


def test_targets_that_are_all_ignored_cannot_be_judged() -> None:
    assert math.isnan(judge(torch.randn(8, 3), torch.full((8,), -100), THREE).error)


# ------------------------------------------------------------------------------------ yes or no


def test_the_surprise_of_yes_or_no_is_twice_what_the_roc_area_lacks() -> None:
    wanted = (torch.rand(400) < 0.3).float()
    scores = (torch.randn(400) + wanted).mul(4).round()  # with ties
    expected = 2 * (1 - roc_auc_score(wanted, scores))
    assert judge(scores[:, None], wanted[:, None], YES_NO).surprise == pytest.approx(expected)


def test_several_answers_are_judged_by_the_mean_of_their_areas() -> None:
    wanted = (torch.rand(300, 4) < 0.4).float()
    scores = torch.randn(300, 4) + wanted
    expected = 2 * (1 - roc_auc_score(wanted, scores, average="macro"))
    four = Problem(kind="labels", classes=4)
    assert judge(scores, wanted, four).surprise == pytest.approx(expected)


def test_an_answer_whose_question_has_one_reply_is_left_out() -> None:
    wanted = torch.stack([torch.arange(40) % 2, torch.zeros(40)], dim=1)
    scores = torch.randn(40, 2)
    both = judge(scores, wanted, Problem(kind="labels", classes=2))
    one = judge(scores[:, :1], wanted[:, :1], YES_NO)
    assert both.surprise == pytest.approx(one.surprise)


def test_a_bad_threshold_is_an_error_though_the_order_is_right() -> None:
    """Logits that are all above 0 say yes to everything: half are wrong, as of no knowledge."""
    wanted = (torch.arange(40) % 2).float()
    verdict = judge(wanted[:, None] + 5, wanted[:, None], YES_NO)
    assert verdict.surprise == 0.0
    assert verdict.error == pytest.approx(1.0)


def test_probabilities_are_cut_at_one_half_and_logits_at_zero() -> None:
    wanted = (torch.arange(40) % 2).float()[:, None]
    logits = torch.where(wanted > 0, 1.0, -1.0)
    for scores in (logits, logits.sigmoid()):
        verdict = judge(scores, wanted, YES_NO)
        assert (verdict.error, verdict.surprise) == (0.0, 0.0)
        assert verdict.doubt == pytest.approx(2 * math.sqrt(1 / 40 / 40))


def test_yes_or_no_without_a_yes_cannot_be_judged() -> None:
    assert math.isnan(judge(torch.randn(9, 1), torch.zeros(9, 1), YES_NO).error)


# -------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("columns", [1, 3])
def test_the_error_of_numbers_is_what_r2_lacks(columns: int) -> None:
    targets = torch.randn(200, columns)
    outputs = targets + 0.5 * torch.randn(200, columns) + 0.2
    expected = 1 - r2_score(targets, outputs, multioutput="variance_weighted")
    assert judge(outputs, targets, NUMBERS).error == pytest.approx(expected, rel=1e-5)


def test_the_surprise_of_numbers_is_what_a_straight_line_leaves() -> None:
    targets = torch.randn(200)
    outputs = 3 * targets + torch.randn(200) - 7
    expected = 1 - torch.corrcoef(torch.stack([outputs, targets]))[0, 1] ** 2
    found = judge(outputs[:, None], targets[:, None], NUMBERS)
    assert found.surprise == pytest.approx(float(expected), rel=1e-4)
    assert found.error > 10


def test_answers_that_go_the_wrong_way_explain_nothing() -> None:
    targets = torch.randn(200, 1)
    assert judge(-targets, targets, NUMBERS).surprise == 1.0


def test_targets_without_their_last_axis_of_one_are_compared_one_by_one() -> None:
    targets = torch.randn(50)
    verdict = judge(targets[:, None].clone(), targets, NUMBERS)
    assert verdict.error == 0.0


def test_whole_numbers_are_targets_like_others() -> None:
    targets = torch.arange(50)
    assert judge(targets[:, None].float(), targets, NUMBERS).error == 0.0


def test_the_doubt_of_a_difference_is_that_of_the_pairs() -> None:
    """The oracle is the spread over many draws: what is hard for both models moves neither."""
    numbers, gone, doubts, apart = Problem(kind="numbers"), [], [], []
    targets = torch.randn(200, 1)
    for _ in range(300):
        shared = 0.5 * torch.randn(200, 1)  # what both get wrong
        one = judge(targets + shared, targets, numbers)
        other = judge(targets + 1.1 * shared + 0.05 * torch.randn(200, 1), targets, numbers)
        gone.append(one.error - other.error)
        doubts.append(one.doubt_beside(other))
        apart.append(math.hypot(one.doubt, other.doubt))
    assert statistics.mean(doubts) == pytest.approx(statistics.stdev(gone), rel=0.2)
    assert statistics.mean(apart) > 3 * statistics.mean(doubts)


def test_answers_to_other_questions_are_no_pairs() -> None:
    two = Problem(kind="classes", classes=2)
    few, many = (judge(torch.randn(n, 2), torch.arange(n) % 2, two) for n in (40, 60))
    assert few.doubt_beside(many) == math.hypot(few.doubt, many.doubt)
    whole = replace(few, doubt=0.0)
    assert whole.doubt_beside(replace(few, doubt=0.0)) == 0.0


def test_the_doubt_of_numbers_is_the_standard_error_of_the_mean_square() -> None:
    targets, noise = torch.randn(4000, 1), torch.randn(4000, 1)
    verdict = judge(targets + noise, targets, NUMBERS)
    assert verdict.doubt == pytest.approx(math.sqrt(2 / 4000), rel=0.1)  # chi square: variance 2


def test_constant_targets_cannot_be_judged() -> None:
    assert math.isnan(judge(torch.randn(9, 1), torch.ones(9, 1), NUMBERS).error)


# ------------------------------------------------------------------------------------- all kinds


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("problem", [THREE, YES_NO, NUMBERS, Problem(kind="unknown")])
def test_answers_that_are_not_finite_are_infinitely_wrong(bad: float, problem: Problem) -> None:
    outputs = torch.zeros(4, 3)
    outputs[1, 1] = bad
    verdict = judge(outputs, torch.tensor([0, 1, 2, 0]), problem)
    assert verdict.error == math.inf and verdict.surprise == math.inf


def test_a_problem_of_no_known_kind_is_not_judged() -> None:
    assert math.isnan(judge(torch.randn(4, 3), torch.randn(4), Problem(kind="unknown")).error)


def test_only_so_many_answers_are_looked_at() -> None:
    wanted = torch.zeros(MOST_ANSWERS + 5000, dtype=torch.long)
    wanted[: MOST_ANSWERS // 2] = 1
    outputs = functional.one_hot(wanted, 2).float()
    outputs[MOST_ANSWERS:] = outputs[MOST_ANSWERS:].flip(1)  # wrong, and not looked at
    assert judge(outputs, wanted, Problem(kind="classes", classes=2)).error == 0.0


def test_judging_keeps_no_graph_and_changes_nothing() -> None:
    outputs = torch.randn(6, 3, requires_grad=True)
    before = outputs.detach().clone()
    verdict = judge(outputs, torch.arange(6) % 3, THREE)
    assert isinstance(verdict.surprise, float)
    assert outputs.grad is None and torch.equal(outputs, before)


def test_the_temperatures_are_powers_of_two_about_one() -> None:
    assert 1.0 in TEMPERATURES
    assert all(math.log2(t).is_integer() for t in TEMPERATURES)


def test_the_balanced_error_of_yes_and_no_is_the_sum_of_both_shares_missed() -> None:
    wanted = torch.tensor([1.0] * 20 + [0.0] * 80)[:, None]
    said = torch.tensor([1.0] * 5 + [-1.0] * 15 + [1.0] * 8 + [-1.0] * 72)[:, None]
    assert judge(said, wanted, YES_NO).balanced == pytest.approx(15 / 20 + 8 / 80)
    few = judge(said[11:], wanted[11:], YES_NO)
    assert math.isnan(few.balanced), "9 of 89 are too few to say"
