"""How signal and gradient change through the depth, in one number each: first against last layers.

What counts for a layer is the change of the loss when its output changes by a given share of its
own size: gradient × spread × √(number of outputs). In a chain of layers that only rescale it is
the same everywhere, whatever the layers' units are: such a chain shows in the signal itself, whose
spread then goes with a power of the number of layers. Layers whose weights begin at zero on purpose
(the last in a residual branch) are left out, since nothing flows there yet.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from leadline.doctor.finding import Evidence, Severity
from leadline.measure.survey import Survey

WEAK = 1e-4
"""Ratio of first to last from which on a gradient vanishes: a warning."""

GONE = 1e-7
"""And from which on it is an error: float32 itself resolves 1e-7 of a sum."""

FEWEST = 4
"""Layers below which there is no depth to speak of."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The effect in the first layers over that in the last quarter of them.

    Of the first three layers the one counts whose effect is nearest to that of the last: the
    queries and keys of an attention that is still even hear little, whatever the depth. The last
    ones count by their median, or by their largest where that is nearer: branches behind a small
    scale, of which residual networks have many, hear little too.
    """

    ratio: float
    first: str
    last: str

    @property
    def vanishes(self) -> bool:
        """Whether too little comes back to the first layers."""
        return self.ratio < WEAK

    @property
    def explodes(self) -> bool:
        """Whether the first layers get far more than the last."""
        return self.ratio > 1 / WEAK

    @property
    def severity(self) -> Severity:
        """An error beyond what float32 resolves, else a warning."""
        return "error" if self.ratio < GONE or self.ratio > 1 / GONE else "warning"

    @property
    def evidence(self) -> Evidence:
        """The ratio against its bounds."""
        return Evidence(
            quantity="effect of a relative change in the first layers over that in the last",
            measured=self.ratio,
            expected=f"between {WEAK:g} and {1 / WEAK:g}",
        )


def signal_growth_of(survey: Survey) -> float | None:
    """The median spread in the last quarter of the layers over that in the first quarter."""
    spreads = [layer.std for layer in survey.layers if layer.is_affine and layer.std > 0]
    if len(spreads) < FEWEST or not all(map(math.isfinite, spreads)):
        return None
    quarter = len(spreads) // 4
    return statistics.median(spreads[-quarter:]) / statistics.median(spreads[:quarter])


def gradient_flow_of(survey: Survey) -> Flow | None:
    """The flow over the dense layers and convolutions that hear anything; None when too few."""
    effects = [
        (layer.name, layer.gradient * layer.std * math.sqrt(math.prod(layer.shape)))
        for layer in survey.layers
        if layer.is_affine and layer.gradient and layer.std > 0
    ]
    if len(effects) < FEWEST:
        return None
    quarter = max(1, len(effects) // 4)
    first, last = effects[: min(3, len(effects) // 2)], effects[-quarter:]
    ends = statistics.median(value for _, value in last), max(value for _, value in last)
    ratios = [value / end for _, value in first for end in ends if end > 0]
    if not ratios or not all(0 < ratio < math.inf for ratio in ratios):
        return None
    nearest = min(ratios, key=lambda ratio: abs(math.log(ratio)))
    return Flow(ratio=nearest, first=first[0][0], last=last[-1][0])
