"""Names looked up in a list, with 'did you mean' when there is no such name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from leadline.core.errors import UnknownNameError

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that resembles `name` most, as ' (did you mean …?)', or nothing.

    >>> did_you_mean("resnet2O", ["resnet20", "mlp"])
    " (did you mean 'resnet20'?)"
    >>> did_you_mean("zebra", ["resnet20", "mlp"])
    ''
    """
    lowered = {entry.lower(): entry for entry in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f" (did you mean {lowered[close[0]]!r}?)" if close else ""


def look_up(name: str, table: Mapping[str, T], *, kind: str) -> T:
    """`table[name]`, or an error that names what there is.

    >>> look_up("relu", {"relu": 1, "gelu": 2}, kind="activation")
    1
    """
    if name in table:
        return table[name]
    raise UnknownNameError(
        expected=f"the name of a known {kind}: {', '.join(sorted(table))}",
        received=f"{name!r}{did_you_mean(name, table)}",
        remedy=f"use one of the names above for the {kind}",
    )
