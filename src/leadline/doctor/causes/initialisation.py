"""Faults of initialisation: units that begin alike, signals that grow or shrink layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator

from leadline.doctor.causes.preprocessing import LARGE, embeds
from leadline.doctor.depth import GONE, WEAK, gradient_flow_of, signal_growth_of
from leadline.doctor.examination import Examination
from leadline.doctor.finding import Evidence, Finding, Severity
from leadline.measure.survey import LayerRecord

START = 3.0
"""A loss at the start of more than so many times the ignorant one is bad luck no more."""

FAR_OFF = 30.0
"""And from which on it is an error: weights must first shrink by a power of ten."""

REMEDY = (
    "initialise for the activation (He for relu, Glorot for tanh); put norm layers or residual "
    "paths between the layers"
)

SOURCE = "Glorot & Bengio 2010; He et al. 2015"


def signs(seen: Examination) -> Iterator[Finding]:
    """What the weights and the spread of the signal say."""
    constant = constant_weights(seen)
    if constant is not None:
        yield constant
        return
    found = _gradient(seen) or _signal(seen) or _start(seen)
    if found is not None:
        yield found


def constant_weights(seen: Examination) -> Finding | None:
    """Weights that are all the same number: the units of the layer stay copies of each other."""
    matrices = [p for p in seen.survey.parameters if len(p.shape) >= 2 and _several(p.shape)]
    same = [p for p in matrices if p.constant and p.norm > 0 and _mixes(p.name, p.shape)]
    heard = [p for p in matrices if p.gradient]
    silent = [p for p in matrices if p.constant and p.norm == 0]
    stuck = bool(silent) and not heard and any(p.gradient is not None for p in matrices)
    if not same and not stuck:
        return None
    named = same or silent
    return Finding(
        cause="init_constant",
        severity="error",
        summary="all weights of a layer begin with the same number: its units compute the same, "
        "get the same gradient and stay the same"
        if same
        else "weights of several layers begin at 0: no gradient reaches any of them",
        layers=tuple(p.name for p in named),
        evidence=tuple(
            Evidence(
                quantity=f"different numbers among the {math.prod(p.shape):,} of {p.name}",
                measured=1.0,
                expected="as many as there are weights",
            )
            for p in named[:3]
        ),
        remedy="initialise at random: torch.nn.init.kaiming_normal_(weight)",
        source=SOURCE,
    )


def _several(shape: tuple[int, ...]) -> bool:
    return shape[0] > 1 and math.prod(shape[1:]) > 1


def _mixes(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is a weight that units share their inputs through, by name and shape.

    Gains, scales and tokens ([1, 1, D], `alpha`, `gamma`) begin as constants by design.
    """
    leaf = name.rpartition(".")[2].lower()
    return sum(size > 1 for size in shape) >= 2 and (
        leaf == "w" or any(word in leaf for word in ("weight", "kernel"))
    )


def _gradient(seen: Examination) -> Finding | None:
    flow = gradient_flow_of(seen.survey)
    if flow is None or not (flow.vanishes or flow.explodes):
        return None
    squashing = {"sigmoid", "tanh", "softsign", "hardsigmoid"}
    active = [x.kind.lower() for x in seen.survey.layers if x.is_activation]
    if flow.vanishes and sum(kind in squashing for kind in active) > len(active) / 2:
        return None  # the activation's fault, named there
    normed = any("norm" in layer.kind.lower() for layer in seen.survey.layers)
    affine = [layer for layer in seen.survey.layers if layer.is_affine]
    growth = _growth(seen, affine)
    what = "explodes" if flow.explodes else "vanishes"
    return Finding(
        cause="init_bad_scale" if normed or not 0.1 < growth < 10 else "norm_missing",
        severity=flow.severity,
        summary=f"the gradient {what} on its way back through {len(affine)} layers",
        layers=(flow.first, flow.last),
        evidence=(
            flow.evidence,
            Evidence(
                quantity="spread of the last layer over the examples, over that of the first layer",
                measured=growth,
                expected="within a power of ten of 1",
            ),
        ),
        remedy=REMEDY,
        source=SOURCE,
    )


def _growth(seen: Examination, affine: list[LayerRecord]) -> float:
    """The last layer's spread over the first's; over the examples, where the last is the output.

    Biases spread the units of a layer whatever the input is: only what differs between examples
    is signal.
    """
    outputs, last = seen.survey.outputs, affine[-1]
    spread = last.std
    if outputs.shape == last.shape and outputs.ndim and len(outputs) > 1:
        spread = float(outputs.float().var(dim=0).mean().sqrt())
    return spread / affine[0].std if affine[0].std > 0 else math.inf


def _signal(seen: Examination) -> Finding | None:
    """A signal that only shrinks or grows carries gradients that are as small, or as large."""
    growth = signal_growth_of(seen.survey)
    if growth is None or WEAK <= growth <= 1 / WEAK:
        return None
    severity: Severity = "error" if not GONE <= growth <= 1 / GONE else "warning"
    affine = [layer for layer in seen.survey.layers if layer.is_affine]
    return Finding(
        cause="init_bad_scale",
        severity=severity,
        summary=f"the signal {'grows' if growth > 1 else 'shrinks'} by powers of ten through "
        f"{len(affine)} layers, and so do the gradients of their weights",
        layers=(affine[0].name, affine[-1].name),
        evidence=(
            Evidence(
                quantity="spread in the last quarter of the layers over that in the first",
                measured=growth,
                expected=f"between {WEAK:g} and {1 / WEAK:g}",
            ),
        ),
        remedy=REMEDY,
        source=SOURCE,
    )


def _start(seen: Examination) -> Finding | None:
    nature, loss, expected = seen.nature, seen.survey.loss, seen.loss_at_start
    if nature is None or nature.at_start is None or expected is None or nature.classes == 1:
        return None
    count = round(expected / nature.at_start) if nature.at_start else 1
    if not math.isfinite(loss) or loss <= START * expected + count:
        return None
    inputs = [t.float() for t in seen.batch.inputs if t.is_floating_point()]
    sizes = [float(tensor.square().mean().sqrt()) for tensor in inputs]
    if not inputs and not embeds(seen):
        sizes = [seen.survey.entering or 0.0]
    if any(size > LARGE for size in sizes[:1]):
        return None  # the inputs' fault, named there
    last = seen.survey.layers[-1:] if seen.survey.layers else ()
    name = f"ln {nature.classes}" if nature.classes else "ln 2"
    usual = math.log(nature.classes or 2)
    name = f"{name} = " if math.isclose(nature.at_start, usual, rel_tol=1e-3) else ""
    return Finding(
        cause="init_bad_scale",
        severity="error" if loss > FAR_OFF * expected + count else "warning",
        summary="the untrained network is sure of itself and wrong: its first steps only undo that "
        "(if it is trained, the labels or the preprocessing are not those it was trained with)",
        layers=tuple(layer.name for layer in last),
        evidence=(
            Evidence(
                quantity="loss at the start",
                measured=loss,
                expected=f"about {name}{nature.at_start:.3g}"
                + (f" for each of {count} targets" if count > 1 else ""),
            ),
            Evidence(
                quantity="spread of the outputs",
                measured=float(seen.survey.outputs.float().std()),
                expected="about 1 or less",
            ),
        ),
        remedy="start the last layer small (weights of a hundredth, biases 0), or normalise "
        "before it",
        source="Karpathy, A Recipe for Training Neural Networks: verify loss at init",
    )
