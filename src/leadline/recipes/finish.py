"""After the last step: save the model, test it once, write the report and the model card."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from leadline.core.errors import DataError
from leadline.data.examples import Dataset
from leadline.data.load import load_dataset
from leadline.report.card import write_card
from leadline.report.page import write_report
from leadline.tasks.classification import Classification, ClassificationResult
from leadline.training.build import evaluation_batches
from leadline.training.evaluate import outputs_and_targets
from leadline.training.execution import Execution
from leadline.training.journal import Journal
from leadline.training.run import Run
from leadline.training.state import TrainingState
from leadline.training.trained import Description, save_model


@dataclass(frozen=True, kw_only=True, eq=False)
class Test:
    """A model's answers on the test split, and what they amount to."""

    outputs: Tensor
    targets: Tensor
    result: ClassificationResult


def finish_run(run: Run, state: TrainingState, *, dataset: Dataset) -> None:
    """Save and test what was trained; after `end` in the journal only the pages are missing.

    What is tested is what was saved, as it will be used: the file, in float32.
    """
    description = Description.of(run.recipe.model, dataset)
    save_model(run.model_file, state.evaluated_model, description)
    model = run.model().model
    test = test_model(model, dataset)
    Journal(run.journal).event(
        "end",
        step=state.counters.step,
        seconds=round(state.counters.seconds, 3),
        metrics=test.result.metrics(),
    )
    _write_for_people(run, model, dataset, test)


def rewrite_report(run: Run) -> dict[str, float]:
    """Test the saved model on the run's data anew, and write report and card from it."""
    trained = run.model()
    dataset = load_dataset(run.recipe.data, seed=run.recipe.seed)
    check_same_data(run, dataset)
    test = test_model(trained.model, dataset)
    _write_for_people(run, trained.model, dataset, test)
    return test.result.metrics()


def check_same_data(run: Run, dataset: Dataset) -> None:
    """Refuse data that are not those the run was trained on: its test images may be among them."""
    known = run.event("data")
    if known is None or known["fingerprint"] == dataset.fingerprint:
        return
    raise DataError(
        expected=f"the data that {run.folder} was trained on in {run.recipe.data.data}",
        received=f"other data: files were added, removed or renamed, or cannot be read; "
        f"now {len(dataset.train):,} + {len(dataset.val):,} + {len(dataset.test):,} images",
        remedy=f"put them back, or begin a new run: leadline train {run.recipe.data.data}",
    )


def test_model(model: nn.Module, dataset: Dataset) -> Test:
    """The model's answers on the test split, in its order."""
    batches = evaluation_batches(dataset, dataset.test, device="cpu")
    execution = Execution(layout="channels_last")
    outputs, targets = outputs_and_targets(execution.place(model), batches, execution=execution)
    result = Classification(dataset.num_classes).evaluate(outputs, targets)
    return Test(outputs=outputs, targets=targets, result=result)


def _write_for_people(run: Run, model: nn.Module, dataset: Dataset, test: Test) -> None:
    write_report(
        run,
        model=model,
        dataset=dataset,
        outputs=test.outputs,
        targets=test.targets,
        result=test.result,
    )
    write_card(run, dataset=dataset, result=test.result)
