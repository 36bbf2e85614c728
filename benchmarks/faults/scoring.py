"""Scoring: from rows to the figures of the issue, per case, per cause and in total.

Right (strict): the first-ranked cause is one of the case's faults; lenient: it is of the family of
one. Detected: any finding of severity 'error' or 'warning'. A false alarm is such a finding on a
fixed twin or a healthy recipe. Repaired: the treated program, averaged over the seeds, reaches 95 %
of the fixed twin's accuracy, or 105 % of its error; cases whose buggy program does are left out.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from leadline.doctor.vocabulary import family_of

Row = dict[str, Any]

BARS = {
    "detected": "≥ 95 %",
    "strict": "≥ 75 % (real, test), ≥ 90 % (seeded)",
    "lenient": "≥ 90 %",
    "false errors": "≤ 3 %",
    "false warnings": "≤ 10 %",
    "repaired": "≥ 85 %",
    "against random search": "≥ 1.5",
}


def causes(look: Row | None) -> list[str]:
    """The causes in rank order; notes count only behind everything else."""
    return [f["cause"] for f in look.get("findings", [])] if look else []


def detected(row: Row) -> bool:
    """Whether there is a finding that is more than a note."""
    return any(f["severity"] != "note" for f in row["buggy"].get("findings", [])) or (
        bool(row["faults"]) and strict(row)
    )


def strict(row: Row) -> bool:
    """Whether the first cause is one of the faults."""
    found = causes(row["buggy"])
    return bool(found) and found[0] in row["faults"]


def lenient(row: Row) -> bool:
    """Whether the first cause is of the family of one of the faults."""
    found = causes(row["buggy"])
    return bool(found) and family_of(found[0]) in {family_of(fault) for fault in row["faults"]}


def rank(row: Row) -> float:
    """The place of the first true cause; infinity where it is not among the findings."""
    places = [i for i, cause in enumerate(causes(row["buggy"]), start=1) if cause in row["faults"]]
    return places[0] if places else math.inf


def alarms(look: Row | None, severity: str) -> bool:
    """Whether there is a finding of at least this severity."""
    worse = {"error"} if severity == "error" else {"error", "warning"}
    return any(f["severity"] in worse for f in look.get("findings", [])) if look else False


def share(rows: Iterable[Row], question: Callable[[Row], bool]) -> str:
    """How often a question is answered with yes: `12/15 = 80 %`."""
    answers = [question(row) for row in rows]
    if not answers:
        return "-"
    return f"{sum(answers)}/{len(answers)} = {sum(answers) / len(answers):.1%}"


def repaired(rows: list[Row], which: str) -> bool | None:
    """Whether the program so named reaches the fixed twin, on average over the seeds."""
    scored = [row["scores"] for row in rows if which in row.get("scores", {})]
    if not scored:
        return None
    if any(not isinstance(scores[which], float | int) for scores in scored):
        return False
    fixed = statistics.mean(float(scores["fixed"]) for scores in scored)
    value = statistics.mean(float(scores[which]) for scores in scored)
    if rows[0]["higher_is_better"]:
        return value >= 0.95 * fixed
    return value <= max(1.05 * fixed, rows[0]["enough"])


def by_case(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each case."""
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["case"]].append(row)
    return grouped


def totals(rows: list[Row]) -> list[tuple[str, str, str]]:
    """The figures with their bars."""
    faulty = [row for row in rows if row["faults"]]
    twins = [row["fixed"] for row in faulty if "fixed" in row]
    healthy = [row["buggy"] for row in rows if not row["faults"]]
    sound = [*twins, *healthy]
    lines = [
        ("detected", share(faulty, detected), BARS["detected"]),
        ("first cause right, strict", share(faulty, strict), BARS["strict"]),
        ("first cause right, lenient", share(faulty, lenient), BARS["lenient"]),
        ("true cause among the findings", share(faulty, lambda r: math.isfinite(rank(r))), ""),
        ("false errors", share(sound, lambda r: alarms(r, "error")), BARS["false errors"]),
        ("false warnings", share(sound, lambda r: alarms(r, "any")), BARS["false warnings"]),
        ("crashes", share([*sound, *(r["buggy"] for r in faulty)], lambda r: "crash" in r), "0"),
    ]
    return [*lines, *_repairs(faulty), *_baselines(faulty), *_costs(rows)]


def _repairs(rows: list[Row]) -> list[tuple[str, str, str]]:
    # Where the fault does no harm to the score there is nothing to repair.
    grouped = {name: some for name, some in by_case(rows).items() if not repaired(some, "buggy")}
    lines = []
    counts: dict[str, int] = {}
    for which, name in (("treated", "repaired"), ("random", "repaired by random search")):
        answers = [a for case in grouped.values() if (a := repaired(case, which)) is not None]
        if answers:
            counts[which] = sum(answers)
            told = f"{sum(answers)}/{len(answers)} cases = {sum(answers) / len(answers):.1%}"
            lines.append((name, told, BARS.get(name, "")))
    if "random" in counts:
        both = [c for c in grouped.values() if repaired(c, "random") is not None]
        own = sum(bool(repaired(case, "treated")) for case in both)
        ratio = own / counts["random"] if counts["random"] else math.inf
        lines.append(("repairs over those of random search", f"{ratio:.2f}",
                      BARS["against random search"]))  # fmt: skip
    return lines


def _baselines(rows: list[Row]) -> list[tuple[str, str, str]]:
    lines = []
    for tool in ("umlaut", "autotrainer", "deepdiagnosis"):
        told = [row for row in rows if tool in row.get("baselines", {})]
        if told:
            right = share(told, lambda r, t=tool: r["baselines"][t][:1] != []
                          and r["baselines"][t][0] in r["faults"])  # fmt: skip
            among = share(told, lambda r, t=tool: bool({*r["baselines"][t]} & {*r["faults"]}))
            lines.append((f"{tool}: first cause right, strict", right, ""))
            lines.append((f"{tool}: true cause among its causes", among, ""))
    return lines


def _costs(rows: list[Row]) -> list[tuple[str, str, str]]:
    looks = [row["buggy"] for row in rows if "seconds" in row["buggy"]]
    if not looks:
        return []
    seconds = [look["seconds"] for look in looks]
    shares = [look["share"] for look in looks if look["share"] is not None] or [math.nan]
    steps = [look["steps"] for look in looks]
    return [
        ("seconds of a diagnosis, median (largest)",
         f"{statistics.median(seconds):.1f} ({max(seconds):.1f})", ""),
        ("steps of a diagnosis, median (largest)",
         f"{statistics.median(steps):.0f} ({max(steps)})", ""),
        ("part of the recipe's own training, median (largest)",
         f"{statistics.median(shares):.2f} ({max(shares):.2f})", "≤ 0.15 (proven)"),
    ]  # fmt: skip


def per_cause(rows: list[Row]) -> list[str]:
    """A line for each cause: how often it was found first, and at all."""
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for fault in row["faults"]:
            grouped[fault].append(row)
    lines = []
    for cause in sorted(grouped):
        some = grouped[cause]
        first = sum(causes(row["buggy"])[:1] == [cause] for row in some)
        found = sum(cause in causes(row["buggy"]) for row in some)
        right = sum(strict(row) for row in some)
        lines.append(f"{cause:<32}{len(some):>5}{first:>8}{found:>8}{right:>8}")
    return lines
