"""Every recipe's claim, measured: `python benchmarks/recipes.py digits --seeds 5`.

Runs the command line as a user would, once per seed, and prints each test accuracy and time, then
mean, standard deviation, lowest and highest. Nothing is left out: a seed that fails ends the run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from leadline.training.journal import read_journal


def main() -> None:
    """Measure one recipe or folder over several seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", help="a recipe's name or a path to data")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1")
    parser.add_argument("--runs", default=None, help="folder that keeps the runs")
    known, options = parser.parse_known_args()
    runs = known.runs or tempfile.mkdtemp(prefix="leadline-benchmark-")
    rows = [measure(known.what, seed, runs, options) for seed in range(known.seeds)]
    accuracies = [100 * row["metrics"]["accuracy"] for row in rows]
    seconds = [row["seconds"] for row in rows]
    spread = statistics.stdev(accuracies) if len(rows) > 1 else 0.0
    print(
        f"{known.what}: test accuracy {statistics.mean(accuracies):.2f} ± {spread:.2f} % "
        f"({min(accuracies):.2f} to {max(accuracies):.2f}, n = {len(rows)}), "
        f"training {statistics.median(seconds):.0f} s (at most {max(seconds):.0f} s)"
    )


def measure(what: str, seed: int, runs: str, options: list[str]) -> dict:
    """One run by the command line; its JSON line, with the seconds to its first step."""
    command = [sys.executable, "-m", "leadline", "train", what, "--seed", str(seed)]
    known = set(Path(runs).glob("*"))
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--runs", runs, "--json", *options], stdout=subprocess.PIPE, text=True
    )
    first = wait_for_first_step(process, Path(runs), known) - begun
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"seed {seed} failed with exit code {process.returncode}: {output}")
    row = json.loads(output.splitlines()[-1])
    print(
        f"seed {seed}: {100 * row['metrics']['accuracy']:.2f} %, training {row['seconds']:.1f} s, "
        f"whole command {time.perf_counter() - begun:.1f} s, first step after {first:.1f} s, "
        f"{row['steps']} steps, {row['run']}",
        flush=True,
    )
    return row


def wait_for_first_step(process: subprocess.Popen, runs: Path, known: set[Path]) -> float:
    """The time when the new run's journal first held a step (up to a second after the step)."""
    while process.poll() is None:
        for run in set(runs.glob("*")) - known:
            if any(row["event"] == "step" for row in read_journal(run / "journal.jsonl")):
                return time.perf_counter()
        time.sleep(0.1)
    return time.perf_counter()


if __name__ == "__main__":
    main()
