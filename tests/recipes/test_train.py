"""The main job through Python: a name, a path or a Recipe becomes a finished run.

loss_curves.json holds the first twenty losses of two small trainings, so that a change which is
meant to change nothing can be seen to. They differ between processors in the seventh digit. After a
change that is meant, write them anew with

    UPDATE_LOSS_CURVES=1 python -m pytest tests/recipes/test_train.py
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import leadline
from leadline.core.config import from_plain
from leadline.core.errors import ConfigError, UnknownNameError
from leadline.data.load import load_dataset
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.recipes import train as train_file
from leadline.recipes.catalogue import RECIPES
from leadline.recipes.train import BUDGET_SHARE, prepare, resume, train
from leadline.training.build import build_setup
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.recipe import Budget, Recipe
from leadline.training.run import Run
from leadline.training.tune import Tuning

GOLDEN = Path(__file__).with_name("loss_curves.json")
COMMAND = "UPDATE_LOSS_CURVES=1 python -m pytest tests/recipes/test_train.py"
RECIPE = Recipe(
    data=DataOptions(data="digits"),
    model=Architecture(model="mlp", width=16),
    budget=Budget(epochs=2, batch_size=64),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that the one line of the README made."""
    return leadline.train(RECIPE, root=tmp_path_factory.mktemp("runs"), execution=Execution())


def test_the_run_holds_everything_and_its_figures(finished: Run) -> None:
    assert isinstance(finished, leadline.Run)
    assert finished.folder.name == "digits-001"
    for path in (finished.model_file, finished.report_file, finished.card_file, finished.journal):
        assert path.is_file()
    assert set(finished.metrics) == {"loss", "accuracy", "top5", "calibration_error"}
    assert finished.metrics["accuracy"] > 0.5, "two epochs are better than a guess"
    events = [r["event"] for r in finished.history() if r["event"] not in ("step", "watch")]
    assert events[events.index("start") :] == ["start", "validation", "validation", "end"]


def test_the_run_is_watched_layer_by_layer_from_its_first_steps_on(finished: Run) -> None:
    rows = [row for row in finished.history() if row["event"] == "watch"]
    assert [row["step"] for row in rows][:4] == [1, 2, 4, 8]
    last = dict(zip(rows[-1]["layers"], rows[-1]["values"]["update_ratio"], strict=True))
    assert 0 < [ratio for ratio in last.values() if ratio is not None][-1] < 1
    assert "Through the depth" in finished.report_file.read_text()


def test_arrays_in_memory_are_trained_as_a_dataset(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(120) % 2
    images = torch.randint(0, 100, (120, 8, 8), generator=generator) + 100 * targets[:, None, None]
    dataset = leadline.from_arrays(images.to(torch.uint8), targets)
    run = leadline.train(dataset, root=tmp_path, execution=Execution())
    assert run.metrics["accuracy"] > 0.9
    shares = run.predict(images[:, None])  # whole numbers are read as bytes, as in the training
    assert (shares.argmax(1) == targets).float().mean() > 0.9


def test_the_run_predicts_images_in_memory(finished: Run) -> None:
    digits = load_digits()
    pixels = (digits.images * 255 / 16).round().astype("uint8")[:, None]
    shares = finished.predict(pixels)
    assert shares.shape == (1797, 10)
    assert torch.allclose(shares.sum(dim=1), torch.ones(1797))
    right = (shares.argmax(dim=1).numpy() == digits.target).mean()
    assert right == pytest.approx(finished.metrics["accuracy"], abs=0.1)


def test_the_same_recipe_gives_the_same_weights(finished: Run, tmp_path: Path) -> None:
    again = train(RECIPE, root=tmp_path, execution=Execution())
    one, other = (run.model().model.state_dict() for run in (finished, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_name_is_looked_up_and_a_path_is_looked_at(tmp_path: Path) -> None:
    for number, target in enumerate(load_digits().target[:60]):
        folder = tmp_path / "pictures" / str(target % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    named = prepare("digits")
    assert named.recipe == RECIPES["digits"].recipe and "digits" in named.reason
    for path in (tmp_path / "pictures", str(tmp_path / "pictures")):
        found = prepare(path)
        assert found.dataset.num_classes == 2
        assert found.recipe.data.data == str(tmp_path / "pictures")
        assert "because images of 8 × 8 pixels" in found.reason
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        prepare("digitz")


def test_an_execution_is_measured_when_none_is_given(tmp_path: Path) -> None:
    run = train(RECIPE, root=tmp_path)
    tuning = run.event("tuning")
    start = run.event("start")
    assert tuning is not None and start is not None
    assert tuning["execution"] == start["execution"]
    assert len(tuning["timings"]) >= 4


@pytest.mark.parametrize(("minutes", "epochs"), [(0.01, 1), (0.05, 2), (1.0, 5)])
def test_a_budget_of_minutes_lowers_the_epochs_to_what_fits_and_never_raises_them(
    minutes: float, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def promised(*_: Any, **options: Any) -> Tuning:
        (given,) = options["executions"]
        return Tuning(execution=given, examples_per_second=1293 * BUDGET_SHARE)

    monkeypatch.setattr(train_file, "tune", promised)  # an epoch takes BUDGET_SHARE⁻¹ seconds
    budget = Budget(epochs=5, batch_size=64, minutes=minutes)
    recipe = dataclasses.replace(RECIPE, budget=budget)
    run = train(recipe, root=tmp_path, execution=Execution())
    affordable = int(minutes * 60 * BUDGET_SHARE * BUDGET_SHARE)
    assert run.recipe.budget.epochs == max(1, min(5, affordable)) == epochs
    assert [r["epoch"] for r in run.history() if r["event"] == "validation"][-1] == epochs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": Budget(batch_size=5000)}, r"at most the 1,293 training examples"),
        ({"model": Architecture(model="resnet20", depth=21)}, "depth"),
        ({"model": Architecture(model="nothing")}, "'nothing'"),
    ],
)
def test_what_does_not_fit_is_said_before_a_folder_is_made(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        train(dataclasses.replace(RECIPE, **changes), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_device_that_is_not_there_is_refused_in_an_execution_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'cuda:99' on this machine"):
        train(RECIPE, root=tmp_path / "runs", execution=Execution(device="cuda:99"))
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_is_not_resumed(finished: Run) -> None:
    with pytest.raises(ConfigError, match="which is finished"):
        resume(finished.folder)


def test_a_run_that_never_began_is_begun_by_resuming_it(finished: Run, tmp_path: Path) -> None:
    run = Run.create(RECIPE, root=tmp_path)
    assert resume(run.folder).metrics.keys() == finished.metrics.keys()


def losses(recipe: Recipe) -> list[float]:
    """The first twenty, on one thread, in plain float32."""
    dataset = load_dataset(recipe.data, seed=recipe.seed)
    setup = build_setup(recipe, dataset, device="cpu")
    taken = itertools.islice(steps(setup, Execution(threads=1)), 20)
    return [step.loss.item() for step in taken]


def test_the_first_losses_are_those_written_down() -> None:
    golden = json.loads(GOLDEN.read_text())
    for entry in golden.values():
        found = losses(from_plain(Recipe, entry["recipe"]))
        if os.environ.get("UPDATE_LOSS_CURVES"):
            entry["losses"] = found
        assert found == pytest.approx(entry["losses"], rel=1e-5), (
            f"the computation changed; if that is meant, run\n    {COMMAND}\nand commit "
            f"{GOLDEN.name}"
        )
    if os.environ.get("UPDATE_LOSS_CURVES"):
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
