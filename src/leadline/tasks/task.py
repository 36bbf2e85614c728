"""Task: what 'right' means, as the one thing that training and evaluation ask of it.

A loss to descend, figures to judge by, and which of these figures decides between two models.
There is no base class: whatever has these attributes is a task.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Result(Protocol):
    """What an evaluation found; a task's own class, with all its details."""

    def metrics(self) -> dict[str, float]:
        """The figures by name, `main_metric` among them, for journals and tables."""
        ...


@runtime_checkable
class Task(Protocol):
    """What a model is asked to do.

    >>> from leadline.tasks.classification import Classification
    >>> isinstance(Classification(10), Task)
    True
    """

    @property
    def main_metric(self) -> str:
        """The name of the figure that decides which of two models is better."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether the better model has the higher main metric."""
        ...

    @property
    def head_size(self) -> int:
        """How many numbers a model has to put out for each prediction."""
        ...

    def loss(self, outputs: Any, targets: Any) -> Float[Tensor, ""]:
        """The mean loss over a batch, to be descended."""
        ...

    def check_targets(self, targets: Any) -> None:
        """Raise a DataError that says which target this task cannot use, if there is one."""
        ...

    def evaluate(self, outputs: Any, targets: Any) -> Result:
        """Judge a model's outputs over a whole split at once."""
        ...
