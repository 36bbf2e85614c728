"""After the last step: save the model, test it once, write the report and the model card."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

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
    """Save and test what was trained; the run is complete when its journal says `end`."""
    model = state.evaluated_model
    save_model(run.model_file, model, Description.of(run.recipe.model, dataset))
    test = test_model(model, dataset, execution=state.execution)
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
    test = test_model(trained.model, dataset, execution=Execution())
    _write_for_people(run, trained.model, dataset, test)
    return test.result.metrics()


def test_model(model: nn.Module, dataset: Dataset, *, execution: Execution) -> Test:
    """The model's answers on the test split, in its order."""
    batches = evaluation_batches(dataset, dataset.test, device=execution.device)
    outputs, targets = outputs_and_targets(model, batches, execution=execution)
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
