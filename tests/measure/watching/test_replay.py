"""Tests of the replay: it runs on a few examples, and nothing tells afterwards that it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from leadline.core.taps import Taps
from leadline.measure.watching.replay import is_compiled, original, replay


def shapes_of(model: nn.Module, *args: Any, **kwargs: Any) -> tuple[bool, list[tuple[int, ...]]]:
    seen: list[tuple[int, ...]] = []

    def listen(taps: Taps) -> None:
        seen.clear()
        taps.on_output(lambda call, inputs, output: seen.append(tuple(output.shape)))

    return replay(model, (args, kwargs), listen), seen


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor, *, index: Tensor | None = None) -> Tensor:
        return self.linear(x if index is None else x[index])


def test_it_runs_on_sixteen_examples_from_all_over_the_batch() -> None:
    assert shapes_of(TwoInputs(), torch.ones(100, 2)) == (True, [(15, 3), (15, 3)])
    assert shapes_of(TwoInputs(), torch.ones(5, 2)) == (True, [(5, 3), (5, 3)])


def test_tensors_of_different_lengths_are_kept_whole_since_they_may_point_into_each_other() -> None:
    ran, shapes = shapes_of(TwoInputs(), torch.ones(50, 2), index=torch.arange(40))
    assert ran and shapes[0] == (40, 3)


def test_a_model_that_needs_the_whole_batch_gets_it() -> None:
    class Picky(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == 64
            return super().forward(x)

    assert shapes_of(Picky(2, 3), torch.ones(64, 2)) == (True, [(64, 3)])
    assert shapes_of(Picky(2, 3), torch.ones(65, 2))[0] is False


def test_it_leaves_buffers_random_numbers_gradients_and_autocast_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model(torch.randn(8, 4)).sum().backward()
    states = {name: value.clone() for name, value in model.state_dict().items()}
    gradient = model[0].weight.grad
    random = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ran, _ = shapes_of(model, torch.randn(8, 4))
        assert ran and torch.is_autocast_cache_enabled()
        random = torch.get_rng_state()
        shapes_of(model, torch.ones(8, 4))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(states[name], value) for name, value in model.state_dict().items())
    assert model[0].weight.grad is gradient


def test_the_original_is_found_below_every_wrapper(tmp_path: Path) -> None:
    model = TwoInputs()
    compiled: Any = torch.compile(model, backend="eager")
    assert original(compiled) is model and original(model) is model
    assert is_compiled(compiled) and is_compiled(nn.Sequential(compiled)) and not is_compiled(model)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert original(DistributedDataParallel(compiled)) is model
        synced = nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2))
        assert shapes_of(model, torch.ones(2, 2))[0] is True
        assert shapes_of(synced, torch.ones(2, 2)) == (False, [])  # would wait for the others
    finally:
        torch.distributed.destroy_process_group()
    model.compile(backend="eager")
    assert is_compiled(model)


@pytest.mark.parametrize(
    "inputs", [{"x": torch.ones(40, 2)}, {"x": torch.ones(40, 2), "index": None}]
)
def test_keywords_are_arguments_too(inputs: dict[str, Any]) -> None:
    ran, shapes = shapes_of(TwoInputs(), **inputs)
    assert ran and shapes[0] == (14, 3)
