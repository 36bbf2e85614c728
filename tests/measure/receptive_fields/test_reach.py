"""Tests of reach itself: how it travels beside the tensors of a running model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leadline.measure.receptive_fields.reach import (
    Operation,
    Reach,
    ReachMode,
    reach_of_inputs,
    union,
)


def nothing_known(call: Operation) -> Reach | None:
    return None


def test_inputs_see_their_own_place_along_each_axis() -> None:
    reach = reach_of_inputs(torch.zeros(2, 3, 4, 5), [2, 3])
    assert (reach.jumps, reach.dims, reach.ndim) == ((1.0, 1.0), (2, 3), 4)
    assert reach.full(0)[1, 2, :, 4].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert reach.full(3)[1, 2, 3].tolist() == [-0.0, -1.0, -2.0, -3.0, -4.0]


def test_a_union_broadcasts_as_the_tensors_do() -> None:
    row = reach_of_inputs(torch.zeros(3), [0])
    column = reach_of_inputs(torch.zeros(2, 1), [0])
    both = union([row, column], torch.Size([2, 3]))
    assert both.bounds[0].tolist() == [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]
    assert both.dims == (1,)


def test_movements_move_the_bounds_and_find_the_axis_again() -> None:
    mode = ReachMode(x := torch.zeros(1, 3, 8), [2], nothing_known)
    with torch.no_grad(), mode:
        moved = x.permute(2, 0, 1)[1::2].unsqueeze(0)
        merged = x.flatten(1)
        picked = x[:, :, 5]
    one, two, three = mode.of(moved), mode.of(merged), mode.of(picked)
    assert one is not None
    assert two is not None
    assert three is not None
    assert (one.dims, one.jumps, one.shape) == ((1,), (2.0,), moved.shape)
    assert one.bounds[0].flatten().tolist() == [1.0, 3.0, 5.0, 7.0]
    assert two.dims == (None,)
    assert two.full(0)[0, :10].tolist() == [*map(float, range(8)), 0.0, 1.0]
    assert three.bounds[0].flatten().tolist() == [5.0]


def test_what_has_no_rule_is_unknown_and_stays_so() -> None:
    mode = ReachMode(x := torch.zeros(1, 1, 8), [2], nothing_known)
    with torch.no_grad(), mode:
        later = x.exp().flatten()
        x.sub_(1)
    for tensor in (later, x):
        reach = mode.of(tensor)
        assert reach is not None
        assert reach.unknown.endswith("has no rule")


def test_a_rule_that_fails_is_unknown_too() -> None:
    def fails(call: Operation) -> Reach | None:
        raise ValueError(f"no {call.name} today\nor ever")

    mode = ReachMode(x := torch.zeros(1, 1, 8), [2], fails)
    with torch.no_grad(), mode:
        y = x.exp()
    reach = mode.of(y)
    assert reach is not None
    assert reach.unknown == "torch.exp: no exp today"


def test_what_does_not_depend_on_the_inputs_has_no_reach() -> None:
    mode = ReachMode(x := torch.zeros(1, 1, 8), [2], nothing_known)
    with torch.no_grad(), mode:
        constants: list[Tensor] = [torch.ones(3) * 2, torch.zeros_like(x), x.new_ones(2)]
    assert [mode.of(tensor) for tensor in constants] == [None, None, None]


@pytest.mark.parametrize("fails", [True, False])
def test_the_switch_for_whole_encoder_kernels_is_put_back(fails: bool) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    x = torch.zeros(1, 3, 5 if fails else 4)
    try:
        with torch.no_grad(), ReachMode(x, [1], nothing_known):
            assert not torch.backends.mha.get_fastpath_enabled()
            layer(x)
    except (RuntimeError, AssertionError):
        assert fails
    assert torch.backends.mha.get_fastpath_enabled() == before
