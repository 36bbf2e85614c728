"""leadline train NAME|PATH: train a network, leaving a run folder with model and report.

NAME is a recipe (see leadline list); PATH a folder of images with a sub-folder for each class, for
which a recipe is chosen. Every option below changes one value of that recipe, --epochs 5 say.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from leadline.cli.options import parse
from leadline.core.config import check, in_range
from leadline.core.devices import choose_device
from leadline.core.errors import ConfigError
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.optim.optimizers import USUAL_RATES
from leadline.recipes.attend import Mode
from leadline.recipes.catalogue import find_recipe, is_path, read_recipe
from leadline.recipes.train import prepare, prepare_path, resume, train_prepared
from leadline.report.terminal import Terminal
from leadline.training.execution import Execution
from leadline.training.recipe import Recipe
from leadline.training.run import Run
from leadline.training.signals import Stopped
from leadline.training.train import SAVE_INTERVAL
from leadline.training.transfer import read_start


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The words after `leadline train`."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME|PATH")] = ""
    """a recipe's name, a path to data, or a recipe.json"""
    recipe: Recipe = dataclasses.field(
        default_factory=lambda: Recipe(data=DataOptions(data="digits"))
    )
    """Values of the recipe; the defaults shown are those of the recipe that is named."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """go on with an interrupted run, by its folder; recipe and execution are the run's own"""
    runs: Path = Path("runs")
    """the folder that new runs go into"""
    device: str = "auto"
    """where to compute: auto (the fastest kind there is), cpu, cuda, cuda:1, mps"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto measures which execution is fastest; float32 is the plain one"""
    doctor: Annotated[Mode, tyro.conf.arg(metavar="off|advise|heal")] = "off"
    """look on while it trains: say what is wrong, or (heal; --doctor alone) prove, mend, go on"""
    save_interval: float = SAVE_INTERVAL
    """seconds between two checkpoints, at most: what a power failure can cost"""

    def __post_init__(self) -> None:
        check(self, in_range("save_interval", self.save_interval, 0))


def run(words: list[str], *, as_json: bool) -> int:
    """Train; the exit code."""
    terminal = Terminal(quiet=as_json)
    try:
        finished = _train(_in_full(words), terminal=terminal)
    except Stopped as stopped:
        folder = shlex.quote(str(stopped.folder))
        terminal.stopped(stopped.number, run=folder)
        if as_json:
            print(json.dumps(_stopped(stopped, folder)))
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
        "doctor": [
            {key: row.get(key) for key in ("at", "outcome", "says", "applied")}
            for row in run.history()
            if row["event"] == "doctor"
        ],
    }


def _stopped(stopped: Stopped, folder: str) -> dict[str, str]:
    return {
        "error": "Stopped",
        "expected": "the training to go on to its end",
        "received": str(stopped),
        "remedy": f"it is saved; go on with leadline train --resume {folder}",
    }


def _train(words: list[str], *, terminal: Terminal) -> Run:
    what = _what(words)
    default = dataclasses.replace(TrainOptions(), recipe=_recipe(what))
    options = _parse(words, default)
    if options.resume is not None:
        _refuse_beside_resume(words, options)
        return resume(options.resume, terminal=terminal, save_interval=options.save_interval)
    if not what:
        raise ConfigError(
            expected="a recipe's name, a path to data, a recipe.json, or --resume RUN",
            received="nothing",
            remedy="try: leadline train digits",
        )
    execution = _fixed_execution(options)
    if _is_data(what):
        terminal.say("reading", what)
        prepared = prepare_path(options.recipe.data, seed=options.recipe.seed)
        default = dataclasses.replace(default, recipe=prepared.recipe)
        options = _parse(words, default)
        reason = prepared.reason
    else:
        prepared = prepare(options.recipe)
        reason = f"{default.recipe.model.model}, as the recipe {what!r} says"
    model = options.recipe.model.model
    if model != default.recipe.model.model:
        reason = f"{model}, as --model says"
        if options.recipe.transfer.pretrained and "--model" not in _names(words):
            reason = f"{model}, whose weights {options.recipe.transfer.pretrained} has"
    return train_prepared(
        dataclasses.replace(prepared, recipe=options.recipe, reason=reason),
        root=options.runs,
        device=options.device,
        execution=execution,
        save_interval=options.save_interval,
        terminal=terminal,
        doctor=options.doctor,
    )


def _what(words: list[str]) -> str:
    """What to train: the first word, or the one that is left when the options are read."""
    if words and not words[0].startswith("-"):
        return words[0]
    return _parse(words, TrainOptions()).what


def _is_data(what: str) -> bool:
    return is_path(what) and not what.endswith(".json")


def _recipe(what: str) -> Recipe:
    """The recipe whose values the options change; for a path only its data are known so far."""
    if what and (Path(what) / "recipe.json").is_file():
        raise ConfigError(
            expected="a recipe's name, a path to data, or a recipe.json",
            received=f"{what}, which is the folder of a run",
            remedy=f"go on with it: --resume {what}; or train it anew: {what}/recipe.json",
        )
    if not what or _is_data(what):
        return Recipe(data=DataOptions(data=what or "digits"))
    return read_recipe(Path(what)) if what.endswith(".json") else find_recipe(what)


def _in_full(words: list[str]) -> list[str]:
    """The words with `--doctor heal` for `--doctor` by itself, and `--pretrained` for `--from`.

    >>> _in_full(["--doctor", "digits"]), _in_full(["digits", "--doctor", "advise"])
    (['--doctor', 'heal', 'digits'], ['digits', '--doctor', 'advise'])
    >>> _in_full(["digits", "--from", "runs/mnist-001"])
    ['digits', '--pretrained', 'runs/mnist-001']
    """
    told: list[str] = []
    for place, word in enumerate(words):
        told.append("--pretrained" + word.removeprefix("--from") if _is_from(word) else word)
        if word == "--doctor" and words[place + 1 : place + 2] not in ([m] for m in get_args(Mode)):
            told.append("heal")
    return told


def _is_from(word: str) -> bool:
    return word == "--from" or word.startswith("--from=")


def _parse(words: list[str], default: TrainOptions) -> TrainOptions:
    """The options; another model or optimizer than the recipe's comes with its own defaults."""
    options = parse(TrainOptions, words, verb="train", caption=__doc__ or "", default=default)
    recipe = _fitting(default.recipe, options.recipe, words)
    fitting = dataclasses.replace(default, recipe=recipe)
    if fitting == default:
        return options
    return parse(TrainOptions, words, verb="train", caption=__doc__ or "", default=fitting)


def _fitting(recipe: Recipe, chosen: Recipe, words: list[str]) -> Recipe:
    """The recipe without what it says about another model or optimizer than the chosen one.

    Weights to begin from bring the model that they belong to, unless one is named.
    """
    place = chosen.transfer.pretrained
    if place and "--model" not in _names(words):
        recipe = dataclasses.replace(recipe, model=read_start(place).architecture)
    elif chosen.model.model != recipe.model.model:
        recipe = dataclasses.replace(recipe, model=Architecture(model=chosen.model.model))
    name = chosen.optimizer.optimizer
    if name != recipe.optimizer.optimizer:
        rate = USUAL_RATES[name]
        optimizer = dataclasses.replace(recipe.optimizer, optimizer=name, lr=rate)
        recipe = dataclasses.replace(recipe, optimizer=optimizer)
    return recipe


def _names(words: list[str]) -> list[str]:
    """The names of the options among the words, as they are listed in the help."""
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [name.replace("_", "-") for name in names]


def _refuse_beside_resume(words: list[str], options: TrainOptions) -> None:
    """Nothing that is asked for is silently left out."""
    beside = [name for name in _names(words) if name not in ("--resume", "--save-interval")]
    beside += [options.what] if options.what else []
    if beside:
        raise ConfigError(
            expected="--resume RUN alone: an interrupted run goes on exactly as it began",
            received=f"{', '.join(beside)} beside it",
            remedy="leave that out, or begin a new run: "
            f"leadline train {options.resume}/recipe.json",
        )


def _fixed_execution(options: TrainOptions) -> Execution | None:
    """The execution that was asked for; None to measure. A missing device is an error already."""
    device = str(choose_device(options.device))
    if options.precision == "auto":
        return None
    return Execution(device=device, precision=options.precision)
