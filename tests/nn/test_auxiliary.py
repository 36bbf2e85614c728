"""Tests of what a network with auxiliary heads gives in training, and what the loss makes of it."""

from __future__ import annotations

import pytest
import torch

from leadline.models.create import create_model
from leadline.nn.auxiliary import WithAuxiliary
from leadline.tasks.classification import Classification


def test_the_loss_adds_three_tenths_of_each_auxiliary_one() -> None:
    torch.manual_seed(0)
    main, first, second = torch.randn(3, 4, 5)
    targets = torch.tensor([0, 1, 2, 3])
    task = Classification(5)
    outputs = WithAuxiliary(logits=main, auxiliary=(first, second))
    expected = task.loss(main, targets) + 0.3 * (
        task.loss(first, targets) + task.loss(second, targets)
    )
    torch.testing.assert_close(task.loss(outputs, targets), expected)


@pytest.mark.parametrize(("name", "count"), [("googlenet", 2), ("inception_v3", 1)])
def test_auxiliary_heads_answer_in_training_alone(name: str, count: int) -> None:
    model = create_model(name, num_classes=3, width=2)
    images = torch.randn(2, 3, 299, 299)
    outputs = model(images)
    assert isinstance(outputs, WithAuxiliary)
    assert [tuple(logits.shape) for logits in outputs.auxiliary] == [(2, 3)] * count
    assert model.eval()(images).shape == (2, 3)
