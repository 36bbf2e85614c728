"""Tests that gradients left over, given and lost are told without reading them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.doctor.recording.gradients import GradientWatch, gradient_norm_of, spread

Watched = tuple[nn.Linear, torch.optim.SGD, GradientWatch]


@pytest.fixture
def watched() -> Watched:
    model = nn.Linear(3, 2)
    watch = GradientWatch()
    watch.follow(list(model.parameters()))
    return model, torch.optim.SGD(model.parameters(), lr=0.1), watch


def backward(model: nn.Linear, watch: GradientWatch) -> bool:
    stale = watch.before_backward()
    model(torch.ones(1, 3)).sum().backward()
    assert len(watch.after_backward()) == 2
    return stale


def step(optimizer: torch.optim.SGD, watch: GradientWatch) -> dict[str, bool]:
    facts = watch.before_step(optimizer, look=True)
    optimizer.step()
    movement = watch.after_step(optimizer, look=True)
    assert movement is not None and (movement.changed > 0) is not facts["empty"]
    return facts


def test_a_gradient_that_a_step_used_and_nobody_cleared_is_stale(watched: Watched) -> None:
    model, optimizer, watch = watched
    assert not backward(model, watch)
    assert step(optimizer, watch) == {"stale": False, "given": True, "empty": False}
    assert backward(model, watch)
    assert step(optimizer, watch)["stale"]


def test_a_gradient_cleared_by_hand_is_not(watched: Watched) -> None:
    model, optimizer, watch = watched
    for clear in (torch.Tensor.zero_, None):
        backward(model, watch)
        step(optimizer, watch)
        for parameter in model.parameters():
            assert parameter.grad is not None
            if clear is None:
                parameter.grad = None
            else:
                clear(parameter.grad)
        assert not backward(model, watch)
        assert not step(optimizer, watch)["stale"]
        watch.cleared(model.parameters())
        optimizer.zero_grad()


def test_clearing_tells_whether_an_unused_gradient_went(watched: Watched) -> None:
    model, optimizer, watch = watched
    backward(model, watch)
    assert watch.cleared(model.parameters())
    optimizer.zero_grad(set_to_none=False)
    assert step(optimizer, watch)["empty"]
    assert not watch.cleared(model.parameters())


def test_the_norm_is_that_of_all_gradients_together(watched: Watched) -> None:
    model, optimizer, watch = watched
    assert gradient_norm_of(optimizer) is None
    backward(model, watch)
    norm = gradient_norm_of(optimizer)
    assert norm is not None and float(norm) == pytest.approx(8**0.5)  # 8 ones


def test_a_spread_has_both_ends() -> None:
    assert spread(range(5), 8) == [0, 1, 2, 3, 4]
    assert spread(range(101), 3) == [0, 50, 100]
