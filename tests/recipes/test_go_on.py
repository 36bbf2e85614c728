"""Tests of a run folder that is taken back to before a fault, with nothing thrown away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leadline.core.config import to_json
from leadline.data.examples import Dataset
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.optim.optimizers import OptimizerOptions
from leadline.optim.schedules import schedule_factor
from leadline.recipes.go_on import prepare_to_go_on
from leadline.recipes.heal import with_settings
from leadline.training.build import build_setup
from leadline.training.checkpoint import checkpoint_files, load_checkpoint
from leadline.training.execution import Execution
from leadline.training.recipe import Budget, Recipe
from leadline.training.run import Run
from leadline.training.train import train_setup

RECIPE = Recipe(
    data=DataOptions(data="noise"),
    model=Architecture(model="mlp", width=8, depth=1),
    optimizer=OptimizerOptions(optimizer="sgd", lr=0.1),
    budget=Budget(epochs=4, batch_size=16),
)
EXECUTION = Execution()


@pytest.fixture(scope="module")
def dataset(noise: Callable[..., Dataset]) -> Dataset:
    return noise(examples=100, size=8)


@pytest.fixture
def run(tmp_path: Path, dataset: Dataset) -> Run:
    """A run with the checkpoints of its last two epochs."""
    run = Run.create(RECIPE, root=tmp_path)
    setup = build_setup(RECIPE, dataset, device="cpu")
    train_setup(setup, run=run, execution=EXECUTION, save_interval=0.0)
    return run


def steps_of(run: Run) -> list[int]:
    return [row["step"] for row in run.history() if row["event"] == "step"]


def numbers(folder: Path) -> list[int]:
    return [int(path.stem.partition("-")[2]) for path in checkpoint_files(folder)]


def test_from_the_start_nothing_is_left_to_resume_and_all_lies_beside(
    run: Run, dataset: Dataset
) -> None:
    before, saved = run.journal.read_text(), numbers(run.checkpoints)
    healed = with_settings(RECIPE, {"model.activation": "gelu"})
    setup = build_setup(healed, dataset, device="cpu")
    ready = prepare_to_go_on(run, healed, setup, execution=EXECUTION, since=None)
    assert ready.step == 0
    assert ready.kept == ("recipe.before-1.json", "journal.before-1.jsonl", "checkpoints/before-1")
    assert (run.folder / ready.kept[0]).read_text() == to_json(RECIPE)
    assert (run.folder / ready.kept[1]).read_text() == before
    assert numbers(run.folder / ready.kept[2]) == saved
    assert run.recipe == healed
    assert numbers(run.checkpoints) == [] and steps_of(run) == []
    assert run.event("start") is None, "it is about to start again"


def test_a_checkpoint_from_before_the_fault_goes_on_under_the_new_rate(
    run: Run, dataset: Dataset
) -> None:
    newest, older = numbers(run.checkpoints)[:2]
    weights = load_checkpoint(checkpoint_files(run.checkpoints)[1])["model"]
    healed = with_settings(RECIPE, {"optimizer.lr": 0.02})
    setup = build_setup(healed, dataset, device="cpu")
    ready = prepare_to_go_on(run, healed, setup, execution=EXECUTION, since=newest - 1)
    assert ready.step == older
    assert numbers(run.checkpoints) == [older]
    state = load_checkpoint(checkpoint_files(run.checkpoints)[0])
    assert all(torch.equal(state["model"][name], weights[name]) for name in weights)
    assert state["optimizer"]["state"], "the momentum is kept"
    assert steps_of(run) == list(range(1, older + 1))
    state_after = train_setup(setup, run=run, execution=EXECUTION)
    total = steps_of(run)[-1]
    assert steps_of(run) == list(range(1, total + 1))
    rates = [row["lr"] for row in run.history() if row["event"] == "step"]
    for step in range(older, total):
        factor = schedule_factor(healed.schedule, step, total_steps=total)
        assert rates[step] == pytest.approx(0.02 * factor, rel=1e-6)
    factor = schedule_factor(RECIPE.schedule, older - 1, total_steps=total)
    assert rates[older - 1] == pytest.approx(0.1 * factor, rel=1e-6)
    assert state_after.counters.step == total


def test_another_optimizer_begins_without_the_memory_of_the_first(
    run: Run, dataset: Dataset
) -> None:
    healed = with_settings(RECIPE, {"optimizer.optimizer": "adamw", "optimizer.lr": 1e-3})
    setup = build_setup(healed, dataset, device="cpu")
    ready = prepare_to_go_on(run, healed, setup, execution=EXECUTION, since=10_000)
    state = load_checkpoint(checkpoint_files(run.checkpoints)[0])
    assert ready.step > 0 and not state["optimizer"]["state"]
    # the whole training was done already: going on has nothing left to do
    assert train_setup(setup, run=run, execution=EXECUTION).counters.step == ready.step


def test_a_second_healing_does_not_overwrite_what_the_first_kept(
    run: Run, dataset: Dataset
) -> None:
    for number, rate in enumerate((0.05, 0.02), start=1):
        healed = with_settings(RECIPE, {"optimizer.lr": rate})
        setup = build_setup(healed, dataset, device="cpu")
        ready = prepare_to_go_on(run, healed, setup, execution=EXECUTION, since=0)
        assert ready.kept[0] == f"recipe.before-{number}.json"
    kept = json.loads((run.folder / "recipe.before-2.json").read_text())
    assert kept["optimizer"]["lr"] == 0.05
