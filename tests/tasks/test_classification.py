"""Classification against scikit-learn, torchmetrics, and numbers worked out by hand."""

import math

import pytest
import sklearn.metrics
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from leadline.core.errors import ConfigError, DataError, NonFiniteError
from leadline.tasks.classification import Classification


def random_split(classes: int, examples: int = 400) -> tuple[Tensor, Tensor]:
    torch.manual_seed(classes)
    targets = torch.randint(classes, (examples,))
    logits = torch.randn(examples, classes)
    logits[torch.arange(examples), targets] += 1.0
    return logits, targets


@pytest.mark.parametrize("classes", [2, 5, 6, 10])
def test_every_figure_is_that_of_scikit_learn(classes: int):
    logits, targets = random_split(classes)
    result = Classification(classes).evaluate(logits, targets)
    labels = list(range(classes))
    probabilities = logits.double().softmax(1).numpy()
    truth, answers = targets.numpy(), logits.argmax(1).numpy()
    assert result.loss == pytest.approx(
        sklearn.metrics.log_loss(truth, probabilities, labels=labels), rel=1e-6
    )
    assert result.accuracy == sklearn.metrics.accuracy_score(truth, answers)
    expected = sklearn.metrics.confusion_matrix(truth, answers, labels=labels)
    assert result.confusion.tolist() == expected.tolist()
    recall = sklearn.metrics.recall_score(truth, answers, average=None, labels=labels)
    assert result.per_class == pytest.approx(recall.tolist())
    if classes > 5:
        assert result.top5 == sklearn.metrics.top_k_accuracy_score(
            truth, probabilities, k=5, labels=labels
        )
    else:
        assert result.top5 is None


def test_every_figure_is_that_of_torchmetrics():
    logits, targets = random_split(10)
    result = Classification(10).evaluate(logits, targets)
    assert result.accuracy == pytest.approx(
        multiclass_accuracy(logits, targets, num_classes=10, average="micro").item()
    )
    assert result.top5 == pytest.approx(
        multiclass_accuracy(logits, targets, num_classes=10, average="micro", top_k=5).item()
    )
    per_class = multiclass_accuracy(logits, targets, num_classes=10, average=None)
    assert result.per_class == pytest.approx(per_class.tolist())
    error = multiclass_calibration_error(logits.softmax(1), targets, num_classes=10, n_bins=15)
    assert result.calibration_error == pytest.approx(error.item(), rel=1e-5)
    matrix = multiclass_confusion_matrix(logits, targets, num_classes=10)
    assert torch.equal(result.confusion, matrix)


def test_calibration_of_four_answers_worked_out_by_hand():
    # confidences 0.9, 0.9 (one right), 0.6 (right), 1.0 (right), in bins 14, 14, 9 and 15 of 15
    confidences = torch.tensor([0.9, 0.9, 0.6, 1.0], dtype=torch.float64)
    logits = torch.stack([confidences.log(), (1 - confidences).log()], dim=1)
    result = Classification(2).evaluate(logits, torch.tensor([0, 1, 0, 0]))
    assert result.calibration_error == pytest.approx((2 * 0.4 + 0.4 + 0) / 4, rel=1e-6)
    full = {i + 1: b for i, b in enumerate(result.reliability) if b.count}
    assert {i: b.count for i, b in full.items()} == {9: 1, 14: 2, 15: 1}
    assert full[14].confidence == pytest.approx(0.9)
    assert full[14].accuracy == 0.5
    assert (full[14].low, full[14].high) == (13 / 15, 14 / 15)
    empty = result.reliability[0]
    assert (empty.confidence, empty.accuracy, empty.count) == (0.0, 0.0, 0)


def test_a_class_without_examples_has_no_accuracy():
    logits = torch.eye(3)[:2]
    assert Classification(3).evaluate(logits, torch.tensor([0, 1])).per_class == (1.0, 1.0, None)


def test_rows_of_the_confusion_are_the_truth():
    logits = torch.tensor([[0.0, 9.0], [0.0, 9.0], [9.0, 0.0]])
    confusion = Classification(2).evaluate(logits, torch.tensor([0, 1, 0])).confusion
    assert confusion.tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_the_cross_entropy_against_the_smoothed_target(smoothing: float):
    logits, targets = random_split(4, examples=9)
    log_probabilities = logits.double() - logits.double().exp().sum(1, keepdim=True).log()
    wanted = torch.full((9, 4), smoothing / 4, dtype=torch.float64)
    wanted[torch.arange(9), targets] += 1 - smoothing
    expected = -(wanted * log_probabilities).sum(1).mean()
    task = Classification(4, label_smoothing=smoothing)
    assert task.loss(logits, targets).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_distribution_with_all_weight_on_one_class_is_that_class():
    logits, targets = random_split(4)
    task = Classification(4, label_smoothing=0.1)
    one_hot = torch.nn.functional.one_hot(targets, 4).float()
    torch.testing.assert_close(task.loss(logits, one_hot), task.loss(logits, targets))


def test_targets_may_be_small_integers():
    logits, targets = random_split(4)
    task = Classification(4)
    assert torch.equal(task.loss(logits, targets.to(torch.uint8)), task.loss(logits, targets))
    assert torch.equal(
        task.evaluate(logits, targets.to(torch.int32)).confusion,
        task.evaluate(logits, targets).confusion,
    )


def test_evaluation_ignores_label_smoothing():
    logits, targets = random_split(4)
    smoothed = Classification(4, label_smoothing=0.2).evaluate(logits, targets)
    assert smoothed.loss == Classification(4).evaluate(logits, targets).loss


def test_a_blind_guess_costs_the_logarithm_of_the_classes():
    result = Classification(8).evaluate(torch.zeros(5, 8), torch.arange(5))
    assert result.loss == pytest.approx(math.log(8))


def test_the_figures_name_top5_only_where_it_means_something():
    assert list(Classification(6).evaluate(*random_split(6)).metrics()) == [
        "loss",
        "accuracy",
        "top5",
        "calibration_error",
    ]
    assert "top5" not in Classification(5).evaluate(*random_split(5)).metrics()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1, 3, -1], "numbers from -1 to 3; 2 of 4 lie outside, the first is 3 at index 2"),
        ([-1, 0], "numbers from -1 to 0; 1 of 2 lie outside, the first is -1 at index 0"),
    ],
)
def test_targets_out_of_range_are_named(targets: list[int], message: str):
    with pytest.raises(DataError, match=message) as caught:
        Classification(3).check_targets(torch.tensor(targets))
    assert caught.value.expected == "class numbers from 0 to 2"


def test_no_targets_are_in_range():
    Classification(3).check_targets(torch.tensor([], dtype=torch.long))


@pytest.mark.parametrize(("rows", "columns", "count"), [(0, 3, 0), (2, 4, 2), (2, 3, 1)])
def test_logits_that_do_not_fit_are_refused(rows: int, columns: int, count: int):
    task = Classification(3)
    with pytest.raises(DataError, match=rf"received \[{rows}, {columns}\] and {count} targets"):
        task._check_outputs(torch.zeros(rows, columns), torch.zeros(count, dtype=torch.long))


def test_logits_that_are_not_finite_are_refused_with_their_place():
    logits = torch.zeros(3, 2)
    logits[1, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="for 1 of 3 examples, the first at index 1"):
        Classification(2).evaluate(logits, torch.tensor([0, 1, 0]))


def test_a_class_that_is_ruled_out_by_minus_infinity_is_allowed():
    result = Classification(2).evaluate(torch.tensor([[0.0, -torch.inf]]), torch.tensor([0]))
    assert result.loss == 0.0


def test_options_out_of_range_are_all_named_at_once():
    with pytest.raises(ConfigError) as caught:
        Classification(1, label_smoothing=1.0, class_names=("a", "b"))
    assert caught.value.problems == (
        "num_classes must be >= 2, received 1",
        "label_smoothing must be >= 0 and < 1, received 1.0",
        "class_names must be 1, received 2",
    )
