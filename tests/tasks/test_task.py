"""The contract that every task keeps, checked on each of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from leadline.tasks.classification import Classification
from leadline.tasks.task import Result, Task


def classification_case() -> tuple[Task, Tensor, Tensor]:
    torch.manual_seed(0)
    return Classification(7), torch.randn(12, 7, requires_grad=True), torch.randint(7, (12,))


CASES = [classification_case]


@pytest.mark.parametrize("case", CASES)
def test_a_task_has_every_part_of_the_protocol(case: Callable):
    task, outputs, _ = case()
    assert isinstance(task, Task)
    assert task.head_size == outputs.shape[1]


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_a_scalar_that_can_be_descended(case: Callable):
    task, outputs, targets = case()
    before = task.loss(outputs, targets)
    (gradient,) = torch.autograd.grad(before, outputs)
    assert task.loss(outputs - 0.1 * gradient, targets) < before


@pytest.mark.parametrize("case", CASES)
def test_the_main_metric_is_among_the_figures_and_all_are_plain_floats(case: Callable):
    task, outputs, targets = case()
    result = task.evaluate(outputs, targets)
    assert isinstance(result, Result)
    figures = result.metrics()
    assert task.main_metric in figures
    assert all(type(value) is float for value in figures.values())


@pytest.mark.parametrize("case", CASES)
def test_good_targets_pass_their_check(case: Callable):
    task, _, targets = case()
    task.check_targets(targets)
