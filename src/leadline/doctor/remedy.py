"""Remedy: a change to a Setup that can be applied by itself, and that a person can read.

A remedy keeps what the model's inputs and outputs mean wherever it can: inputs are scaled by a
first layer of the model, a softmax where a sigmoid belongs becomes a sigmoid. Code that calls the
trained model then goes on working.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from leadline.core.errors import TrainingError
from leadline.training.setup import Setup


@dataclass(frozen=True, kw_only=True, eq=False)
class Remedy:
    """What to change: for a program (`apply`), for a person (`lines`), for a recipe (`settings`).

    `title` says it in a few words. `lines` are lines of code as a diff, `- old` and `+ new`.
    `settings` maps a recipe's path to its new value, `optimizer.lr` to 0.01, where a recipe can say
    it. `rerun` is a context in which the user's own function runs with the remedy applied, for what
    sits in a loop that no Setup shows.

    >>> remedy = Remedy(title="lower the rate", lines=("- lr=10.0", "+ lr=0.1"))
    >>> remedy.diff
    '- lr=10.0\\n+ lr=0.1'
    """

    title: str
    apply: Callable[[Setup], Setup] | None = None
    lines: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    rerun: Callable[[], AbstractContextManager[Any]] | None = None

    @property
    def diff(self) -> str:
        """The lines to change, one below the other."""
        return "\n".join(self.lines)

    def __call__(self, setup: Setup) -> Setup:
        """The Setup with the change; the one given stays as it is."""
        if self.apply is None:
            raise TrainingError(
                expected="a remedy that changes a Setup",
                received=f"{self.title!r}, which changes the loop around it",
                remedy="change the lines it names, or let leadline run the function with it: "
                "diagnosis.treat(function)",
            )
        return self.apply(setup)

    def to_plain(self) -> dict[str, Any]:
        """The remedy as plain values for JSON."""
        return {"title": self.title, "lines": list(self.lines), "settings": dict(self.settings)}


def together(*remedies: Remedy) -> Remedy:
    """Several changes of a Setup as one, in this order.

    >>> both = together(Remedy(title="lower the rate"), Remedy(title="leave out the softmax"))
    >>> both.title
    'lower the rate, and leave out the softmax'
    """

    def apply(setup: Setup) -> Setup:
        for remedy in remedies:
            setup = remedy(setup)
        return setup

    return Remedy(
        title=", and ".join(remedy.title for remedy in remedies),
        apply=apply,
        lines=tuple(line for remedy in remedies for line in remedy.lines),
        settings={path: value for remedy in remedies for path, value in remedy.settings.items()},
    )
