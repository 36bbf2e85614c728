"""A diagnosis as text: what is wrong, how sure that is, what to change, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_diagnosis(plain: Mapping[str, Any]) -> str:
    """The diagnosis in lines for a terminal, from its plain values."""
    lines = [f"{plain['model']}: {plain['problem']}"]
    for finding in plain["findings"]:
        proven = " (proven)" if finding["proven"] else ""
        lines.append(f"{finding['severity'].upper()} {finding['cause']}{proven}: {finding['summary']}")
    return "\n".join(lines)
