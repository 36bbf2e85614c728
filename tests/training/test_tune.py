"""Tuning on a clock of our own: the fastest execution wins, a wrong or broken one never does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.core.seeds import capture_random_state
from leadline.training import tune as tuning_file
from leadline.training.execution import Execution
from leadline.training.setup import Setup
from leadline.training.tune import HOPELESS, ROUNDS, cache_file, candidates, tune

EXAMPLES = 8


class Clock:
    """The seconds that have passed; the network below says how long each of its steps took."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps: list[tuple[str, int]] = []


class Timed(nn.Module):
    """A network whose time per step and whose answers are as a test wants them."""

    def __init__(self, clock: Clock, seconds: Callable[[str, int], float]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.clock = [clock]  # a list, so that the module does not print it
        self.seconds = seconds
        self.factor = {"bfloat16": 1.0}

    def forward(self, inputs: Tensor) -> Tensor:
        narrow = torch.is_autocast_enabled("cpu")
        precision = "bfloat16" if narrow else "float32"
        clock = self.clock[0]
        clock.steps.append((precision, torch.get_num_threads()))
        clock.now += self.seconds(precision, torch.get_num_threads())
        outputs: Tensor = self.layer(inputs)
        return outputs * self.factor["bfloat16"] if narrow else outputs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that tuning reads in these tests."""
    ticking = Clock()
    monkeypatch.setattr(tuning_file, "time", SimpleNamespace(perf_counter=lambda: ticking.now))
    torch.set_num_threads(1)
    return ticking


def make_setup(
    clock: Clock,
    seconds: Callable[[str, int], float] = lambda precision, threads: 1.0,
    *,
    factor: float = 1.0,
    examples: int = EXAMPLES,
    lr: float = 0.1,
) -> Setup:
    def model() -> nn.Module:
        made = Timed(clock, seconds)
        made.factor["bfloat16"] = factor
        return made

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(examples, 4, generator=generator)
    return Setup(
        model=model,
        batches=[(inputs, torch.arange(examples) % 3)] * 3,
        loss=nn.functional.cross_entropy,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=lr),
    )


FLOAT = Execution(threads=1)
NARROW = Execution(precision="bfloat16", threads=1)


def test_the_candidates_begin_with_the_plain_default() -> None:
    torch.set_num_threads(2)
    found = candidates("cpu")
    assert found[0] == Execution(threads=2)
    assert {(e.precision, e.layout) for e in found} == {
        (precision, layout)
        for precision in ("float32", "bfloat16")
        for layout in ("contiguous", "channels_last")
    }
    assert candidates("cuda")[0] == Execution(device="cuda")


@pytest.mark.parametrize(("narrow", "winner"), [(0.25, NARROW), (4.0, FLOAT)])
def test_the_fastest_wins_and_its_speed_is_promised(
    narrow: float, winner: Execution, clock: Clock
) -> None:
    setup = make_setup(clock, lambda precision, _: narrow if precision == "bfloat16" else 1.0)
    found = tune(setup, device="cpu", executions=(FLOAT, NARROW))
    assert found.execution == winner
    assert found.examples_per_second == pytest.approx(EXAMPLES / min(1.0, narrow))
    assert [t.seconds for t in found.timings] == pytest.approx([1.0, narrow])


def test_other_work_on_the_machine_only_slows_so_the_fastest_step_counts(clock: Clock) -> None:
    taken = iter([9.0, 3.0, 1.0, 7.0, 2.0])  # the first one warms up
    found = tune(make_setup(clock, lambda *_: next(taken)), device="cpu", executions=(FLOAT,))
    assert found.timings[0].seconds == pytest.approx(1.0)
    assert found.timings[0].slowest == pytest.approx(7.0)


def test_a_hopeless_candidate_is_not_timed_to_the_end(clock: Clock) -> None:
    slow = 1.1 * HOPELESS
    setup = make_setup(clock, lambda precision, _: slow if precision == "bfloat16" else 1.0)
    tune(setup, device="cpu", executions=(FLOAT, NARROW))
    steps = [precision for precision, _ in clock.steps]
    assert steps.count("float32") == 1 + ROUNDS
    assert steps.count("bfloat16") == 1 + ROUNDS // 2


def test_one_thread_is_tried_for_the_winner(clock: Clock) -> None:
    torch.set_num_threads(2)
    setup = make_setup(clock, lambda _, threads: 0.5 if threads == 1 else 1.0)
    found = tune(setup, device="cpu")
    assert found.execution.threads == 1
    assert found.examples_per_second == pytest.approx(EXAMPLES / 0.5)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("factor", "said"), [(3.0, "disagrees with"), (float("nan"), "nan")])
def test_a_candidate_whose_loss_disagrees_is_out_however_fast(
    factor: float, said: str, clock: Clock
) -> None:
    def seconds(precision: str, threads: int) -> float:
        return 0.01 if precision == "bfloat16" else 1.0

    setup = make_setup(clock, seconds, factor=factor)
    found = tune(setup, device="cpu", executions=(FLOAT, NARROW))
    assert found.execution == FLOAT
    assert found.timings[1].seconds is None
    assert "its loss" in found.timings[1].remark and said in found.timings[1].remark


def test_a_candidate_that_fails_is_out_and_says_why(clock: Clock) -> None:
    def seconds(precision: str, threads: int) -> float:
        if precision == "bfloat16":
            raise RuntimeError("no kernel for this\nand a long story")
        return 1.0

    found = tune(make_setup(clock, seconds), device="cpu", executions=(FLOAT, NARROW))
    assert found.execution == FLOAT
    assert found.timings[1].remark == "failed: no kernel for this"


def test_when_the_plain_default_fails_the_error_is_the_users(clock: Clock) -> None:
    def seconds(precision: str, threads: int) -> float:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        tune(make_setup(clock, seconds), device="cpu", executions=(FLOAT, NARROW))


def test_tuning_leaves_no_trace(clock: Clock) -> None:
    setup = make_setup(clock)
    torch.manual_seed(5)
    before = capture_random_state().state_dict()["torch"]
    tune(setup, device="cpu", executions=(FLOAT, NARROW))
    assert torch.equal(capture_random_state().state_dict()["torch"], before)
    assert sum(1 for _ in setup.batches) == 3


def count_steps(clock: Clock, setup: Setup, cache: Path | None) -> int:
    before = len(clock.steps)
    tune(setup, device="cpu", executions=(FLOAT, NARROW), cache=cache)
    return len(clock.steps) - before


def test_a_result_is_remembered_until_model_shapes_or_optimizer_change(
    clock: Clock, tmp_path: Path
) -> None:
    cache = tmp_path / "deeper" / "executions.json"
    first = tune(make_setup(clock), device="cpu", executions=(FLOAT, NARROW), cache=cache)
    again = tune(make_setup(clock), device="cpu", executions=(FLOAT, NARROW), cache=cache)
    assert again == first
    assert count_steps(clock, make_setup(clock), cache) == 0
    assert count_steps(clock, make_setup(clock, lr=0.5), cache) == 0
    assert count_steps(clock, make_setup(clock, examples=16), cache) > 0

    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters())

    assert count_steps(clock, dataclasses.replace(make_setup(clock), optimizer=adam), cache) > 0
    assert len(json.loads(cache.read_text())) == 3


def test_a_disturbed_measurement_is_used_but_not_remembered(clock: Clock, tmp_path: Path) -> None:
    cache = tmp_path / "executions.json"
    taken = iter([1.0, 1.0, 1.0, 9.0, 1.0])
    found = tune(
        make_setup(clock, lambda *_: next(taken)), device="cpu", executions=(FLOAT,), cache=cache
    )
    assert found.execution == FLOAT
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}'])
def test_a_cache_that_cannot_be_used_costs_a_measurement_and_nothing_else(
    content: str, clock: Clock, tmp_path: Path
) -> None:
    cache = tmp_path / "executions.json"
    cache.write_text(content)
    assert count_steps(clock, make_setup(clock), cache) > 0
    (tmp_path / "file").write_text("")
    assert count_steps(clock, make_setup(clock), tmp_path / "file" / "executions.json") > 0


def test_an_entry_of_another_version_is_measured_anew(clock: Clock, tmp_path: Path) -> None:
    cache = tmp_path / "executions.json"
    count_steps(clock, make_setup(clock), cache)
    (key,) = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: {"execution": {"precision": "float8"}}}))
    assert count_steps(clock, make_setup(clock), cache) > 0
    assert count_steps(clock, make_setup(clock), cache) == 0


def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LEADLINE_CACHE", str(tmp_path))
    assert cache_file() == tmp_path / "executions.json"
    monkeypatch.delenv("LEADLINE_CACHE")
    assert cache_file() == Path.home() / ".cache" / "leadline" / "executions.json"


def test_the_real_clock_gives_the_same_kind_of_answer() -> None:
    torch.set_num_threads(1)
    images = torch.randn(4, 3, 8, 8)
    setup: Any = Setup(
        model=lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 2)),
        batches=[(images, torch.tensor([0, 1, 0, 1]))],
        loss=nn.functional.cross_entropy,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    found = tune(setup, device="cpu")
    assert found.execution in candidates("cpu")
    best = min(t.seconds for t in found.timings if t.seconds is not None)
    assert found.examples_per_second == pytest.approx(4 / best)
