"""The main job: from a recipe's name, a path to data, or a Recipe, to a finished run folder.

Every room of the house in the order of the work: data, recipe, setup, execution, steps, run,
report. `leadline.train` is this file's `train`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.text import Text

from leadline.core.config import to_plain
from leadline.core.devices import choose_device
from leadline.core.errors import ConfigError, NonFiniteError
from leadline.data.examples import Dataset
from leadline.data.load import load_dataset
from leadline.data.options import DataOptions
from leadline.doctor.attending import AttendedWatch
from leadline.doctor.watch import Watch
from leadline.recipes.attend import Doctor, Healing, Mode
from leadline.recipes.catalogue import find_recipe, is_path, read_recipe
from leadline.recipes.choose import choose_recipe
from leadline.recipes.finish import check_same_data, finish_run
from leadline.report.progress import ProgressReader
from leadline.report.terminal import Terminal
from leadline.training.build import build_setup, start_notes
from leadline.training.checkpoint import newest_checkpoint
from leadline.training.execution import Execution
from leadline.training.journal import Journal
from leadline.training.recipe import Recipe
from leadline.training.run import Run
from leadline.training.state import TrainingState
from leadline.training.step import Step
from leadline.training.train import SAVE_INTERVAL, Validation, train_setup
from leadline.training.tune import Tuning, cache_file, tune

BUDGET_SHARE = 0.85
"""Share of `minutes` that the steps may fill; the rest is evaluation, saves and a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A recipe with its data, read and ready."""

    recipe: Recipe
    dataset: Dataset
    reason: str


def train(
    what: str | Path | Recipe | Dataset,
    *,
    root: Path | str = "runs",
    device: str = "auto",
    execution: Execution | None = None,
) -> Run:
    """Train what a name, a path or a Recipe describes; the run folder is new, under `root`.

    A path leads to a folder of images, or to the recipe.json of a run. Arrays in memory are
    trained as the Dataset that `from_arrays` makes of them; such a run cannot be resumed or
    reported on later, since its data are nowhere to be read.

    `execution` None means: measure which one is fastest here, or remember it. Raises a
    `LeadlineError` that says what to do when the data or the recipe cannot be used.
    """
    return train_prepared(prepare(what), root=Path(root), device=device, execution=execution)


def prepare(what: str | Path | Recipe | Dataset) -> Prepared:
    """Read the data; for a path to data, choose the recipe that fits them."""
    if isinstance(what, Dataset):
        choice = choose_recipe(what, DataOptions(data=what.name))
        return Prepared(recipe=choice.recipe, dataset=what, reason=choice.reason)
    if isinstance(what, Recipe):
        return _prepare_recipe(what, reason="as the recipe says")
    name = str(what)
    if not isinstance(what, Path) and not is_path(name):
        return _prepare_recipe(find_recipe(name), reason=f"the recipe {name!r}")
    if name.endswith(".json"):
        return _prepare_recipe(read_recipe(Path(name)), reason=f"as {name} says")
    return prepare_path(DataOptions(data=name))


def prepare_path(options: DataOptions, *, seed: int = 0) -> Prepared:
    """Read the data at a path and choose the recipe that fits them."""
    dataset = load_dataset(options, seed=seed)
    choice = choose_recipe(dataset, options)
    recipe = replace(choice.recipe, seed=seed)
    return Prepared(recipe=recipe, dataset=dataset, reason=choice.reason)


def _prepare_recipe(recipe: Recipe, *, reason: str) -> Prepared:
    dataset = load_dataset(recipe.data, seed=recipe.seed)
    return Prepared(recipe=recipe, dataset=dataset, reason=reason)


def train_prepared(
    prepared: Prepared,
    *,
    root: Path,
    device: str = "auto",
    execution: Execution | None = None,
    terminal: Terminal | None = None,
    save_interval: float = SAVE_INTERVAL,
    doctor: Mode = "off",
) -> Run:
    """Train a prepared recipe into a new run folder under `root`, attended where that is asked."""
    place = str(choose_device(device if execution is None else execution.device))
    _check_fits(prepared.recipe, prepared.dataset)
    run = Run.create(prepared.recipe, root=root)
    with run.locked():
        given = to_plain(execution) if execution else None
        Journal(run.journal).event("asked", step=0, device=place, execution=given, doctor=doctor)
        training = _Training(run, prepared, terminal or Terminal(), save_interval, doctor)
        training.terminal.say("run", str(run.folder))
        training.terminal.found(prepared.dataset, reason=prepared.reason)
        for note in start_notes(prepared.recipe, prepared.dataset):
            training.terminal.say("weights", note)
        training.begin(place, execution=execution)
    return run


def resume(
    folder: Path | str,
    *,
    terminal: Terminal | None = None,
    save_interval: float = SAVE_INTERVAL,
) -> Run:
    """Go on with an interrupted run, exactly where its newest valid checkpoint stands."""
    run = Run.open(folder)
    with run.locked():
        if run.event("end") is not None:
            raise ConfigError(
                expected="a run whose training did not end",
                received=f"{run.folder}, which is finished",
                remedy=f"begin a new one: leadline train {run.folder}/recipe.json --epochs N"
                if run.card_file.exists()
                else f"write its report, which is missing: leadline report {run.folder}",
            )
        recipe = run.recipe
        prepared = _prepare_recipe(recipe, reason=f"{recipe.model.model}, as the run began")
        begun, asked = run.event("start"), run.event("asked")
        doctor: Mode = asked.get("doctor", "off") if asked else "off"
        training = _Training(run, prepared, terminal or Terminal(), save_interval, doctor)
        training.terminal.found(prepared.dataset, reason=prepared.reason)
        _say_where(run, training.terminal)
        if begun is None:
            given = asked["execution"] if asked else None
            training.begin(
                str(choose_device(asked["device"] if asked else "auto")),
                execution=Execution(**given) if given else None,
            )
        else:
            execution = Execution(**begun["execution"])
            choose_device(execution.device)
            check_same_data(run, prepared.dataset)
            training.go_on(recipe, execution)
    return run


@dataclass(frozen=True)
class _Training:
    """One run's way from prepared data to the report; the folder is locked meanwhile."""

    run: Run
    prepared: Prepared
    terminal: Terminal
    save_interval: float
    doctor: Mode

    def begin(self, device: str, *, execution: Execution | None) -> None:
        """Settle what the machine decides, execution and epochs, then train."""
        recipe, dataset = self.prepared.recipe, self.prepared.dataset
        setup = build_setup(recipe, dataset, device=device)
        if execution is None or recipe.budget.minutes is not None:
            given = None if execution is None else (execution,)
            tuning = tune(setup, device=device, executions=given, cache=cache_file())
            Journal(self.run.journal).event("tuning", step=0, **to_plain(tuning))
            execution = tuning.execution
            recipe = _within_minutes(recipe, dataset, tuning)
            self.run.write_recipe(recipe)
            self.terminal.tuned(tuning)
        Journal(self.run.journal).event("data", step=0, fingerprint=dataset.fingerprint)
        self.go_on(recipe, execution)

    def go_on(self, recipe: Recipe, execution: Execution) -> None:
        """Train from wherever the run stands to its end, healed on the way where that is asked."""
        doctor = Doctor(
            mode=self.doctor,
            run=self.run,
            dataset=self.prepared.dataset,
            recipe=recipe,
            execution=execution,
            terminal=self.terminal,
        )
        state: TrainingState | None = None
        while state is None:
            try:
                state = self._attempt(doctor)
            except Healing as healing:
                doctor.heal(healing)
        finish_run(self.run, state, dataset=self.prepared.dataset)
        self.terminal.finished(self.run)

    def _attempt(self, doctor: Doctor) -> TrainingState:
        """Train to the end; Healing where the doctor stops it, NonFiniteError where that cannot."""
        execution = doctor.execution
        setup = build_setup(doctor.recipe, self.prepared.dataset, device=execution.device)
        attendant = doctor.attend()

        def observe(state: TrainingState) -> Watch | AttendedWatch:
            """Look on: the journal and the report tell what every layer did."""
            watch = Watch(state.forward, state.optimizer, start=state.counters.step)
            return watch if attendant is None else AttendedWatch(watch, attendant)

        with ProgressReader(setup, terminal=self.terminal) as progress:

            def read(step: Step, validation: Validation | None) -> None:
                progress(step, validation)
                if attendant is not None:
                    attendant(step, validation)

            try:
                return train_setup(
                    setup,
                    run=self.run,
                    execution=execution,
                    reader=read,
                    observe=observe,
                    save_interval=self.save_interval,
                )
            except NonFiniteError as error:
                _say_failed(self.run, error)
                doctor.failed(error)
                raise


def _say_failed(run: Run, error: NonFiniteError) -> None:
    """A line in the journal, for whoever asks later why the run has no end."""
    steps = [row["step"] for row in run.history() if row["event"] == "step"]
    step = steps[-1] if steps else 0
    Journal(run.journal).event("failed", step=step, error=error.received)


def _within_minutes(recipe: Recipe, dataset: Dataset, tuning: Tuning) -> Recipe:
    """The recipe with as many epochs as this machine trains in the recipe's minutes."""
    if recipe.budget.minutes is None:
        return recipe
    seconds_per_epoch = len(dataset.train) / tuning.examples_per_second
    affordable = int(BUDGET_SHARE * recipe.budget.minutes * 60 / seconds_per_epoch)
    epochs = max(1, min(recipe.budget.epochs, affordable))
    return replace(recipe, budget=replace(recipe.budget, epochs=epochs, minutes=None))


def _say_where(run: Run, terminal: Terminal) -> None:
    """Say from which step a run goes on; a damaged checkpoint is named on stderr in any case."""
    found = newest_checkpoint(run.checkpoints)
    for name in found.damaged if found else ():
        text = f"damaged   {run.checkpoints / name}: passed over for the newest valid checkpoint"
        terminal.errors.print(Text(text), soft_wrap=True)
    if found is None:
        terminal.say("run", f"{run.folder}, from its start: nothing was saved yet")
    else:
        step = found.state["counters"]["step"]
        terminal.say("run", f"{run.folder}, from step {step} ({found.path.name})")


def _check_fits(recipe: Recipe, dataset: Dataset) -> None:
    """Find what is wrong with a recipe before a folder is made for its run."""
    if recipe.budget.batch_size > len(dataset.train):
        raise ConfigError(
            expected=f"a batch_size of at most the {len(dataset.train):,} training examples",
            received=f"batch_size {recipe.budget.batch_size:,}",
            remedy=f"use --batch-size {max(2, min(32, len(dataset.train)))} or less",
        )
    setup = build_setup(recipe, dataset, device="cpu")
    setup.optimizer(setup.model())
