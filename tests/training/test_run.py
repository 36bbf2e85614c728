"""The run folder: made once, locked by one, read by anyone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from leadline.core.errors import RunError, RunLockedError
from leadline.data.options import DataOptions
from leadline.training.recipe import Recipe
from leadline.training.run import Run

RECIPE = Recipe(data=DataOptions(data="digits"), seed=4)


def test_runs_are_numbered_and_hold_their_recipe(tmp_path: Path) -> None:
    folders = [Run.create(RECIPE, root=tmp_path).folder.name for _ in range(3)]
    assert folders == ["digits-001", "digits-002", "digits-003"]
    assert Run.open(tmp_path / "digits-002").recipe == RECIPE


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no recipe\.json"):
        Run.open(tmp_path)
    with pytest.raises(RunError, match="no such folder"):
        Run.open(tmp_path / "nowhere")


def test_a_second_writer_in_this_process_is_refused(tmp_path: Path) -> None:
    run = Run.create(RECIPE, root=tmp_path)
    with run.locked(), pytest.raises(RunLockedError, match="another process holds"), run.locked():
        pass
    with run.locked():
        pass


def test_a_second_writer_in_another_process_is_refused_until_the_first_is_killed(
    tmp_path: Path,
) -> None:
    run = Run.create(RECIPE, root=tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from leadline.training.run import Run\n"
        f"with Run(Path({str(run.folder)!r})).locked():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError), run.locked():
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with run.locked():
        pass


def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    run = Run.create(RECIPE, root=tmp_path)
    assert run.metrics == {}
    with pytest.raises(RunError, match="leadline train --resume"):
        run.model()
