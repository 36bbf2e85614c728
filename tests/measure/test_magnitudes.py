"""Tests of norms and spreads against double precision, at every size that float32 holds."""

from __future__ import annotations

import math

import pytest
import torch

from leadline.measure.magnitudes import norm_of, spread_of, tensor_norms


@pytest.mark.parametrize("size", [1e-35, 1e-25, 1e-15, 1.0, 1e15, 1e25, 1e35])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_norm_and_spread_are_those_of_double_precision(size: float, dtype: torch.dtype) -> None:
    tensor = (torch.randn(50, generator=torch.Generator().manual_seed(0)) * size).to(dtype)
    exact = tensor.double()
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    assert norm_of(tensor).item() == pytest.approx(exact.norm().item(), rel=tolerance)
    std, mean = (entry.item() for entry in spread_of(tensor.to(dtype)))
    assert std == pytest.approx(exact.std(correction=0).item(), rel=tolerance)
    assert mean == pytest.approx(exact.mean().item(), rel=3 * tolerance)


def test_zeros_nothing_and_what_is_not_finite() -> None:
    assert norm_of(torch.zeros(3)).item() == 0.0
    assert norm_of(torch.zeros(0)).item() == 0.0
    assert spread_of(torch.zeros(3))[0].item() == 0.0
    assert math.isinf(norm_of(torch.tensor([1.0, math.inf])).item())
    assert math.isnan(norm_of(torch.tensor([1.0, math.nan])).item())
    assert not math.isfinite(spread_of(torch.tensor([1.0, math.inf]))[0].item())


def test_norms_neither_under_nor_overflow() -> None:
    tensors = [torch.full((4,), 1e-30), torch.full((4,), 1e30), torch.full((4,), 2.0).half()]
    assert tensor_norms(tensors) == pytest.approx([2e-30, 2e30, 4.0], rel=1e-5)
    assert tensor_norms([]) == []
