"""A Step is a plain record."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from leadline.training.step import Step


def test_a_step_cannot_be_changed() -> None:
    step = Step(
        index=1,
        epoch=1,
        loss=torch.tensor(1.0),
        lr=0.1,
        examples=2,
        grad_norm=torch.tensor(2.0),
        ends_epoch=True,
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.index = 2  # type: ignore[misc]
