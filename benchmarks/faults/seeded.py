"""The seeded faults: every word of the vocabulary on healthy recipes, as cases.

`no_fault_control` is what `healthy_cases.py` holds.
"""

from __future__ import annotations

import loops_evaluation
import loops_gradient
import loops_state
import seeded_activation
import seeded_architecture
import seeded_data
import seeded_initialisation
import seeded_loss
import seeded_numerics
import seeded_optimisation
import seeded_preprocessing
import seeded_regularisation
import seeded_training_loop
import seeded_workers
from case import Case

CHAPTERS = (
    seeded_data,
    seeded_workers,
    seeded_preprocessing,
    seeded_activation,
    seeded_loss,
    seeded_numerics,
    seeded_architecture,
    seeded_initialisation,
    seeded_regularisation,
    seeded_optimisation,
    seeded_training_loop,
    loops_gradient,
    loops_state,
    loops_evaluation,
)


def cases() -> tuple[Case, ...]:
    """All of them, in the order of the vocabulary; no name comes twice."""
    found = tuple(
        case for chapter in CHAPTERS for fault in chapter.FAULTS for case in fault.cases()
    )
    names = [case.name for case in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"expected every case to have a name of its own, received {twice}")
    return found
