"""Norm and clipping of the whole gradient."""

import pytest
import torch
from torch import nn

from leadline.optim.clipping import clip_gradient, gradient_norm


def model_with_gradient(scale: float) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn_like(parameter)
    return model


def flat_gradient(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_the_norm_is_that_of_all_entries_in_one_vector():
    model = model_with_gradient(3.0)
    expected = flat_gradient(model).double().square().sum().sqrt()
    assert gradient_norm(model.parameters()).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_large_gradient_is_scaled_to_max_norm_in_its_own_direction():
    model = model_with_gradient(3.0)
    before = flat_gradient(model)
    norm = clip_gradient(model.parameters(), max_norm=0.5)
    assert norm.item() == pytest.approx(before.norm().item(), rel=1e-6)
    torch.testing.assert_close(flat_gradient(model), before * 0.5 / before.norm())


def test_a_small_gradient_stays_bit_for_bit():
    model = model_with_gradient(0.01)
    before = flat_gradient(model)
    clip_gradient(model.parameters(), max_norm=10.0)
    assert torch.equal(flat_gradient(model), before)


def test_parameters_without_a_gradient_count_as_zero():
    model = model_with_gradient(1.0)
    expected = flat_gradient(model).norm()
    model.append(nn.Linear(2, 2))
    torch.testing.assert_close(clip_gradient(model.parameters(), max_norm=1.0), expected)
    assert gradient_norm(nn.Linear(2, 2).parameters()).item() == 0.0


def test_a_gradient_that_is_not_finite_shows_in_the_norm():
    model = model_with_gradient(1.0)
    model[0].weight.grad[0, 0] = float("nan")
    assert clip_gradient(model.parameters(), max_norm=1.0).isnan()
