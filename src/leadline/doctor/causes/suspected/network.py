"""Suspicions about the network: activations inside it, first weights, dropout, what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from leadline.core.taps import plain_name
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.prescription import hidden_activations
from leadline.doctor.remedies import layers, surgery
from leadline.doctor.suspicion import suspect
from leadline.measure.survey import LayerRecord
from leadline.nn.initialisation import WEIGHT_LAYERS

SQUASHING = {"Sigmoid", "Tanh", "Softsign", "Hardsigmoid"}

SPREAD_OUT = 2.5
"""Times the usual spread of first weights from which on they are suspected."""

KEPT = 0.05
"""Share of a signal that is left by all dropouts together from which on they are suspected."""

DROPPED = 0.5
"""A rate from which on a dropout is suspected."""

SWAPPED = (0.75, 0.9)
"""Rates that are usual as the share to keep: beyond them, neither reading makes a usual rate."""


def suspicions(patient: Patient) -> Iterator[Finding]:
    """What the layers look like."""
    if patient.seen is None:
        return
    yield from _softmax_inside(patient)
    yield from _squashing(patient)
    yield from _missing(patient)
    yield from _weights(patient)
    yield from _dropped_answers(patient)
    yield from _dropout(patient)


def _softmax_inside(patient: Patient) -> Iterator[Finding]:
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    names = [
        name
        for name in hidden_activations(patient)
        if isinstance(seen.model.get_submodule(name), nn.Softmax | nn.Softmax2d | nn.LogSoftmax)
    ]
    if names:
        change = layers.other_activations(names, "relu", was="Softmax")
        yield suspect(
            "hidden_activation_wrong",
            "a softmax inside the network makes its units share one sum of 1: hardly anything "
            "passes through them",
            Evidence(
                quantity="softmax layers before the last linear layer",
                measured=float(len(names)),
                expected="0, but in attention",
            ),
            change=change,
            layers=tuple(names),
            source="Glorot & Bengio 2010",
        )


def _squashing(patient: Patient) -> Iterator[Finding]:
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    names = [
        name
        for name in hidden_activations(patient)
        if type(seen.model.get_submodule(name)).__name__ in SQUASHING
    ]
    if names:
        kinds = " and ".join(
            sorted({type(seen.model.get_submodule(name)).__name__ for name in names})
        )
        yield suspect(
            "hidden_activation_wrong",
            f"{kinds} inside the network: its slope is small, and the gradient shrinks with every "
            "layer",
            Evidence(
                quantity="squashing activations inside the network",
                measured=float(len(names)),
                expected="none, but in gates",
            ),
            change=layers.other_activations(names, "relu", was=kinds),
            layers=tuple(names),
            source="Glorot, Bordes & Bengio 2011",
        )


def _missing(patient: Patient) -> Iterator[Finding]:
    """Two weight layers in a row with nothing nonlinear between them."""
    names = linear_pairs(patient)
    if names:
        yield suspect(
            "activation_missing",
            "a weight layer follows another with nothing nonlinear between them: together they "
            "are one linear layer",
            Evidence(
                quantity="weight layers without an activation behind",
                measured=float(len(names)),
                expected="0 but for the last",
            ),
            change=layers.activation_behind(names),
            layers=tuple(names),
            source="Goodfellow et al. 2016, section 6.1",
        )


PASSING = ("pool", "dropout", "flatten", "identity", "unflatten", "reshape")
"""Kinds of layers that an activation may be before or behind; a max-pool is nonlinear, weakly."""


def linear_pairs(patient: Patient) -> list[str]:
    """The modules that are weight layers directly followed by weight layers.

    Where a batch norm comes between them it is named: the activation belongs behind it. Beside
    residual paths that says nothing, for what follows there may be a branch of its own.
    """
    seen = patient.seen
    assert seen is not None, "it has layers"
    known = dict(seen.model.named_modules())
    path = [x for x in seen.survey.layers if not any(w in x.kind.lower() for w in PASSING)]
    joined = any(layer.kind == "add" for layer in path)
    found = []
    pending: str | None = None
    for layer in path:
        name = plain_name(layer.name)
        module = known.get(name)
        if _simple(layer):
            if pending is not None:
                found.append(pending)
            pending = name if isinstance(module, WEIGHT_LAYERS) else None
        elif pending is not None and isinstance(module, _BatchNorm) and not joined:
            pending = name
        else:
            pending = None
    return list(dict.fromkeys(found))


def _simple(layer: LayerRecord) -> bool:
    return layer.is_affine and not layer.kind.lower().startswith(("matmul", "bmm", "embedding"))


def _weights(patient: Patient) -> Iterator[Finding]:
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    found: list[tuple[float, str]] = []
    constant: list[str] = []
    for name, module in seen.model.named_modules():
        if not isinstance(module, WEIGHT_LAYERS) or not module.weight.requires_grad:
            continue
        weight = module.weight.detach()
        usual = math.sqrt(2.0 / weight[0].numel())
        size = float(weight.square().mean().sqrt())
        if size > 0:
            found.append((size / usual, name))
        elif weight.numel() > 1:
            constant.append(name)
    far = [(r, name) for r, name in found if r > SPREAD_OUT or r < 0.1]
    if constant and len(found) > 0:
        change = layers.usual_weights()
        yield suspect(
            "init_constant",
            "all weights of a layer begin at 0: what goes through it is the same for every input",
            Evidence(
                quantity="layers whose weights are all 0",
                measured=float(len(constant)),
                expected="0, but at the end of residual branches",
            ),
            change=change,
            layers=tuple(constant),
            source="Goodfellow et al. 2016, section 8.4",
        )
    if far and len(far) * 2 >= len(found):
        ratio, _ = max(far, key=lambda entry: abs(math.log(entry[0])))
        yield suspect(
            "init_bad_scale",
            "the first weights are far " + ("larger" if ratio > 1 else "smaller") + " than the "
            "rules for initialisation say",
            Evidence(
                quantity="root mean square of the weights over that of He's rule",
                measured=ratio,
                expected=f"0.1 to {SPREAD_OUT:g}",
            ),
            change=layers.usual_weights(_rule(patient)),
            layers=tuple(name for _, name in far),
            source="Glorot & Bengio 2010; He et al. 2015",
        )


def _rule(patient: Patient) -> str:
    seen = patient.seen
    assert seen is not None, "it has layers"
    kinds = [type(seen.model.get_submodule(n)).__name__ for n in hidden_activations(patient)]
    return "tanh" if kinds and sum(k in SQUASHING for k in kinds) > len(kinds) / 2 else "relu"


def _dropped_answers(patient: Patient) -> Iterator[Finding]:
    """A dropout behind the last layer."""
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    name = surgery.last_module(seen.model, seen.batch)
    ending = seen.model.get_submodule(name) if name else None
    if name and isinstance(ending, _DropoutNd) and ending.p > 0:
        yield suspect(
            "dropout_misuse",
            "the last layer is a dropout: in training, answers are set to 0 and the loss blames "
            "the network for it",
            Evidence(quantity="dropout of the answers", measured=ending.p, expected="0"),
            change=layers.without_dropout(name),
            layers=(name,),
            source="Srivastava et al. 2014, section 4: hidden and input units are dropped",
        )


def _dropout(patient: Patient) -> Iterator[Finding]:
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    rates = [m.p for m in seen.model.modules() if isinstance(m, _DropoutNd) and m.p > 0]
    if not rates:
        return
    kept = math.prod(1 - rate for rate in rates)
    highest = max(rates)
    if highest <= DROPPED and kept >= KEPT:
        return
    swapped = SWAPPED[0] <= highest <= SWAPPED[1]
    yield suspect(
        "dropout_misuse" if swapped else "dropout_too_high",
        f"dropout leaves {kept:.1%} of the signal"
        + (": a share to keep was given where the share to drop is asked for" if swapped else ""),
        Evidence(quantity="highest rate", measured=highest, expected="0.1 to 0.5"),
        Evidence(
            quantity="share that all dropouts together leave", measured=kept, expected="above 0.05"
        ),
        change=layers.dropout_times(1 / highest - 1 if swapped else min(0.4, 0.2 / highest)),
        source="Srivastava et al. 2014, figure 9",
    )
