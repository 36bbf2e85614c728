"""kill -9 at random moments of a run, saves included; it must always resume and lose nothing saved.

    python benchmarks/kill_resume.py --kills 50

A training that saves every fifth of a second is killed over and over and resumed each time. After
each kill the newest valid checkpoint must not be older than the newest one that was whole before
the kill. At the end its weights must equal, bit for bit, those of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from leadline.training.checkpoint import checkpoint_files, newest_checkpoint

SAVE_INTERVAL = 0.2  # seconds: so short that many kills fall into a save


def main() -> None:
    """Disturb one run `--kills` times, and compare it with an undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--epochs", type=int, default=400)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    root = Path(tempfile.mkdtemp(prefix="leadline-kill-"))
    train = [sys.executable, "-m", "leadline", "train", "digits", "--precision", "float32"]
    train += ["--width", "8", "--epochs", str(options.epochs)]
    train += ["--save-interval", str(SAVE_INTERVAL)]
    whole = root / "whole"
    finish([*train, "--runs", str(whole)])
    run = root / "killed" / "digits-001"
    command = [*train, "--runs", str(root / "killed")]
    kills = during_save = 0
    while kills < options.kills:
        outcome = kill_once(command, run, chance)
        command = [sys.executable, "-m", "leadline", "train", "--resume", str(run)]
        command += ["--save-interval", str(SAVE_INTERVAL)]
        if outcome is None:
            sys.exit(f"the run ended after {kills} kills: give it more --epochs")
        kills += 1
        during_save += outcome
        print(f"kill {kills}: resumes at step {newest_step(run)}", flush=True)
    finish(command)
    same = same_weights(whole / "digits-001", run)
    print(
        f"{kills} kills, {during_save} of them during a save: resumed every time, "
        f"weights {'bit-identical to' if same else 'DIFFERENT FROM'} the undisturbed run"
    )
    sys.exit(0 if same else 1)


def kill_once(command: list[str], run: Path, chance: random.Random) -> bool | None:
    """Start, kill at a random moment; whether a save was under way, or None if the run ended."""
    before = newest_step(run)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while newest_name(run) <= before and process.poll() is None:
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 1.0))
    if process.poll() is not None:
        return None
    whole_before = newest_name(run)
    process.kill()
    process.wait()
    after = newest_step(run)
    if after < whole_before:
        sys.exit(f"lost a save: step {whole_before} was whole, step {after} is left")
    return any(run.glob("checkpoints/.*tmp"))


def newest_name(run: Path) -> int:
    """The step of the newest checkpoint by its name: renamed into place, therefore whole."""
    files = checkpoint_files(run / "checkpoints")
    return int(files[0].stem.removeprefix("step-")) if files else 0


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint that passes its hash."""
    found = newest_checkpoint(run / "checkpoints") if run.exists() else None
    return found.state["counters"]["step"] if found else 0


def finish(command: list[str]) -> None:
    """Run a training to its end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits."""
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


if __name__ == "__main__":
    main()
