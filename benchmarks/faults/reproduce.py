"""Whether the rebuilt programs show their fault, and the published fix helps, over some seeds.

    LEADLINE_DATA=... python benchmarks/faults/reproduce.py [--cases a,b] [--seeds 3]
                                                            [--scale quick|full]

A case is reproduced when the fixed twin is better on average, by more than the larger spread
(standard deviation over the seeds) of the two, and the buggy program misses what a repair must
reach: 95 % of the fixed accuracy, or 105 % of its error. `reproduced.json` beside this file keeps
the figures; cases not named keep theirs.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from case import Case, Subject, reaches, scale, train
from real import cases

RESULT = Path(__file__).with_name("reproduced.json")


def main() -> None:
    """Train every buggy program and its fixed twin, print a row for each, keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default="", help="names, with commas between (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", choices=("quick", "full"), default="quick")
    arguments = parser.parse_args()
    scale(arguments.scale)
    chosen = cases()
    if arguments.cases:
        names = arguments.cases.split(",")
        known = {case.name: case for case in chosen}
        if unknown := [name for name in names if name not in known]:
            parser.error(f"expected names of cases, received {', '.join(unknown)}")
        chosen = tuple(known[name] for name in names)
    print(f"{'case':<28}{'buggy':>22}{'fixed':>22}{'seconds':>16}  reproduced")
    for case in chosen:
        row = measure(case, seeds=arguments.seeds)
        keep(case.name, row | {"scale": arguments.scale})
        print(
            f"{case.name:<28}{_spread(row['buggy']):>22}{_spread(row['fixed']):>22}"
            f"{row['seconds']['buggy']:>8.1f}{row['seconds']['fixed']:>8.1f}"
            f"  {'yes' if row['reproduced'] else 'NO'}",
            flush=True,
        )


def measure(case: Case, *, seeds: int) -> dict[str, Any]:
    """The scores of both programs for seeds 0, 1, ... and the verdict."""
    if case.fixed is None:
        raise ValueError(f"expected a case with a fixed twin, received {case.name!r}")
    buggy, buggy_seconds = _scores(case, case.buggy, seeds)
    fixed, fixed_seconds = _scores(case, case.fixed, seeds)
    gain = statistics.mean(fixed) - statistics.mean(buggy)
    if not case.higher_is_better:
        gain = -gain
    spread = max(_deviation(buggy), _deviation(fixed))
    worse = not reaches(statistics.mean(buggy), statistics.mean(fixed), case)
    return {
        "metric": case.metric,
        "buggy": buggy,
        "fixed": fixed,
        "seconds": {"buggy": round(buggy_seconds, 2), "fixed": round(fixed_seconds, 2)},
        "reproduced": bool(worse and (gain == math.inf or gain > spread)),
    }


def keep(name: str, row: dict[str, Any]) -> None:
    """Write a case's figures into the file, in which infinity is null."""
    rows = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for program in ("buggy", "fixed"):
        row[program] = [round(x, 5) if math.isfinite(x) else None for x in row[program]]
    rows[name] = row
    lines = [f"{json.dumps(key)}: {json.dumps(rows[key])}" for key in sorted(rows)]
    RESULT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _scores(case: Case, program: Callable[[int], Subject], seeds: int) -> tuple[list[float], float]:
    scores, seconds = [], []
    for seed in range(seeds):
        begun = time.perf_counter()
        model = train(program(seed), case.execution)
        seconds.append(time.perf_counter() - begun)
        scores.append(case.score(model))
    return scores, statistics.mean(seconds)


def _deviation(scores: list[float]) -> float:
    """Between runs; that of one run, or of runs without an end, is unknown and counts as 0."""
    if len(scores) < 2 or not all(map(math.isfinite, scores)):
        return 0.0
    return statistics.stdev(scores)


def _spread(scores: list[float]) -> str:
    found = [x for x in scores if math.isfinite(x)]
    if len(found) < len(scores):
        return f"{len(scores) - len(found)} of {len(scores)} infinite"
    return f"{statistics.mean(found):.4g} ± {_deviation(found):.2g}"


if __name__ == "__main__":
    main()
