"""Tests of squeeze and excitation, against torchvision's own."""

from __future__ import annotations

import torch

from leadline.nn.squeeze_excite import SqueezeExcite


def test_it_is_torchvision_s() -> None:
    from torchvision.ops import SqueezeExcitation

    torch.manual_seed(0)
    theirs = SqueezeExcitation(16, 4)
    ours = SqueezeExcite(16, squeezed=4, activation="relu")
    ours.load_state_dict(theirs.state_dict())
    maps = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(ours(maps), theirs(maps))


def test_each_channel_has_one_factor_below_one() -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 8, 4, 4) + 1
    factors = SqueezeExcite(8, squeezed=2, activation="silu")(maps) / maps
    torch.testing.assert_close(factors, factors[:, :, :1, :1].expand_as(factors))
    assert ((factors > 0) & (factors < 1)).all()
