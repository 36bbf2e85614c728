"""What the doctor did while a run trained: what it saw, what it found, what it changed.

Written from the journal's `doctor` rows: nothing that changed a training is left unsaid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leadline.report.markup import Column, escape, prose, section, table, tied
from leadline.report.numbers import count, duration, plural

Row = Mapping[str, Any]


def doctor_section(history: Sequence[Row]) -> str:
    """The chapter of a report; empty where no doctor said anything.

    >>> doctor_section([{"event": "step", "step": 1}])
    ''
    """
    rows = [row for row in history if row["event"] == "doctor"]
    if not rows:
        return ""
    healed = sum(row["outcome"] == "healed" for row in rows)
    reading = f"A doctor looked on while this was trained, and spoke up {_times(len(rows))}"
    reading += f"; the recipe was changed {_times(healed)}." if healed else "; nothing was changed."
    return section("The doctor", prose(reading), *map(_entry, rows), anchor="doctor")


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _entry(row: Row) -> str:
    symptom, found = row["symptom"], row.get("diagnosis")
    summary = symptom["summary"]
    parts = [f"<h3>Step {count(row['at'])}: {tied(summary)}</h3>"]
    columns = [
        Column(name="seen"), Column(name="measured", kind="number"), Column(name="expected")
    ]  # fmt: skip
    cells = [
        [
            escape(entry["quantity"]),
            escape(
                entry["measured"]
                if isinstance(entry["measured"], str)
                else f"{entry['measured']:.4g}"
            ),
            tied(entry["expected"]),
        ]
        for entry in symptom["evidence"]
    ]
    parts.append(table(columns, cells))
    if found is not None:
        causes = ", ".join(
            f"{f['cause']} ({'proven' if f['proven'] else 'not proven'})" for f in found["findings"]
        )
        cost = found["cost"]
        parts.append(
            prose(
                f"A diagnosis of {duration(cost['seconds'])} and {plural(cost['steps'], 'step')} "
                f"found: {causes or 'nothing'}."
            )
        )
    says = row["says"]
    parts.append(prose(f"{says[:1].upper()}{says[1:]}."))
    if row.get("diff"):
        kinds = {"+": "plus", "-": "minus"}
        lines = "".join(
            f'<span class="{kinds.get(line[:1], "same")}">{escape(line)}</span>'
            for line in row["diff"]
        )
        parts.append(f'<pre class="diff"><code>{lines}</code></pre>')
    return "\n".join(parts)
