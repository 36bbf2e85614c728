"""A diagnosis as a page: each cause with its pictures, numbers, thresholds, source and remedy.

A person without the vocabulary reads the first sentences of each chapter; one with it finds every
number that the verdict rests on. Written from the plain values of `diagnosis.json`, alone or as a
chapter of a run's report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from leadline.core.errors import CorruptFileError
from leadline.core.files import write_atomic
from leadline.doctor.diagnosis_words import number_in_words, verdict
from leadline.doctor.meanings import meaning_of
from leadline.report.diagnosis_trial import trial_figures
from leadline.report.document import document
from leadline.report.markup import Column, escape, folded, prose, section, table, tied
from leadline.report.numbers import count, duration, percent, plural
from leadline.training.run import Run

Plain = Mapping[str, Any]

FILE = "diagnosis.json"
PAGE = "diagnosis.html"
"""Where a run keeps its diagnosis, and the page of it."""


def write_diagnosis(path: Path, plain: Plain, *, name: str) -> Path:
    """Write the page of a diagnosis, whole or not at all; `name` is what was diagnosed."""
    title = f"{plain['model']}: {verdict(plain)}"
    body = _header(title, plain, name=name) + "\n".join(
        [
            *(_finding(f, number) for number, f in enumerate(plain["findings"], start=1)),
            *_rest(plain),
            _reading(),
        ]
    )
    write_atomic(path, document(title, body, kind="diagnosis"))
    return path


def keep_diagnosis(run: Run, plain: Plain) -> Path:
    """Write the diagnosis of a run into its folder, as JSON and as a page; the page's path."""
    write_atomic(run.folder / FILE, json.dumps(plain, indent=1) + "\n")
    return write_diagnosis(run.folder / PAGE, plain, name=run.folder.name)


def kept_diagnosis(run: Run) -> dict[str, Any] | None:
    """The diagnosis that a run's folder has, or None."""
    path = run.folder / FILE
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        verdict(found)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            expected=f"a diagnosis in {path}",
            received=f"{type(error).__name__}: {error}",
            remedy=f"write it anew: leadline diagnose {run.folder}",
        ) from error
    return found


def diagnosis_section(plain: Plain) -> str:
    """The diagnosis as one chapter of a run's report."""
    said = verdict(plain)
    parts = [_finding_inside(f) for f in plain["findings"]]
    listed = [folded(f"{name} ({len(rows)})", inside) for name, rows, inside in _lists(plain)]
    cost = prose(_cost(plain["cost"]))
    return section(
        "The diagnosis", prose(f"{said[0].upper()}{said[1:]}."), *parts, *listed, cost,
        anchor="diagnosis",
    )  # fmt: skip


def _header(title: str, plain: Plain, *, name: str) -> str:
    written = datetime.now().astimezone()
    baseline, cost = plain["baseline"], plain["cost"]
    tiles = []
    if baseline is not None:
        tiles.append(("error as it is", number_in_words(baseline["error"]), plain["measured"]))
    healing = [f["trial"] for f in plain["findings"] if f["trial"] and f["trial"]["helps"]]
    if healing:
        best = min(healing, key=lambda trial: float(trial["treated"]["error"]))
        tiles.append(
            ("error with the remedy", number_in_words(best["treated"]["error"]), best["remedy"])
        )
    share = cost["share"]
    part = "" if share is None else f"; {_share(share)} the whole training"
    tiles.append(("cost", duration(cost["seconds"]), f"{plural(cost['steps'], 'step')}{part}"))
    drawn = "".join(
        f"<div><h3>{escape(head)}</h3><strong>{tied(value)}</strong><small>{tied(note)}</small></div>"
        for head, value, note in tiles
    )
    links = "".join(
        f'<a href="#finding-{n}">{escape(f["cause"])}</a>'
        for n, f in enumerate(plain["findings"], start=1)
    )
    first = plain["findings"][0] if plain["findings"] else None
    sentence = (
        f"{first['summary'][0].upper()}{first['summary'][1:]}."
        if first is not None
        else "Nothing was found that keeps this training from doing better."
    )
    return (
        f'<header><p class="eyebrow">Leadline diagnosis · {escape(name)} · '
        f"{escape(plain['problem'])} · {written:%d %B %Y, %H:%M}</p><h1>{escape(title)}</h1>"
        + prose(sentence).replace("<p>", '<p class="verdict">', 1)
        + f'<div class="tiles">{drawn}</div>'
        + (f"<nav>{links}</nav>" if links else "")
        + "</header>\n"
    )


def _finding(finding: Plain, number: int) -> str:
    return section(
        f"{number}. {finding['cause'].replace('_', ' ')}",
        _finding_inside(finding),
        anchor=f"finding-{number}",
    )


def _finding_inside(finding: Plain) -> str:
    sure = "proven" if finding["proven"] else "not proven"
    head = (
        f'<p class="finding"><span class="badge {escape(finding["severity"])}">'
        f"{escape(finding['severity'])}</span> <code>{escape(finding['cause'])}</code>, {sure}</p>"
    )
    meaning = meaning_of(finding["cause"])
    summary = finding["summary"]
    parts = [head, prose(f"{summary[0].upper()}{summary[1:]}.")]
    if meaning:
        parts.append(prose(f"What it does to the training: {meaning}."))
    if finding["trial"] is not None:
        parts.append(trial_figures(finding["trial"]))
    parts.append(_remedy(finding))
    parts.append(_evidence(finding))
    if finding["layers"]:
        shown = ", ".join(f"<code>{escape(layer)}</code>" for layer in finding["layers"][:12])
        more = len(finding["layers"]) - 12
        parts.append(f"<p>Where: {shown}{f' and {more} more' if more > 0 else ''}</p>")
    if finding["source"]:
        parts.append(prose(f"Source: {finding['source']}"))
    return "\n".join(parts)


def _remedy(finding: Plain) -> str:
    lines = finding["change"]["lines"] if finding["change"] else []
    kinds = {"+": "plus", "-": "minus"}
    marked = "".join(
        f'<span class="{kinds.get(line[:1], "same")}">{escape(line)}</span>' for line in lines
    )
    block = f'<pre class="diff"><code>{marked}</code></pre>' if lines else ""
    return f"<p><b>Do this:</b> {tied(finding['remedy'])}.</p>{block}"


def _evidence(finding: Plain) -> str:
    rows = [
        [
            escape(entry["quantity"]),
            escape(
                entry["measured"]
                if isinstance(entry["measured"], str)
                else f"{entry['measured']:.4g}"
            ),
            tied(entry["expected"]),
        ]
        for entry in finding["evidence"]
    ]
    columns = [
        Column(name="evidence"), Column(name="measured", kind="number"), Column(name="expected")
    ]  # fmt: skip
    return table(columns, rows) if rows else ""


def _rest(plain: Plain) -> list[str]:
    """The chapters behind the findings."""
    anchors = {"What the journal shows": "journal", "Ruled out": "ruled-out"}
    found = [
        section(name, inside, anchor=anchors.get(name, "limits"))
        for name, _, inside in _lists(plain)
    ]
    return [*found, section("What it cost", prose(_cost(plain["cost"])), anchor="cost")]


def _lists(plain: Plain) -> list[tuple[str, Any, str]]:
    """What there is of history, ruled out suspicions and limits: a name, the entries, the HTML."""
    lists = [
        ("What the journal shows", plain.get("history", []), _notes(plain.get("history", []))),
        ("Ruled out", plain["ruled_out"], _ruled_out(plain["ruled_out"])),
        ("What could not be found out", plain["limits"], _notes(plain["limits"])),
    ]
    return [entry for entry in lists if entry[1]]


def _notes(sentences: Any) -> str:
    listed = "".join(f"<li>{tied(sentence)}</li>" for sentence in sentences)
    return f'<ul class="notes">{listed}</ul>'


def _ruled_out(findings: Any) -> str:
    columns = [
        Column(name="suspicion", kind="code"),
        Column(name="what was tried"),
        Column(name="error without", kind="number"),
        Column(name="with", kind="number"),
        Column(name="steps", kind="number"),
    ]
    rows = []
    for finding in findings:
        trial = finding["trial"]
        cells = ["–", "–", "–"]
        if trial is not None:
            cells = [number_in_words(trial[arm]["error"]) for arm in ("without", "treated")]
            cells.append(count(trial["steps"]))
        tried = trial["remedy"] if trial is not None else finding["summary"]
        rows.append([escape(finding["cause"]), tied(tried), *cells])
    return prose("A trial of the remedy did not help by enough to count:") + table(columns, rows)


def _cost(cost: Plain) -> str:
    share = cost["share"]
    part = "" if share is None else f", {_share(share)} the whole training"
    return (
        f"{plural(cost['steps'], 'step')} and {duration(cost['seconds'])}{part}. "
        f"The allowance was {cost['allowance']}."
    )


def _share(share: float) -> str:
    return f"{percent(share, digits=0)} of" if share < 1.5 else f"{share:.1f} times"


def _reading() -> str:
    return section(
        "How to read this",
        prose(
            "A finding is proven when the evidence leaves no doubt, or when a trial with the "
            "remedy went better than one without: the same network from the same seed, on the "
            "same batches, in the same order. An error is certain to spoil the training or its "
            "result; a warning is likely to, or costs much; a note may well be intended."
        ),
        prose(
            "The error of a trial does not depend on the loss that was trained with, since the "
            "remedy may change it: 0 is perfect, 1 is what a network gets that knows nothing but "
            "how frequent each answer is."
        ),
        anchor="reading",
    )
