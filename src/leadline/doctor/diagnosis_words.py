"""A diagnosis as text: what is wrong, how sure that is, what to change, what it cost.

Written from the plain values that `diagnosis.json` holds as well, so that a diagnosis that was kept
reads as it did when it was made.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from leadline.doctor.curves_in_words import NOT_FINITE, Heights, losses_of, sparkline
from leadline.doctor.finding import SEVERITIES, Evidence, counted
from leadline.doctor.meanings import meaning_of
from leadline.doctor.trial import smoothed

Plain = Mapping[str, Any]

WIDTH = 96
"""Characters of a line, unless told otherwise."""

INDENT = 8
LABEL = 9
"""Where a finding's lines begin, and how much room their first words have."""

CURVE, BESIDE_CURVE = 32, 63
"""Bars of a loss curve, at most, and the characters beside them."""


def describe_diagnosis(plain: Plain, *, width: int = WIDTH) -> str:
    """The whole diagnosis as text, its lines at most `width` characters (a word may be longer).

    `plain` is what `Diagnosis.to_plain` gives; for a run, `history` has what its journal shows.
    """
    parts = [
        _headline(plain, width),
        *(_finding(f, width, plain["measured"]) for f in plain["findings"]),
    ]
    parts.append(_listed("what the journal shows:", plain.get("history", ()), width))
    parts.append(_ruled_out(plain["ruled_out"], width))
    parts.append(_listed("what could not be found out:", plain["limits"], width))
    parts.append(_cost(plain["cost"], width))
    return "\n\n".join(part for part in parts if part)


def verdict(plain: Plain) -> str:
    """In a few words how many findings there are, and how many of them are proven.

    >>> verdict({"findings": [{"severity": "error", "proven": True}]})
    '1 error, proven'
    >>> verdict({"findings": []})
    'nothing wrong was found'
    """
    findings = plain["findings"]
    counts = [
        counted(count, severity, f"{severity}s")
        for severity in SEVERITIES
        if (count := sum(f["severity"] == severity for f in findings))
    ]
    if not counts:
        return "nothing wrong was found"
    serious = [f for f in findings if f["severity"] != "note"]
    if not serious:
        return ", ".join(counts)
    proven = sum(f["proven"] for f in serious)
    if len(serious) == 1:
        sure = ", proven" if proven else ", not proven"
    else:
        sure = f" ({'all' if proven == len(serious) else proven or 'none'} proven)"
    notes = [counts.pop()] if len(serious) < len(findings) else []
    return "; ".join([", ".join(counts) + sure, *notes])


def _headline(plain: Plain, width: int) -> str:
    lines = [f"{plain['model']}: {verdict(plain)} ({_seconds(plain['cost']['seconds'])})"]
    baseline = plain["baseline"]
    told = f"to be learned: {plain['problem']}"
    if baseline is not None and baseline["losses"]:
        steps = len(baseline["losses"]) * baseline["every"]
        about = "about " if baseline["every"] > 1 else ""
        told += f"; after {about}{steps:,} steps as it is, its "
        if math.isfinite(float(baseline["error"])):
            told += f"error is {number_in_words(baseline['error'])} ({plain['measured']}: 0 is "
            told += "perfect, 1 is what a network gets that knows nothing)"
        else:
            told += f"answers cannot be judged any more ({plain['measured']})"
        if baseline["ended"]:
            told += f"; it stopped there: {baseline['ended']}"
    return "\n".join([*lines, textwrap.fill(told, width, break_long_words=False)])


def _finding(finding: Plain, width: int, measured: str) -> str:
    sure = ", proven" if finding["proven"] else ""
    head = f"{finding['severity'].upper():<{INDENT}}{finding['cause']}{sure}: "
    lines = [_wrapped(head, finding["summary"], width, behind=INDENT)]
    meaning = meaning_of(finding["cause"])
    if meaning:
        lines.append(_line("means", meaning, width))
    if finding["layers"]:
        shown = ", ".join(finding["layers"][:4])
        more = len(finding["layers"]) - 4
        lines.append(_line("where", shown + (f" and {more} more" if more > 0 else ""), width))
    for entry in finding["evidence"]:
        lines.append(_line("evidence", str(Evidence(**entry)), width))
    if finding["trial"] is not None:
        lines += _trial(finding["trial"], width, measured)
    lines.append(_line("do this", finding["remedy"], width))
    change = finding["change"]
    lines += [" " * (INDENT + LABEL) + line for line in (change["lines"] if change else [])]
    if finding["source"]:
        lines.append(_line("source", finding["source"], width))
    return "\n".join(lines)


def _trial(trial: Plain, width: int, measured: str) -> list[str]:
    """What was compared, the errors, and both loss curves on one scale."""
    took = trial["treated"]["seconds"]
    length = f"{trial['steps']:,} steps" + (f" ({took:.2g} s)" if took else "")
    head = f"{length} without and with this change: {trial['remedy']}"
    lines = [_line("trial", head, width)]
    curves = {name: losses_of(trial[name]) for name in ("without", "treated")}
    heights = Heights.over(*curves.values())
    room = max(8, min(CURVE, width - BESIDE_CURVE))
    for name, label in (("without", "without"), ("treated", "with it")):
        arm, curve = trial[name], curves[name]
        text = f"{label}  error {number_in_words(arm['error']):<8}"
        if curve:
            bars = sparkline(curve, heights=heights, width=room)
            ends = (number_in_words(curve[0]), number_in_words(smoothed(curve, last=5)))
            text += f" loss {bars} {' → '.join(ends)}"
        lines.append(" " * (INDENT + LABEL) + text.rstrip())
        if arm["ended"]:
            lines.append(_line("", f"{'':{len(label)}}  it stopped there: {arm['ended']}", width))
    notes = [f"error: {trial['measured']}"] if trial["measured"] != measured else []
    if any(NOT_FINITE in line for line in lines):
        notes.append(f"{NOT_FINITE} is a loss that is not finite")
    if heights.cut:
        notes.append(f"losses above {number_in_words(heights.high)} are cut off")
    if heights.log:
        notes.append("the curves' heights are logarithms")
    said = f" ({'; '.join(notes)})" if notes else ""
    return [*lines, _line("", outcome(trial) + said, width)]


def outcome(trial: Plain) -> str:
    """What a trial came to, in a few words."""
    gain, before = trial["gain"], float(trial["without"]["error"])
    if not trial["helps"]:
        return "the change does not help by enough to count"
    if not math.isfinite(before):
        return "with the change it learns, without it breaks off"
    if gain <= 0:
        return "the change helps, in a figure finer than the error"
    return f"{gain:.0%} of the error is gone"


def _ruled_out(findings: Sequence[Plain], width: int) -> str:
    if not findings:
        return ""
    lines = ["ruled out, since a trial of the remedy did not help:"]
    for finding in findings:
        trial = finding["trial"]
        text = finding["summary"]
        if trial is not None:
            before, after = (
                number_in_words(trial[name]["error"]) for name in ("without", "treated")
            )
            text = f"{trial['remedy']}: error {before} → {after} over {trial['steps']:,} steps"
        line = f"  {finding['cause']}: {text}"
        lines.append(line if len(line) <= width else line[: width - 1].rstrip() + "…")
    return "\n".join(lines)


def _listed(heading: str, sentences: Sequence[str], width: int) -> str:
    """A heading with a line or more for each sentence; nothing where there is none."""
    if not sentences:
        return ""
    lines = [textwrap.fill(f"  {text}", width, subsequent_indent="  ") for text in sentences]
    return "\n".join([heading, *lines])


def _cost(cost: Plain, width: int) -> str:
    text = f"cost: {counted(cost['steps'], 'step', 'steps')} and {_seconds(cost['seconds'])}"
    share = cost["share"]
    if share is not None:
        part = f"{share:.0%} of" if share < 1.5 else f"{share:.1f} times"
        text += f", {part} what the whole training takes"
    text += f"; the allowance was {cost['allowance']}"
    return textwrap.fill(text, width)


def _seconds(seconds: float) -> str:
    return f"{seconds:.{1 if seconds >= 1 else 2}f} s"


def number_in_words(value: float | str) -> str:
    """Few digits; what is not finite in words; the value may be text, as JSON has it.

    >>> number_in_words(0.12345), number_in_words("inf"), number_in_words(1234567.0)
    ('0.123', 'infinite', '1.2e+06')
    """
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinite"
    return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.1e}"


def _line(label: str, text: str, width: int) -> str:
    return _wrapped(f"{'':{INDENT}}{label:<{LABEL}}", text, width, behind=INDENT + LABEL)


def _wrapped(label: str, text: str, width: int, *, behind: int) -> str:
    return textwrap.fill(
        label + text, width, subsequent_indent=" " * behind, break_long_words=False
    )
