"""Whether the seeded faults do harm: every buggy program and its twin, trained and scored.

    LEADLINE_DATA=... python benchmarks/faults/harm.py [--cases WORD,WORD] [--seed 0]

A case is taken where its name begins with one of the words: `lr_too_high`, or a whole name. 'none'
marks a fault whose score is as good as the twin's: plainly wrong it may be, harmful it is not, and
its repair says nothing.
"""

from __future__ import annotations

import argparse
import math
import time

from case import Case, Subject, reaches, train
from seeded import cases


def main() -> None:
    """A line for every case, and how many do no harm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default="", help="beginnings of names, with commas between")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    words = tuple(filter(None, arguments.cases.split(",")))
    chosen = [case for case in cases() if not words or case.name.startswith(words)]
    harmless = []
    print(f"{'case':<52}{'buggy':>12}{'fixed':>12}{'seconds':>9}  harm")
    for case in chosen:
        begun = time.process_time()
        buggy, fixed = (_score(case, make(arguments.seed)) for make in _programs(case))
        harm = not reaches(buggy, fixed, case)
        if not harm:
            harmless.append(case.name)
        spent = time.process_time() - begun
        told = f"{case.name:<52}{buggy:>12.4g}{fixed:>12.4g}{spent:>9.1f}"
        print(f"{told}  {'yes' if harm else 'none'}", flush=True)
    print(f"{len(chosen)} cases, {len(harmless)} without harm: {', '.join(harmless) or '-'}")


def _programs(case: Case) -> tuple:
    assert case.fixed is not None, "every seeded case has a twin"
    return case.buggy, case.fixed


def _score(case: Case, subject: Subject) -> float:
    """What the program reaches; NaN where it does not run."""
    try:
        return case.score(train(subject, case.execution))
    except (IndexError, RuntimeError, ValueError):  # torch refuses what some faults ask of it
        return math.nan


if __name__ == "__main__":
    main()
