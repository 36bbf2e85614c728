"""The fault benchmark: real and seeded faults, fixed twins, healthy recipes, by one command.

    LEADLINE_DATA=... python benchmarks/faults [--suite real|seeded|healthy|all]
        [--split tune|test|all] [--cases a,b] [--each N] [--seeds 0,1,2] [--scale quick|full]
        [--jobs 2] [--device cpu] [--repair] [--baselines] [--no-twins] [--out FILE.jsonl]

Rows are appended to --out as they come, and what is in it already is not done again: a benchmark
that was interrupted goes on. Cases whose fault does not show over three seeds
(`reproduced.json`, by `reproduce.py`) are shown and not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from case import scale
from row import Job, attempt, suite_cases
from scoring import alarms, by_case, causes, per_cause, rank, repaired, strict, totals
from workers import Context

SUITES = ("real", "seeded", "healthy")
REPRODUCED = Path(__file__).with_name("reproduced.json")


def main() -> None:
    """Run what is missing, then print the figures."""
    arguments = _arguments()
    scale(arguments.scale)
    suites = SUITES if arguments.suite == "all" else (arguments.suite,)
    jobs, chosen = _jobs(arguments, suites)
    out = Path(arguments.out)
    rows = _read(out)
    missing = [job for job in jobs if (job.name, job.seed) not in rows]
    print(f"{len(jobs)} rows, {len(missing)} to do, kept in {out}", flush=True)
    with Context().Pool(arguments.jobs, maxtasksperchild=8) as pool:
        for row in pool.imap_unordered(attempt, missing):
            if "failed" in row:
                print(f"{row['case']} {row['seed']}: {row['failed']}", file=sys.stderr)
                continue
            rows[row["case"], row["seed"]] = row
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            _told(row)
    report([rows[job.name, job.seed] for job in jobs if (job.name, job.seed) in rows], chosen)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", choices=(*SUITES, "all"), default="real")
    parser.add_argument("--split", choices=("tune", "test", "all"), default="all")
    parser.add_argument("--cases", default="", help="names, with commas between")
    parser.add_argument("--each", type=int, default=0, help="at most so many cases of a cause")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scale", choices=("quick", "full"), default="quick")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where the trainings run: cpu or cuda")
    parser.add_argument("--repair", action="store_true", help="train the treated programs too")
    parser.add_argument("--baselines", action="store_true", help="ask the published thresholds")
    parser.add_argument(
        "--no-twins", action="store_true", help="leave out the fixed twins, and with them precision"
    )
    parser.add_argument("--out", default="faults.jsonl")
    return parser.parse_args()


def _jobs(arguments: argparse.Namespace, suites: tuple[str, ...]) -> tuple[list[Job], int]:
    names = set(filter(None, arguments.cases.split(",")))
    jobs = []
    count = 0
    for seed in map(int, arguments.seeds.split(",")):
        for suite in suites:
            taken: Counter[tuple[str, ...]] = Counter()
            for case in suite_cases(suite):
                if names and case.name not in names:
                    continue
                if arguments.split not in ("all", case.split) and suite != "healthy":
                    continue
                taken[case.faults[:1]] += 1
                if suite == "seeded" and 0 < arguments.each < taken[case.faults[:1]]:
                    continue
                count += 1
                jobs.append(
                    Job(
                        suite=suite,
                        name=case.name,
                        seed=seed,
                        scale=arguments.scale,
                        repair=arguments.repair,
                        baselines=arguments.baselines,
                        twins=not arguments.no_twins,
                        device=arguments.device,
                    )
                )
    if not jobs:
        raise SystemExit("expected at least one case\nreceived none\ndo this  check --cases")
    return jobs, count


def _read(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    if not out.exists():
        return {}
    rows = [json.loads(line) for line in out.read_text().splitlines() if line.strip()]
    return {(row["case"], row["seed"]): row for row in rows}


def _told(row: dict[str, Any]) -> None:
    """A line as soon as a row is done."""
    look = row["buggy"]
    found = ", ".join(causes(look)[:3]) or look.get("crash", "nothing")
    mark = ("ok " if strict(row) else "   ") if row["faults"] else "   "
    print(f"{mark}{row['case']:<34}{row['seed']}  {found}", flush=True)


def report(rows: list[dict[str, Any]], chosen: int) -> None:
    """Every case, every cause, and the figures beside their bars."""
    known = json.loads(REPRODUCED.read_text()) if REPRODUCED.exists() else {}
    counted = [r for r in rows if known.get(r["case"], {}).get("reproduced", True)]
    left_out = sorted({r["case"] for r in rows} - {r["case"] for r in counted})
    print(
        f"\n{'case':<34}{'split':<7}{'right':>6}{'rank':>6}{'twin':>6}{'healed':>8}  first causes"
    )
    for name, some in sorted(by_case(rows).items()):
        _case_line(name, some, counted=name not in left_out)
    print(f"\n{'cause':<32}{'rows':>5}{'first':>8}{'found':>8}{'right':>8}")
    print("\n".join(per_cause(counted)))
    for split in ("tune", "test", "all"):
        part = [r for r in counted if split in ("all", r["split"]) or not r["faults"]]
        if not any(r["faults"] for r in part) and split != "all":
            continue
        print(f"\n{split}: {len(by_case(part))} cases, {len(part)} rows")
        for figure, value, bar in totals(part):
            print(f"  {figure:<44}{value:<26}{bar}")
    if left_out:
        print(f"\nnot reproduced over three seeds, not counted: {', '.join(left_out)}")


def _case_line(name: str, rows: list[dict[str, Any]], *, counted: bool) -> None:
    right = sum(strict(row) for row in rows)
    places = [rank(row) for row in rows]
    best = min(places)
    twins = sum(alarms(row.get("fixed"), "any") for row in rows)
    healed = {True: "yes", False: "no", None: ""}[repaired(rows, "treated")]
    first = ", ".join(sorted({(causes(row["buggy"]) or ["-"])[0] for row in rows}))
    mark = "" if counted else " (not reproduced)"
    place = "-" if best == float("inf") else f"{best:.0f}"
    line = f"{name:<34}{rows[0]['split']:<7}{right:>3}/{len(rows)}{place:>6}"
    print(f"{line}{twins:>6}{healed:>8}  {first}{mark}")


if __name__ == "__main__":
    main()
