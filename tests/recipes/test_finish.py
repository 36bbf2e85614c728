"""After the last step: the model is saved, tested once, and told about."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score

import leadline
from leadline.core.errors import DataError
from leadline.data.examples import Dataset
from leadline.data.load import load_dataset
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.recipes import finish
from leadline.recipes.finish import finish_run, rewrite_report
from leadline.recipes.train import prepare_path
from leadline.training.build import build_setup
from leadline.training.execution import Execution
from leadline.training.recipe import Budget, Recipe, Regularisation
from leadline.training.run import Run
from leadline.training.state import TrainingState
from leadline.training.train import train_setup

RECIPE = Recipe(
    data=DataOptions(data="digits"),
    model=Architecture(model="mlp", width=16),
    regularisation=Regularisation(ema_decay=0.9),
    budget=Budget(epochs=2, batch_size=64),
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(RECIPE.data, seed=RECIPE.seed)


@pytest.fixture(scope="module")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose steps are done and whose end is still to come."""
    run = Run.create(RECIPE, root=tmp_path_factory.mktemp("runs"))
    train_setup(build_setup(RECIPE, dataset, device="cpu"), run=run, execution=Execution())
    return run


@pytest.fixture
def run_and_state(trained: Run, dataset: Dataset, tmp_path: Path) -> tuple[Run, TrainingState]:
    """A copy of that run, and its state once more from the checkpoint."""
    run = Run(Path(shutil.copytree(trained.folder, tmp_path / "copy")))
    setup = build_setup(RECIPE, dataset, device="cpu")
    return run, train_setup(setup, run=run, execution=Execution())


def test_the_figures_of_the_end_are_those_of_the_saved_model_on_the_test_split(
    run_and_state: tuple[Run, TrainingState], dataset: Dataset
) -> None:
    run, state = run_and_state
    finish_run(run, state, dataset=dataset)
    answers = run.predict(dataset.test.take(torch.arange(len(dataset.test)))).argmax(dim=1)
    assert run.metrics["accuracy"] == pytest.approx(accuracy_score(dataset.test.targets, answers))
    end = run.event("end")
    assert end is not None
    assert end["step"] == state.counters.step == 2 * 21
    assert end["seconds"] == pytest.approx(state.counters.seconds, abs=1e-3)


def test_what_is_saved_is_the_running_average_where_there_is_one(
    run_and_state: tuple[Run, TrainingState], dataset: Dataset
) -> None:
    run, state = run_and_state
    finish_run(run, state, dataset=dataset)
    saved = run.model().model.state_dict()
    averaged, last = state.evaluated_model.state_dict(), state.model.state_dict()
    assert all(torch.equal(saved[name], averaged[name]) for name in saved)
    assert not all(torch.equal(saved[name], last[name]) for name in saved)


def test_the_model_is_there_before_the_journal_says_so_and_the_report_comes_last(
    run_and_state: tuple[Run, TrainingState], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, state = run_and_state
    seen: list[tuple[str, bool, bool]] = []

    def note(name: str) -> Callable[..., None]:
        def look(*_: object, **__: object) -> None:
            seen.append((name, run.model_file.exists(), run.event("end") is not None))

        return look

    monkeypatch.setattr(finish, "write_report", note("report"))
    monkeypatch.setattr(finish, "write_card", note("card"))
    finish_run(run, state, dataset=dataset)
    assert seen == [("report", True, True), ("card", True, True)]


def test_a_report_on_other_data_than_the_run_was_trained_on_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (8, 8), i * 5 + 100 * (name == "dog")).save(
                folder / name / f"{i:02d}.png"
            )
    prepared = prepare_path(DataOptions(data=str(folder)))
    recipe = dataclasses.replace(prepared.recipe, budget=Budget(epochs=1, batch_size=8))
    run = leadline.train(recipe, root=tmp_path / "runs", execution=Execution())
    rewrite_report(run)
    Image.new("L", (8, 8), 50).save(folder / "cat" / "000.png")
    with pytest.raises(DataError, match="files were added, removed or renamed"):
        rewrite_report(run)


def test_the_report_can_be_written_anew_from_the_folder_alone(
    run_and_state: tuple[Run, TrainingState], dataset: Dataset
) -> None:
    run, state = run_and_state
    finish_run(run, state, dataset=dataset)
    first = run.report_file.read_text()
    run.report_file.unlink()
    run.card_file.unlink()
    assert rewrite_report(run) == pytest.approx(run.metrics, rel=1e-6)
    assert len(run.report_file.read_text()) == pytest.approx(len(first), rel=0.01)
    assert run.card_file.read_text().startswith("---\n")
