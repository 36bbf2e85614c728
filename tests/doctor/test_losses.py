"""Tests of the losses: every one is counted, in memory that does not grow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from leadline.core.errors import MeasurementError
from leadline.doctor import losses as losses_file
from leadline.doctor.losses import LONGEST, Losses


def test_a_short_training_is_told_exactly() -> None:
    losses = Losses(start=10)
    for value in range(700):
        losses.append(torch.tensor(float(value), requires_grad=value % 2 == 0))
    curve = losses.read()
    assert curve.stride == 1
    assert curve.steps == tuple(range(11, 711))
    assert curve.mean == curve.highest == tuple(map(float, range(700)))


@pytest.mark.parametrize("count", [2 * LONGEST, 5 * LONGEST + 77, 5 * LONGEST + 300])
def test_a_long_training_is_told_by_means_and_highest(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count).astype(np.float32)
    losses = Losses()
    for value in values.tolist():
        losses.append(value)
    curve = losses.read()
    assert curve.stride > 1 and len(curve.steps) <= LONGEST + 1
    assert curve.steps[-1] == count
    for index in (0, 1, len(curve.steps) // 2, len(curve.steps) - 1):
        end = curve.steps[index]
        begin = curve.steps[index - 1] if index else 0
        assert curve.mean[index] == pytest.approx(values[begin:end].mean(), abs=1e-5)
        assert curve.highest[index] == pytest.approx(values[begin:end].max())
    assert max(curve.highest) == pytest.approx(values.max())


def test_memory_stays_small_over_a_very_long_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses_file, "LONGEST", 256)
    monkeypatch.setattr(losses_file, "FOLD", 8)
    losses = Losses()
    for value in range(20_000):
        losses.append(float(value))
    held = sum(part.numel() for part in losses._folded) + len(losses._pending)
    assert held <= 256 + 8 + 256
    assert losses.read().steps[-1] == 20_000


def test_a_loss_that_became_nan_stays_seen() -> None:
    losses = Losses()
    for step in range(3 * LONGEST):
        losses.append(math.nan if step == 5 else 1.0)
    curve = losses.read()
    assert math.isnan(curve.mean[5 // curve.stride])
    assert math.isnan(curve.highest[5 // curve.stride])


def test_the_tensor_may_be_changed_and_its_graph_go_afterwards() -> None:
    losses = Losses()
    weight = torch.ones((), requires_grad=True)
    loss = weight * 2
    losses.append(loss)
    with torch.no_grad():
        loss.zero_()
    assert losses.read().mean == (2.0,)
    assert not any(isinstance(x, torch.Tensor) and x.requires_grad for x in losses._pending)


def test_any_single_number_will_do_and_nothing_else() -> None:
    losses = Losses()
    for loss in (1.0, torch.tensor([2.0]), torch.tensor(3.0, dtype=torch.float64)):
        losses.append(loss)
    losses.append(torch.tensor(4.0, dtype=torch.bfloat16))
    assert losses.read().mean == (1.0, 2.0, 3.0, 4.0)
    with pytest.raises(MeasurementError, match=r"a tensor of shape \(3,\)"):
        losses.append(torch.ones(3))


def test_losses_on_a_device_are_copied_there_and_read_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    losses = Losses()
    loss = torch.tensor(1.0)
    for _ in range(600):
        losses.append(loss)
        loss += 1
    assert losses.read().mean == tuple(float(value) for value in range(1, 601))


def test_nothing_yet_is_an_empty_curve() -> None:
    assert Losses().read().steps == ()
