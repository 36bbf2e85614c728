"""Tests of the kernels with a second derivative: same values, twice differentiable, put back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.measure.curvature.double_backward import twice_differentiable


def attention(x: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True)


@pytest.mark.parametrize(
    "function",
    [
        attention,
        nn.Hardsigmoid(),
        lambda x: nn.Hardsigmoid(inplace=True)(x * 2),
        nn.Hardswish(),
        nn.LSTM(6, 4),
    ],
)
def test_values_and_slopes_are_the_same_and_a_second_derivative_is_there(
    function: Callable[[Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, requires_grad=True)

    def value() -> Tensor:
        out = function(x)
        return (out[0] if isinstance(out, tuple) else out).square().sum()

    plain = value()
    (slope,) = torch.autograd.grad(plain, [x])
    with twice_differentiable(nn.LSTM(1, 1)):
        same = value()
    (again,) = torch.autograd.grad(same, [x], create_graph=True)
    assert torch.allclose(plain, same, rtol=1e-5)
    assert torch.allclose(slope, again, atol=1e-5)
    (second,) = torch.autograd.grad(again.sum(), [x])
    with torch.no_grad():
        x += 1e-3
    shifted = torch.autograd.grad(value(), [x])[0]
    with torch.no_grad():
        x -= 2e-3
    difference = (shifted - torch.autograd.grad(value(), [x])[0]) / 2e-3
    assert torch.allclose(second, difference, atol=0.02 * float(second.abs().max()))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 4), (8, 3, 2, 2)])
def test_batch_norm_is_the_same_in_both_modes(
    affine: bool, training: bool, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}
    norm = kinds[len(shape)](3, affine=affine).double()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.train(training)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    inputs = [x, *norm.parameters()]
    weights = torch.randn(shape, dtype=torch.float64)

    def slopes(out: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad((out * weights).square().sum(), inputs))

    plain = slopes(norm(x))
    mean = norm.running_mean.clone()
    with twice_differentiable(norm):
        out = norm(x)
    assert all(torch.allclose(a, b) for a, b in zip(plain, slopes(out), strict=True))
    assert torch.equal(mean, norm.running_mean) == (not training)


def test_the_choice_of_kernels_is_put_back() -> None:
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled
    with twice_differentiable(nn.LSTM(1, 1)):
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cudnn.enabled
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled) == before
