"""Suspicions about depth: a long trunk without shortcuts, in which rows become alike.

Two suspicions and two remedies, since there are two ways out: `layer_missing` puts the missing
residual paths in, `init_bad_scale` draws first weights that carry a signal through without them.
Both wait for their trial.

Look-alikes. A network without norms whose signal or gradient changes by powers of ten is told by
the check (`init_bad_scale`, `norm_missing`): there the size goes. Here the size may stay what it
was, as behind layer norms, and only what tells positions or examples apart goes. A deep network
that is merely slow keeps its difference and is not suspected, nor is any with shortcuts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from torch import nn

from leadline.core.errors import LeadlineError
from leadline.core.seeds import preserved_random_state
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedies import depth
from leadline.doctor.suspicion import suspect
from leadline.doctor.trunk import FEWEST, Trunk, find_trunk

ALIKE = 1e-3
"""Share of the difference between rows below which a trunk leaves too little of it.

Float32 still resolves it; what is left of an untrained GPT's is 0.5, of a plain ReLU network's of
50 layers, drawn by He's rule, 0.1."""

IDLE = 1e-4
"""Gradient of queries and keys over that of values, below which attention does not learn."""

SOURCE = (
    "Dong, Cordonnier & Loukas 2021, arXiv:2103.03404; Noci et al. 2022, arXiv:2206.03126; "
    "Schoenholz et al. 2017, arXiv:1611.01232"
)

SHORTCUTS = "He et al. 2015, arXiv:1512.03385; " + SOURCE

ROTATIONS = (
    "He et al. 2023, arXiv:2302.10322; Balduzzi et al. 2017, arXiv:1702.08591; Xiao et al. 2018, "
    "arXiv:1806.05393"
)


def suspicions(patient: Patient) -> Iterator[Finding]:
    """A trunk that makes rows alike, with residual paths and with rotations as remedies."""
    seen = patient.seen
    if seen is None:
        return
    try:
        with preserved_random_state():
            trunk = find_trunk(seen.model, seen.batch)
            if trunk is None or not trunk.kept < ALIKE:
                return
            plan = depth.isometry_of(seen.model, seen.batch, blocks=trunk.blocks)
    except LeadlineError as error:
        patient.limits.append(f"the depth was not looked at: {error.received}")
        return
    evidence = tuple(_evidence(patient, trunk))
    yield suspect(
        "layer_missing",
        f"{len(trunk.blocks)} blocks in a row without a residual path: behind them all "
        f"{trunk.rows} look alike, and the loss cannot tell the first layers anything",
        *evidence,
        change=depth.shortcuts(trunk.blocks),
        layers=(trunk.blocks[0], trunk.blocks[-1]),
        source=SHORTCUTS,
    )
    if plan is not None:
        yield suspect(
            "init_bad_scale",
            f"first weights that make all {trunk.rows} alike within {len(trunk.blocks)} blocks",
            *evidence,
            change=depth.rotations(plan),
            layers=(trunk.blocks[0], trunk.blocks[-1]),
            source=ROTATIONS,
        )


def _evidence(patient: Patient, trunk: Trunk) -> Iterator[Evidence]:
    yield Evidence(
        quantity="blocks in a row that no shortcut leads past",
        measured=float(len(trunk.blocks)),
        expected=f"below {FEWEST}",
    )
    yield Evidence(
        quantity=f"what tells {trunk.rows} apart behind the last of them, over that before the "
        "first",
        measured=trunk.kept,
        expected=f"above {ALIKE:g}",
    )
    gone = next(
        (k for k, d in enumerate(trunk.leaving) if d < ALIKE * trunk.entering), len(trunk.leaving)
    )
    yield Evidence(
        quantity=f"blocks behind which less than {ALIKE:g} of it is left",
        measured=float(gone + 1),
        expected="none",
    )
    idle = _idle(patient)
    if idle is not None:
        yield Evidence(
            quantity="gradient of queries and keys over that of values, median over the attentions",
            measured=idle,
            expected=f"above {IDLE:g}",
        )


def _idle(patient: Patient) -> float | None:
    """What queries and keys hear of the loss: where positions are alike, where to look is one."""
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    shares = []
    for name, module in seen.model.named_modules():
        gradient = seen.survey.gradients.get(f"{name}.in_proj_weight")
        if not isinstance(module, nn.MultiheadAttention) or gradient is None:
            continue
        width = module.embed_dim
        values = float(gradient[2 * width :].norm())
        if values > 0 and math.isfinite(values):
            shares.append(float(gradient[: 2 * width].norm()) / values)
    return statistics.median(shares) if shares else None
