"""leadline train NAME|PATH: train a network, leaving a run folder with model and report.

NAME is a recipe (see leadline list); PATH a folder of images with a class per sub-folder. Every
option changes one value of the recipe; --resume RUN goes on with an interrupted run.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from leadline.cli.options import parse
from leadline.core.config import from_json
from leadline.core.errors import ConfigError
from leadline.data.options import DataOptions
from leadline.optim.optimizers import USUAL_RATES
from leadline.recipes.catalogue import find_recipe, is_path
from leadline.recipes.train import prepare, prepare_path, resume, train_prepared
from leadline.report.terminal import Terminal
from leadline.training.execution import Execution
from leadline.training.recipe import Recipe
from leadline.training.run import Run
from leadline.training.signals import Stopped
from leadline.training.train import SAVE_INTERVAL


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The words after `leadline train`."""

    what: tyro.conf.Positional[str] = ""
    """a recipe's name, a recipe.json, or a path to data"""
    recipe: Recipe = dataclasses.field(
        default_factory=lambda: Recipe(data=DataOptions(data="digits"))
    )
    resume: Path | None = None
    """the folder of an interrupted run to go on with"""
    runs: Path = Path("runs")
    """the folder that new runs go into"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto measures which execution is fastest; the others fix it (float32: the plain one)"""
    save_interval: float = SAVE_INTERVAL
    """seconds between two checkpoints, at most"""


def run(words: list[str], *, as_json: bool) -> int:
    """Train; the exit code."""
    terminal = Terminal(quiet=as_json)
    try:
        finished = _train(words, terminal=terminal)
    except Stopped as stopped:
        terminal.stopped(stopped.number)
        return stopped.exit_code
    if as_json:
        print(json.dumps(summary(finished)))
    return 0


def summary(run: Run) -> dict[str, Any]:
    """What `leadline train --json` prints; the keys are frozen by a test."""
    end = run.event("end") or {}
    return {
        "run": str(run.folder),
        "metrics": end.get("metrics", {}),
        "seconds": end.get("seconds"),
        "steps": end.get("step"),
        "model": str(run.model_file),
        "report": str(run.report_file),
    }


def _train(words: list[str], *, terminal: Terminal) -> Run:
    default = TrainOptions()
    what = words[0] if words and not words[0].startswith("-") else ""
    if what and not is_path(what):
        default = dataclasses.replace(default, recipe=find_recipe(what))
    elif what.endswith(".json"):
        default = dataclasses.replace(default, recipe=_read_recipe(Path(what)))
    elif what:
        default = dataclasses.replace(default, recipe=Recipe(data=DataOptions(data=what)))
    options = _parse(words, default)
    if options.resume is not None:
        return resume(options.resume, terminal=terminal, save_interval=options.save_interval)
    if not options.what:
        raise ConfigError(
            expected="a recipe's name, a recipe.json, a path to data, or --resume RUN",
            received="nothing",
            remedy="try: leadline train digits",
        )
    if what == options.what and is_path(what) and not what.endswith(".json"):
        prepared = prepare_path(options.recipe.data)
        options = _parse(words, dataclasses.replace(default, recipe=prepared.recipe))
        prepared = dataclasses.replace(prepared, recipe=options.recipe)
    else:
        prepared = prepare(options.recipe)
        prepared = dataclasses.replace(prepared, reason=_reason(options.recipe, what))
    return train_prepared(
        prepared,
        root=options.runs,
        device=options.device,
        execution=_fixed_execution(options),
        save_interval=options.save_interval,
        terminal=terminal,
    )


def _parse(words: list[str], default: TrainOptions) -> TrainOptions:
    """The options; another optimizer than the recipe's gets its usual rate unless --lr is given."""
    options = parse(TrainOptions, words, verb="train", caption=__doc__ or "", default=default)
    chosen = options.recipe.optimizer
    given = any(word.split("=")[0] == "--lr" for word in words)
    if given or chosen.optimizer == default.recipe.optimizer.optimizer:
        return options
    usual = dataclasses.replace(chosen, lr=USUAL_RATES[chosen.optimizer])
    return dataclasses.replace(options, recipe=dataclasses.replace(options.recipe, optimizer=usual))


def _read_recipe(path: Path) -> Recipe:
    if not path.is_file():
        raise ConfigError(
            expected="a recipe's JSON file",
            received=f"{path}, which does not exist",
            remedy="check the path; every run folder has a recipe.json",
        )
    return from_json(Recipe, path.read_text(), source=str(path))


def _reason(recipe: Recipe, what: str) -> str:
    return f"{recipe.model.model}, as the recipe {what!r} says"


def _fixed_execution(options: TrainOptions) -> Execution | None:
    if options.precision == "auto":
        return None
    device = "cpu" if options.device == "auto" else options.device
    return Execution(device=device, precision=options.precision)
