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
    """One run by the command line; its JSON line."""
    command = [sys.executable, "-m", "leadline", "train", what, "--seed", str(seed)]
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, "--runs", runs, "--json", *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    row = json.loads(done.stdout.splitlines()[-1])
    print(
        f"seed {seed}: {100 * row['metrics']['accuracy']:.2f} %, training {row['seconds']:.1f} s, "
        f"whole command {time.perf_counter() - begun:.1f} s, {row['steps']} steps, {row['run']}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
