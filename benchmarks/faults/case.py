"""A case of the benchmark: a program with a known fault, its fixed twin, and what counts as healed.

`train` runs either, `Case.score` says how good the trained model is on test data, `reaches` whether
that is as good as the fixed twin. How large a case is, is set once: `scale("quick")` before cases
are made; `pick(quick=..., full=...)` reads it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from torch import nn

from leadline.core.errors import TrainingError
from leadline.core.seeds import preserved_random_state
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.setup import Setup
from leadline.training.state import TrainingState

Subject = Setup | Callable[[], nn.Module]
Scale = Literal["quick", "full"]
Value = TypeVar("Value")

SCALE: Scale = "quick"
SHARE = 0.95  # of the fixed twin's accuracy: what a repair must reach
EXCESS = 1.05  # times the fixed twin's error: what a repair may leave


def scale(name: Scale) -> None:
    """Set the size of all cases made from now on: 'full' is the published one."""
    global SCALE
    if name not in ("quick", "full"):
        raise ValueError(f"expected the scale 'quick' or 'full', received {name!r}")
    SCALE = name


def pick(*, quick: Value, full: Value) -> Value:
    """The value for the scale that is set."""
    return quick if SCALE == "quick" else full


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One program with its fault and its cure.

    `buggy` and `fixed` take a seed and give a Setup, or a function without arguments: a user's own
    loop, which returns the model it trained. `score` takes a trained model. An error of at most
    `enough` counts as healed however small the fixed twin's is: where the answer can be exact,
    5 % more than nearly nothing means nothing.
    """

    name: str
    origin: str
    faults: tuple[str, ...]
    buggy: Callable[[int], Subject]
    fixed: Callable[[int], Subject] | None
    score: Callable[[nn.Module], float]
    higher_is_better: bool
    metric: str
    notes: str = ""
    execution: Execution = field(default_factory=lambda: Execution(threads=1))
    enough: float = 0.0

    @property
    def split(self) -> Literal["tune", "test"]:
        """Thresholds may be set on 'tune' only; the name alone decides, so that nobody chooses."""
        digest = hashlib.sha256(self.name.encode()).hexdigest()
        return "test" if int(digest, 16) % 2 else "tune"


def train(subject: Subject, execution: Execution) -> nn.Module:
    """The model that a program ends with; one that diverges is given as it then stands.

    The random streams are afterwards where they were.
    """
    with preserved_random_state(), execution.threads_scope():
        if not isinstance(subject, Setup):
            return subject()
        state = TrainingState(subject, execution)
        try:
            for _ in steps(subject, execution, state=state):
                pass
        except TrainingError:
            pass  # to diverge is the fault of many a case: its score is that of what is left
        return state.evaluated_model


def reaches(score: float, fixed_score: float, case: Case) -> bool:
    """Whether `score` is as good as the fixed twin's: 95 % of its accuracy, 105 % of its error."""
    if not math.isfinite(score):
        return False
    if case.higher_is_better:
        return score >= SHARE * fixed_score
    return score <= max(EXCESS * fixed_score, case.enough)
