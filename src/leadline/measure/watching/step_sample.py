"""The numbers of one training step per layer, on the device until they are read all at once.

Reading a number waits for the device to finish what it was given. So a step's numbers stay one
tensor beside the names they belong to, and `fetch` brings those of many steps in one transfer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from leadline.core.profile import Profile

ACTIVATION_COLUMNS = ("mean", "std", "zeros", "dead", "nonfinite")
WEIGHT_COLUMNS = ("weight_norm", "gradient_norm", "update_ratio", "lr")
COLUMNS = ACTIVATION_COLUMNS + WEIGHT_COLUMNS

READING = (
    "std: alike over depth is healthy; zeros, dead: shares of values and of units that are zero "
    "for every example; update_ratio, |Δw|/|w| of one step: near 1e-3 is usual, 0 learns nothing, "
    "above 1e-1 forgets; NaN where a layer has no such value"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationSums:
    """One call's output in five numbers on the device, of so many `values` in so many `units`."""

    values: int
    units: int
    mean: Float[Tensor, ""]
    deviation: Float[Tensor, ""]  # square root of the sum of squares around the mean
    nonzero: Int[Tensor, ""]
    alive: Int[Tensor, ""]  # units with a value that is not 0
    nonfinite: Int[Tensor, ""]  # units with a value that is not finite

    @property
    def scalars(self) -> tuple[Tensor, ...]:
        """The numbers, in the order of StepSample's values."""
        return self.mean, self.deviation, self.nonzero, self.alive, self.nonfinite


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the numbers of a step belong to: the same at every step of most trainings."""

    calls: tuple[tuple[str, int, int], ...]  # the layer, its values and its units
    owners: tuple[str, ...]  # the layer of each parameter
    with_gradient: tuple[int, ...]  # which of the parameters had one


@dataclass(frozen=True, kw_only=True, eq=False)
class StepSample:
    """What one sampled step told: the numbers, on the device or fetched."""

    layout: Layout
    values: Float[Tensor, " V"]
    rates: tuple[float | None, ...]  # None where the learning rate is among the values

    def to_profile(self) -> Profile:
        """The table of the values; the layers in the order in which they ran.

        The columns are COLUMNS, NaN where a layer has no such value: a ReLU has no weights, a
        parameter that the step did not use has no gradient. `mean` and `std` are over all values,
        `zeros` is the share of them that are exactly 0; `dead` is the share of the units (channels,
        features) that are 0 for every example looked at, `nonfinite` that of the units with NaN or
        an infinity. Of parameters used in several layers the first one has the norms.
        """
        given = iter(self.values.tolist())
        table: dict[str, dict[str, float]] = {}
        calls: dict[str, list[_Call]] = {}
        for layer, count, units in self.layout.calls:
            call = _Call(count, units, *(next(given) for _ in range(5)))
            calls.setdefault(layer, []).append(call)
        for layer, own in calls.items():
            table[layer] = _activation(own)
        weights, updates = ([next(given) for _ in self.layout.owners] for _ in range(2))
        gradients = {place: next(given) for place in self.layout.with_gradient}
        rates = [next(given) if rate is None else float(rate) for rate in self.rates]
        places: dict[str, list[int]] = {}
        for place, owner in enumerate(self.layout.owners):
            places.setdefault(owner, []).append(place)
        for owner, indices in places.items():
            weight, update = (
                math.hypot(*(norms[i] for i in indices)) for norms in (weights, updates)
            )
            norms = [gradients[place] for place in indices if place in gradients]
            table.setdefault(owner, {}).update(
                weight_norm=weight,
                gradient_norm=math.hypot(*norms) if norms else math.nan,
                update_ratio=_ratio(update, weight),
                lr=rates[indices[0]] if rates else math.nan,
            )
        return Profile(
            name="one training step",
            unit="1",
            reading=READING,
            layers=tuple(table),
            values={
                column: tuple(row.get(column, math.nan) for row in table.values())
                for column in COLUMNS
            },
        )


def fetch(samples: Sequence[StepSample]) -> list[StepSample]:
    """The same samples with their numbers in the computer's own memory, all in one transfer."""
    if not samples:
        return []
    values = joined([sample.values for sample in samples]).cpu()
    parts = values.split([len(sample.values) for sample in samples])
    return [
        replace(sample, values=part.clone()) for sample, part in zip(samples, parts, strict=True)
    ]


def joined(parts: Sequence[Tensor]) -> Float[Tensor, " V"]:
    """All numbers in one row, on the device of the first.

    >>> joined([torch.tensor(1), torch.tensor([0.5, 2.0])])
    tensor([1.0000, 0.5000, 2.0000])
    """
    if not parts:
        return torch.empty(0)
    device = parts[0].device
    row = [part.reshape(-1).to(device=device, dtype=torch.float32) for part in parts]
    return torch.cat(row)


class _Call(NamedTuple):
    """ActivationSums as numbers."""

    values: int
    units: int
    mean: float
    deviation: float
    nonzero: float
    alive: float
    nonfinite: float


def _activation(calls: Sequence[_Call]) -> dict[str, float]:
    """The statistics over all values of several calls; those of units are means over the calls."""
    total = sum(call.values for call in calls)
    mean = sum(call.values * call.mean for call in calls) / total
    squares = sum(call.deviation**2 + call.values * (call.mean - mean) ** 2 for call in calls)
    return {
        "mean": mean,
        "std": math.sqrt(squares / total),
        "zeros": 1 - sum(call.nonzero for call in calls) / total,
        "dead": 1 - sum(call.alive / call.units for call in calls) / len(calls),
        "nonfinite": sum(call.nonfinite / call.units for call in calls) / len(calls),
    }


def _ratio(update: float, weight: float) -> float:
    if weight == 0:
        return 0.0 if update == 0 else math.inf
    return update / weight
