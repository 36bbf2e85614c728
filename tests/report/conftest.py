"""A finished run to report on: real digits, a small network, two hundred steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leadline.core.config import to_plain
from leadline.data.examples import Dataset
from leadline.data.load import load_dataset
from leadline.data.options import DataOptions
from leadline.doctor.watch import Watch
from leadline.models.architecture import Architecture
from leadline.optim.optimizers import OptimizerOptions
from leadline.tasks.classification import Classification, ClassificationResult
from leadline.training.build import build_setup, evaluation_batches
from leadline.training.evaluate import outputs_and_targets
from leadline.training.execution import Execution
from leadline.training.journal import Journal
from leadline.training.recipe import Budget, Recipe
from leadline.training.run import Run
from leadline.training.state import TrainingState
from leadline.training.train import train_setup
from leadline.training.trained import Description, save_model
from leadline.training.tune import Timing, Tuning


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A run with everything that a report is written from."""

    run: Run
    model: nn.Module
    dataset: Dataset
    outputs: Tensor
    targets: Tensor
    result: ClassificationResult

    def renamed(self, folder: Path, names: tuple[str, ...]) -> Finished:
        """A copy in another folder, whose classes have other names."""
        folder.mkdir()
        run = Run(folder)
        run.write_recipe(self.run.recipe)
        run.journal.write_text(self.run.journal.read_text())
        dataset = dataclasses.replace(self.dataset, class_names=names)
        return dataclasses.replace(self, run=run, dataset=dataset)


def watch(state: TrainingState) -> Watch:
    return Watch(state.model, state.optimizer, every=10)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A short training of a small network on scikit-learn's digits, tested."""
    recipe = Recipe(
        data=DataOptions(data="digits"),
        model=Architecture(model="mlp", width=32),
        optimizer=OptimizerOptions(optimizer="sgd", lr=0.05),
        budget=Budget(epochs=8, batch_size=64, clip_grad=5.0),
    )
    dataset = load_dataset(recipe.data)
    setup = build_setup(recipe, dataset, device="cpu")
    run = Run.create(recipe, root=tmp_path_factory.mktemp("runs"))
    timing = Timing(execution=Execution(), seconds=0.01)
    slow = Timing(execution=Execution(layout="channels_last"), seconds=None, remark="failed: no")
    tuning = Tuning(execution=Execution(), examples_per_second=6400, timings=(timing, slow))
    journal = Journal(run.journal)
    journal.event("tuning", step=0, **to_plain(tuning))
    state = train_setup(setup, run=run, execution=Execution(), observe=watch)
    model = state.evaluated_model
    outputs, targets = outputs_and_targets(
        model, evaluation_batches(dataset, dataset.test, device="cpu"), execution=Execution()
    )
    result = Classification(dataset.num_classes).evaluate(outputs, targets)
    save_model(run.model_file, model, Description.of(recipe.model, dataset))
    journal.event("end", step=state.counters.step, seconds=1.25, metrics=result.metrics())
    return Finished(
        run=run, model=model, dataset=dataset, outputs=outputs, targets=targets, result=result
    )


@pytest.fixture
def logits() -> Tensor:
    """Four examples, three classes; for [1, 1, 0, 2] the first and the third are wrong."""
    return torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 1.0]])
