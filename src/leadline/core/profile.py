"""Profile: what every measurement returns, named values per layer in depth order.

A measurement of a network is a small table: a row per layer, from the input to the output, and a
column per quantity. The Profile carries the unit and one sentence on how to read it, because a
number that needs the source code to be understood is not a result. It measures nothing, judges
nothing and draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leadline.core.config import check
from leadline.core.names import look_up


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Named values per layer, in depth order.

    `values` maps the name of a column to one number per layer.

    >>> profile = Profile(
    ...     name="variance of the activations",
    ...     unit="1",
    ...     reading="constant over depth is healthy; a slope on a log scale vanishes or explodes",
    ...     layers=("conv1", "conv2", "fc"),
    ...     values={"forward": (1.0, 0.5, 0.01)},
    ... )
    >>> profile.worst("forward", lowest=True)
    ('fc',)
    >>> profile.at("conv2")
    {'forward': 0.5}
    """

    name: str
    unit: str
    reading: str
    layers: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        count = len(self.layers)
        check(
            self,
            "reading must say how to read the values" if not self.reading.strip() else None,
            None if len(set(self.layers)) == count else "layers must be named differently",
            *(
                f"values[{column!r}] must have {count} numbers, one per layer, received {len(row)}"
                for column, row in self.values.items()
                if len(row) != count
            ),
        )

    def column(self, name: str) -> tuple[float, ...]:
        """The numbers of one column, in depth order; an unknown name gets 'did you mean'."""
        return look_up(name, self.values, kind="column")

    def at(self, layer: str) -> dict[str, float]:
        """Every column's number at one layer."""
        index = look_up(layer, {name: i for i, name in enumerate(self.layers)}, kind="layer")
        return {column: row[index] for column, row in self.values.items()}

    def worst(self, column: str, *, lowest: bool = False, count: int = 1) -> tuple[str, ...]:
        """The layers with the largest (or lowest) numbers in a column, worst first.

        NaN is worse than any number; of equals, the one nearer to the input comes first.
        """

        def badness(pair: tuple[str, float]) -> tuple[bool, float]:
            value = pair[1]
            return (not math.isnan(value), value if lowest else -value)

        pairs = zip(self.layers, self.column(column), strict=True)
        return tuple(layer for layer, _ in sorted(pairs, key=badness)[:count])

    def to_plain(self) -> dict[str, Any]:
        """The Profile as plain values for JSON; NaN and infinities, which JSON lacks, as text."""
        return {
            "name": self.name,
            "unit": self.unit,
            "reading": self.reading,
            "layers": list(self.layers),
            "values": {
                column: [value if math.isfinite(value) else str(value) for value in row]
                for column, row in self.values.items()
            },
        }
