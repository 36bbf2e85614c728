"""Builds, checks, trains, diagnoses and explains deep networks, on PyTorch.

    import leadline
    run = leadline.train("digits")           # a recipe's name, a path to data, or a Recipe
    run.predict(images)

Nothing happens at import: each name is fetched from its file when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leadline.core.errors import LeadlineError
    from leadline.data.arrays import from_arrays
    from leadline.doctor.check import check
    from leadline.doctor.diagnose import diagnose, record
    from leadline.doctor.watch import watch
    from leadline.measure.summary import summary
    from leadline.models.architecture import Architecture
    from leadline.models.create import create_model, list_models
    from leadline.recipes.train import train
    from leadline.tasks.task import Task
    from leadline.training.execution import Execution
    from leadline.training.loop import steps
    from leadline.training.recipe import Recipe
    from leadline.training.run import Run
    from leadline.training.setup import Setup
    from leadline.training.step import Step

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "Execution",
    "LeadlineError",
    "Recipe",
    "Run",
    "Setup",
    "Step",
    "Task",
    "check",
    "create_model",
    "diagnose",
    "from_arrays",
    "list_models",
    "record",
    "steps",
    "summary",
    "train",
    "watch",
]

_HOMES = {
    "Architecture": "leadline.models.architecture",
    "Execution": "leadline.training.execution",
    "LeadlineError": "leadline.core.errors",
    "Recipe": "leadline.training.recipe",
    "Run": "leadline.training.run",
    "Setup": "leadline.training.setup",
    "Step": "leadline.training.step",
    "Task": "leadline.tasks.task",
    "check": "leadline.doctor.check",
    "create_model": "leadline.models.create",
    "diagnose": "leadline.doctor.diagnose",
    "from_arrays": "leadline.data.arrays",
    "list_models": "leadline.models.create",
    "record": "leadline.doctor.diagnose",
    "steps": "leadline.training.loop",
    "summary": "leadline.measure.summary",
    "train": "leadline.recipes.train",
    "watch": "leadline.doctor.watch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'leadline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
