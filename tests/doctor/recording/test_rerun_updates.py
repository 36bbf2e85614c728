"""Tests that reruns change one thing each, and can be open in each other."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from leadline.doctor.recording.rerun_updates import (
    bfloat16_instead,
    clearing_left_to_updates,
    clipping_before_steps,
    gradients_cleared,
    loss_multiplied,
    norms_clipped_at,
    optimizers_kept,
    steps_taken,
)

INPUTS = torch.ones(1, 2)


def made() -> tuple[nn.Linear, torch.optim.SGD]:
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model, torch.optim.SGD(model.parameters(), lr=1.0)


def moved(model: nn.Linear) -> float:
    return round(-float(model.weight.detach()[0, 0]), 6)


def test_gradients_that_were_used_are_cleared_and_those_between_steps_stay() -> None:
    model, optimizer = made()
    with gradients_cleared():
        for _ in range(3):
            for _ in range(2):
                model(INPUTS).sum().backward()
            optimizer.step()
    assert moved(model) == 6  # twice a gradient of 1, three times


def test_a_clearing_at_the_wrong_place_is_left_to_the_updates() -> None:
    model, optimizer = made()
    with clearing_left_to_updates():
        for _ in range(3):
            model(INPUTS).sum().backward()
            optimizer.zero_grad()
            model.zero_grad()
            optimizer.step()
    assert moved(model) == 3


def test_steps_are_taken_that_the_loop_forgets() -> None:
    model, _ = made()
    with steps_taken():
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        for _ in range(3):
            optimizer.zero_grad()
            model(INPUTS).sum().backward()
    assert moved(model) == 3


def test_one_rerun_in_another_does_both() -> None:
    model, optimizer = made()
    with gradients_cleared(), loss_multiplied(-0.5), norms_clipped_at(0.1):
        for _ in range(2):
            model(INPUTS).sum().backward()
            clip_grad_norm_(model.parameters(), 100.0)
            optimizer.step()
    assert moved(model) == round(-2 * 0.1 / 2**0.5, 6)


def test_clipping_comes_right_before_the_step() -> None:
    model, optimizer = made()
    with clipping_before_steps():
        clip_grad_norm_(model.parameters(), 0.1)
        model(INPUTS).sum().backward()
        optimizer.step()
    assert moved(model) == round(0.1 / 2**0.5, 6)


def test_a_new_optimizer_goes_on_where_the_one_before_stood() -> None:
    model, _ = made()
    with optimizers_kept():
        for _ in range(3):
            optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=1.0)
            optimizer.zero_grad()
            model(INPUTS).sum().backward()
            optimizer.step()
    assert moved(model) == 1 + 2 + 3  # the momentum grows by 1 each time


def test_autocast_is_in_bfloat16() -> None:
    model, _ = made()
    with bfloat16_instead(), torch.autocast("cpu", dtype=torch.float16):
        assert model(INPUTS).dtype == torch.bfloat16
        assert not torch.amp.GradScaler("cpu").is_enabled()
    with torch.autocast("cpu", dtype=torch.float16):
        assert model(INPUTS).dtype == torch.float16
