"""Tests of derivatives through a kept graph, and of what is said where one is missing."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import MeasurementError
from leadline.measure.curvature.derivatives import differentiate


def test_a_graph_can_be_differentiated_many_times() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (slope,) = differentiate([(x**3).sum()], [x], keep=True)
    for weight in (1.0, 2.0):
        (curvature,) = differentiate([slope], [x], [torch.full((2,), weight)])
        assert curvature.tolist() == [6 * weight, 12 * weight]


def test_an_input_that_does_not_matter_gets_zeros() -> None:
    x, y = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    assert differentiate([x.sum()], [y])[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (torch.tensor(float("inf"), requires_grad=True), "received a loss of inf"),
        (torch.tensor(1.0), "without a graph"),
    ],
)
def test_a_loss_that_cannot_be_differentiated_is_explained(
    loss: torch.Tensor, message: str
) -> None:
    with pytest.raises(MeasurementError, match=message):
        differentiate([loss], [torch.ones(1, requires_grad=True)])


def test_an_operation_without_a_derivative_is_named_with_the_way_out() -> None:
    query = torch.randn(1, 1, 4, 8, requires_grad=True)
    fused = torch.nn.attention.SDPBackend.FLASH_ATTENTION
    with torch.nn.attention.sdpa_kernel(fused):
        out = torch.nn.functional.scaled_dot_product_attention(query, query, query)
    (slope,) = differentiate([out.square().sum()], [query], keep=True)
    with pytest.raises(MeasurementError, match=r"flash_attention[\s\S]*plain counterpart"):
        differentiate([slope.sum()], [query])
