"""Tests of rounding channels, against torchvision's and timm's own."""

from __future__ import annotations

import pytest

from leadline.nn.channels import round_channels


@pytest.mark.parametrize("channels", [1, 3, 7.9, 8, 11, 12, 20, 35.2, 36, 76.8, 100, 1408.1])
def test_it_is_torchvision_s_and_timm_s(channels: float) -> None:
    from timm.layers import make_divisible
    from torchvision.models._utils import _make_divisible

    assert round_channels(channels) == _make_divisible(channels, 8)
    assert round_channels(channels, least_share=0.0) == make_divisible(channels, 8, round_limit=0)
