"""Going on healed: a run folder made ready to train its healed recipe, with nothing thrown away.

The weights of the newest checkpoint from before the fault are kept where the remedy leaves the
network as it is; otherwise the training begins anew. The former recipe, journal and checkpoints lie
beside the new ones, with `before-1` in their names.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from leadline.core.errors import CorruptFileError
from leadline.core.files import make_folder, write_atomic
from leadline.training.checkpoint import checkpoint_files, load_checkpoint, save_checkpoint
from leadline.training.execution import Execution
from leadline.training.recipe import Recipe
from leadline.training.run import Run
from leadline.training.setup import Setup
from leadline.training.state import TrainingState

STEP = re.compile(r"step-(\d+)\.safetensors$")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """From where a run goes on: its step (0 is the start), and the names of what was kept."""

    step: int
    kept: tuple[str, ...]


def prepare_to_go_on(
    run: Run, recipe: Recipe, setup: Setup, *, execution: Execution, since: int | None
) -> Prepared:
    """Put the healed recipe into a run's folder, and take its training back to before the fault.

    `since` is the last step at which all was well; None where the weights cannot be kept.
    """
    number = next(n for n in itertools.count(1) if not (run.folder / _recipe_name(n)).exists())
    found = _last_good(run, since) if since is not None else None
    kept = [_recipe_name(number), f"journal.before-{number}.jsonl"]
    shutil.copy2(run.folder / "recipe.json", run.folder / kept[0])
    shutil.copy2(run.journal, run.folder / kept[1])
    files = checkpoint_files(run.checkpoints)
    if files:
        kept.append(f"checkpoints/before-{number}")
        make_folder(run.folder / kept[2])
        for path in files:
            path.rename(run.folder / kept[2] / path.name)
    step = 0
    if found is not None:
        step, state = found
        _graft(state, TrainingState(setup, execution.settled), step=step)
        save_checkpoint(run.checkpoints, state, step=step)
    _cut(run, step)
    run.write_recipe(recipe)
    return Prepared(step=step, kept=tuple(kept))


def _recipe_name(number: int) -> str:
    return f"recipe.before-{number}.json"


def _last_good(run: Run, since: int) -> tuple[int, dict[str, Any]] | None:
    """The newest valid checkpoint up to a step."""
    for path in checkpoint_files(run.checkpoints):
        step = _step_of(path)
        if 0 < step <= since:
            try:
                return step, load_checkpoint(path)
            except CorruptFileError:
                continue
    return None


def _step_of(path: Path) -> int:
    match = STEP.search(path.name)
    return int(match[1]) if match else 0


def _graft(state: dict[str, Any], fresh: TrainingState, *, step: int) -> None:
    """Give a saved state the options of a fresh optimizer and schedule; weights stay.

    What the optimizer remembers (momentum, say) is kept where the other one remembers the same.
    """
    own = fresh.optimizer.state_dict()
    saved: Mapping[str, Any] = state["optimizer"]
    same = [set(g) for g in saved["param_groups"]] == [set(g) for g in own["param_groups"]]
    state["optimizer"] = {
        "state": saved["state"] if same else {},
        "param_groups": own["param_groups"],
    }
    schedule = fresh.schedule
    if not isinstance(schedule, LambdaLR):
        state["schedule"] = None if schedule is None else schedule.state_dict()
        return
    factors = [at(step) for at in schedule.lr_lambdas]
    rates = [base * factor for base, factor in zip(schedule.base_lrs, factors, strict=True)]
    for group, rate in zip(own["param_groups"], rates, strict=True):
        group["lr"] = rate
    state["schedule"] = {
        **schedule.state_dict(),
        "last_epoch": step,
        "_step_count": step + 1,
        "_last_lr": rates,
    }


def _cut(run: Run, step: int) -> None:
    """Take out of the journal what is about to be written anew: later rows, and another start."""
    rows = [
        row
        for row in run.history()
        if row.get("step", 0) <= step and (step > 0 or row["event"] not in ("start", "resume"))
    ]
    write_atomic(run.journal, "".join(json.dumps(row) + "\n" for row in rows))
