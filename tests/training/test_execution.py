"""An execution changes speed and layout, not what is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError
from leadline.training.execution import Execution


def test_the_default_is_plain_float32_on_the_cpu() -> None:
    assert Execution().describe() == "cpu, float32, contiguous, eager"


def test_channels_last_gives_the_same_outputs() -> None:
    model = nn.Conv2d(3, 4, 3)
    images = torch.randn(2, 3, 8, 8)
    expected = model(images)
    execution = Execution(layout="channels_last")
    placed, _ = execution.place_batch(images, torch.zeros(2))
    assert placed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(execution.place(model)(placed), expected)


def test_bfloat16_keeps_the_weights_in_float32_and_stays_near() -> None:
    model = nn.Linear(64, 64)
    inputs = torch.randn(8, 64)
    with Execution(precision="bfloat16").precision_scope():
        narrow = model(inputs)
    assert narrow.dtype == torch.bfloat16
    assert model.weight.dtype == torch.float32
    error = (narrow.float() - model(inputs)).norm() / model(inputs).norm()
    assert error < 2**-7  # bfloat16 keeps 8 bits


def test_batches_that_are_not_images_pass_unchanged() -> None:
    inputs = torch.randn(4, 7)
    placed, _ = Execution(layout="channels_last").place_batch(inputs, torch.zeros(4))
    assert torch.equal(placed, inputs)


def test_no_threads_is_refused() -> None:
    with pytest.raises(ConfigError, match="threads must be >= 1, received 0"):
        Execution(threads=0)
