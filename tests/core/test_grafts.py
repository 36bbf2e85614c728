"""Tests of core/grafts: functions that stay before, behind and around somebody's module."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.core.grafts import graft_around, graft_before, graft_behind


def twice(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (2 * inputs[0],)


def plus_one(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output + 1


def test_grafts_change_what_goes_in_and_what_comes_out() -> None:
    layer = nn.Linear(3, 2)
    rows = torch.randn(4, 3)
    wanted = layer(2 * rows) + 1
    graft_before(layer, twice)
    graft_behind(layer, plus_one)
    assert torch.equal(layer(rows), wanted)


def test_a_copy_has_the_grafts_and_the_state_dict_has_not() -> None:
    layer = nn.Linear(3, 2)
    keys = set(layer.state_dict())
    graft_behind(layer, plus_one)
    rows = torch.randn(4, 3)
    assert torch.equal(copy.deepcopy(layer)(rows), layer(rows))
    assert set(layer.state_dict()) == keys


def test_what_leaves_runs_after_an_error_too() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("on purpose")

    seen: list[str] = []
    module = Fails()
    graft_around(
        module,
        lambda module, args, kwargs: seen.append("in"),
        lambda module, args, output: seen.append("out"),
    )
    with pytest.raises(RuntimeError, match="on purpose"):
        module(torch.ones(1))
    assert seen == ["in", "out"]
