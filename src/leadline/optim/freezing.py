"""Freezing: a part of the depth keeps the weights it has, for good or until it thaws.

What a network learned elsewhere is kept while the new head finds its place, and is let go from the
last part to the first ('gradual unfreezing', Howard and Ruder 2018, arXiv:1801.06146, section 3.3):
before step t of the T over which F frozen parts thaw, the first F - floor(F t / T) are frozen.

The surprising choice: a frozen norm with running statistics is in evaluation, in training too.
Frozen weights behind a batch norm that goes on adapting would be another function at every step.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from leadline.core.config import check, in_range
from leadline.core.errors import ConfigError
from leadline.core.names import did_you_mean
from leadline.optim.depth import Part, depth_parts

STEM = "stem"
FEATURES = "features"


@dataclass(frozen=True, kw_only=True)
class Freezing:
    """Which parts are frozen at first, and over how many steps they thaw (0: they never do).

    `upto` is `stem` (the first part), `features` (all but the last, the head), or the name of a
    module: everything up to its end. A name of the model's own goes before the two words.
    """

    upto: str
    thaw_steps: int = 0

    def __post_init__(self) -> None:
        check(self, in_range("thaw_steps", self.thaw_steps, 0))

    def parts(self, model: nn.Module) -> tuple[Part, ...]:
        """The parts that are frozen at first; ConfigError where the name is none.

        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> [part.name for part in Freezing(upto="features").parts(model)]
        ['0', '1']
        """
        parts = depth_parts(model)
        named = [i for i, part in enumerate(parts) if _holds(part, self.upto)]
        if named:
            count = named[-1] + 1
        elif self.upto in (STEM, FEATURES):
            count = 1 if self.upto == STEM else len(parts) - 1
        else:
            raise self._unknown(parts)
        if count == len(parts):
            raise ConfigError(
                expected=f"freeze: a part before the last one, {parts[-1].name!r}",
                received=f"{self.upto!r}, which leaves nothing to train",
                remedy=f"use {FEATURES!r} to freeze all but the head",
            )
        return parts[:count]

    def apply(self, model: nn.Module, *, step: int) -> None:
        """Freeze what is frozen before step number `step`, counted from 0, and let go the rest.

        `model` is in training mode; frozen norms with running statistics are put in evaluation.
        """
        parts = self.parts(model)
        frozen = len(parts)
        if self.thaw_steps:
            frozen -= min(frozen, frozen * step // self.thaw_steps)
        for index, part in enumerate(parts):
            for parameter in part.parameters:
                parameter.requires_grad_(index >= frozen)
            for module in part.modules if index < frozen else ():
                for inner in module.modules():
                    if getattr(inner, "running_mean", None) is not None:
                        inner.eval()

    def frozen_names(self, model: nn.Module) -> frozenset[str]:
        """The names of the parameters that are frozen at first."""
        held = {id(parameter) for part in self.parts(model) for parameter in part.parameters}
        return frozenset(name for name, p in model.named_parameters() if id(p) in held)

    def _unknown(self, parts: tuple[Part, ...]) -> ConfigError:
        names = [STEM, FEATURES, *_prefixes(parts)]
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        return ConfigError(
            expected=f"freeze: the name of a part of the network: {shown}",
            received=f"{self.upto!r}{did_you_mean(self.upto, names)}",
            remedy=f"name one of these, or {FEATURES!r} for all but the head",
        )


def _holds(part: Part, upto: str) -> bool:
    return any(name == upto or name.startswith(f"{upto}.") for name in part.names)


def _prefixes(parts: tuple[Part, ...]) -> list[str]:
    """The names of the parts, those in rows by the name of their row first.

    >>> _prefixes((Part(names=("layer1.0",), modules=(), parameters=()),))
    ['layer1', 'layer1.0']
    """
    rows = [part.name.rpartition(".")[0] for part in parts]
    return [name for name in dict.fromkeys([*rows, *(part.name for part in parts)]) if name]
