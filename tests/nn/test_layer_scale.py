"""Tests of layer scale."""

from __future__ import annotations

import torch

from leadline.nn.layer_scale import LayerScale, layer_scale


def test_every_channel_has_a_factor_of_its_own() -> None:
    scale = LayerScale(3, start=1e-6)
    with torch.no_grad():
        scale.gamma.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert scale(torch.ones(2, 3)).tolist() == [[1.0, 2.0, 3.0]] * 2
    scale(torch.ones(2, 3)).sum().backward()
    assert scale.gamma.grad is not None
    assert scale.gamma.grad.tolist() == [2.0, 2.0, 2.0]


def test_factors_for_maps_have_two_more_axes() -> None:
    factors = layer_scale(2, start=0.5, trailing=2)
    assert (torch.ones(1, 2, 3, 3) * factors).sum().item() == 9.0
