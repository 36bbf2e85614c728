"""Tests of permuting as a layer."""

from __future__ import annotations

import torch

from leadline.nn.permute import TO_FIRST, TO_LAST, Permute


def test_there_and_back_is_the_same_view() -> None:
    maps = torch.randn(2, 3, 4, 5)
    back = Permute(TO_FIRST)(Permute(TO_LAST)(maps))
    assert torch.equal(back, maps)
    assert back.data_ptr() == maps.data_ptr()
    assert Permute(TO_LAST)(maps).shape == (2, 4, 5, 3)
