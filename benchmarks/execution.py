"""What tuning buys: the tuned execution against plain eager float32, interleaved in one process.

    python benchmarks/execution.py fashion_mnist --rounds 15

Prints the median ratio of the time per training step with its quartiles and n.
"""

from __future__ import annotations

import argparse
import statistics

import torch

from leadline.core.devices import choose_device
from leadline.data.load import load_dataset
from leadline.recipes.catalogue import find_recipe
from leadline.training.build import build_setup
from leadline.training.execution import Execution
from leadline.training.tune import Candidate, tune


def main() -> None:
    """Time both executions step by step in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="digits")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    recipe = find_recipe(options.recipe)
    device = str(choose_device())
    setup = build_setup(recipe, load_dataset(recipe.data, seed=recipe.seed), device=device)
    batch = next(iter(setup.batches))
    tuned = tune(setup, device=device).execution
    plain = Execution(device=device, threads=torch.get_num_threads() if device == "cpu" else None)
    pair = Candidate(setup, plain), Candidate(setup, tuned)
    for _ in range(options.rounds + 1):
        for candidate in pair:
            candidate.step(batch)
    ratios = [slow / fast for slow, fast in zip(*(c.seconds[1:] for c in pair), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"{options.recipe}, batch {len(batch[0])}: {tuned.describe()} takes a step {middle:.2f} "
        f"times as fast as {plain.describe()} "
        f"(quartiles {low:.2f} to {high:.2f}, n = {len(ratios)})"
    )


if __name__ == "__main__":
    main()
