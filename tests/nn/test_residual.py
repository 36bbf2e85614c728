"""Tests of the residual path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leadline.core.errors import ModelError
from leadline.nn.residual import ResidualAdd, ResidualBlock, residual_blocks


class Doubling(ResidualBlock):
    def __init__(self, *, residual: bool) -> None:
        super().__init__()
        self.join = ResidualAdd(residual=residual)

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return ((),)

    def forward(self, signal: Tensor) -> Tensor:
        out: Tensor = self.join(2 * signal, shortcut=signal)
        return out


def test_the_sum_is_shortcut_plus_branch_and_without_the_path_the_branch_alone() -> None:
    signal = torch.randn(3, 2)
    torch.testing.assert_close(Doubling(residual=True)(signal), 3 * signal)
    torch.testing.assert_close(Doubling(residual=False)(signal), 2 * signal)


def test_the_scale_starts_at_one_and_multiplies_the_branch_only() -> None:
    join = ResidualAdd(scaled=True)
    assert join.scale is not None
    branch, shortcut = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(join(branch, shortcut=shortcut), branch + shortcut)
    nn.init.constant_(join.scale, 0.5)
    torch.testing.assert_close(join(branch, shortcut=shortcut), 0.5 * branch + shortcut)


def test_a_dropped_branch_leaves_the_shortcut() -> None:
    torch.manual_seed(0)
    join = ResidualAdd(drop_path_rate=0.5)
    out = join(torch.ones(100, 1), shortcut=torch.ones(100, 1))
    assert set(out.flatten().tolist()) == {1.0, 3.0}


def test_blocks_are_found_in_module_order_and_only_with_their_path_on() -> None:
    first, off, last = Doubling(residual=True), Doubling(residual=False), Doubling(residual=True)
    model = nn.Sequential(first, nn.Sequential(off, nn.ReLU()), last)
    assert residual_blocks(model) == (first, last)


def test_stochastic_depth_without_a_residual_path_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        ResidualAdd(residual=False, drop_path_rate=0.1)
    assert str(caught.value) == (
        "expected a residual path wherever there is stochastic depth\n"
        "received drop_path_rate 0.1 without a residual path\n"
        "do this  switch the residual path on, or set drop_path_rate to 0"
    )
