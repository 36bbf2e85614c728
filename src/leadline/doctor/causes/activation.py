"""Faults of activations: at the output, against what the loss expects, and within the network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from leadline.core.errors import LeadlineError
from leadline.core.taps import Taps
from leadline.doctor.causes.initialisation import constant_weights
from leadline.doctor.depth import Flow, gradient_flow_of
from leadline.doctor.examination import Examination
from leadline.doctor.finding import Evidence, Finding
from leadline.measure.layers import Layer, on_layer
from leadline.measure.survey import LayerRecord

TOLERANCE = 1e-4
"""How far the sum of a row of probabilities may be from 1; more where numbers are coarser."""

DEAD = 0.9
"""Share of units that say the same for every example from which on a layer is nearly dead."""

LOOKS = 32
"""Values a unit must have shown before it is called dead: fewer may be chance."""

ALIKE = 1e-6
"""Relative difference of outputs that float32 makes where there is none."""

SIGMOIDAL = ("sigmoid", "tanh", "softsign", "hardsigmoid")
"""Activations that saturate at both ends; they do not die, they saturate or vanish."""

RANGES = {"Relu": (0.0, math.inf), "Sigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0)}
"""Backward operations of nonlinearities, and the ends of what these put out."""

BEYOND = 0.1
"""Share of the targets out of the last activation's range from which on it is the wrong one."""

SATURATED = 0.9
"""Share of saturated outputs from which on a sigmoid or tanh layer hardly passes a gradient."""


def signs(seen: Examination) -> Iterator[Finding]:
    """What the activations say."""
    yield from _output(seen)
    yield from _bounded(seen)
    flow = gradient_flow_of(seen.survey)
    if flow is None or not flow.vanishes:
        yield from _dead(seen)  # where the signal itself vanishes, no unit can say anything
    yield from _saturated(seen)
    yield from _linear(seen)
    if flow is not None and flow.vanishes and _sigmoidal_share(seen) > 0.5:
        yield _vanishing(seen, flow)


def _output(seen: Examination) -> Iterator[Finding]:
    nature, outputs = seen.nature, seen.survey.outputs.float()
    if nature is None or outputs.numel() == 0:
        return
    within = bool(((outputs >= 0) & (outputs <= 1)).all())
    axis = nature.class_axis if nature.class_axis is not None else -1
    last = seen.survey.graph[-1] if seen.survey.graph else ""
    tolerance = max(TOLERANCE, 2 * torch.finfo(seen.survey.outputs.dtype).eps)
    if nature.softmax_inside:
        yield _softmax_inside_loss(nature.classes or 0)
        return
    if nature.kind == "cross_entropy" and (nature.classes or 0) > 1 and within:
        sums = outputs.sum(dim=axis)
        if _all_one(sums, tolerance):
            yield _double_softmax(float(sums.mean()), nature.classes or 0)
            return
        if last == "SigmoidBackward0":
            yield _squashed("sigmoid", "cross entropy", outputs)
            return
    rectified = last.startswith(("Relu", "HardtanhBackward")) or _rectified_then_dropped(seen)
    if nature.kind == "cross_entropy" and rectified:
        yield _rectified(outputs)
    if nature.kind == "binary_logits" and within and last == "SigmoidBackward0":
        yield _squashed("sigmoid", "a binary cross entropy of logits", outputs)
    if nature.kind == "nll" and not _all_one(outputs.exp().sum(dim=axis), tolerance):
        total = float(outputs.exp().sum(dim=axis).mean())
        yield Finding(
            cause="output_activation_wrong",
            severity="error",
            summary="the loss expects log-probabilities, and the outputs are none",
            evidence=(
                Evidence(
                    quantity="sum of exp(output) over the classes", measured=total, expected="1"
                ),
            ),
            remedy="end the model with log_softmax, or use cross_entropy on the logits",
        )
    if nature.kind == "log_of_probabilities" and not (
        within and _all_one(outputs.sum(dim=axis), tolerance)
    ):
        total = float(outputs.sum(dim=axis).mean())
        yield Finding(
            cause="output_activation_wrong",
            severity="error",
            summary="the loss takes the logarithm of probabilities, and the outputs are none",
            evidence=(
                Evidence(
                    quantity="sum of the outputs over the classes", measured=total, expected="1"
                ),
            ),
            remedy="use cross_entropy on the logits, which is also safe for large ones",
        )


def _all_one(sums: Tensor, tolerance: float) -> bool:
    return bool(((sums - 1).abs() < tolerance).all())


def _double_softmax(total: float, classes: int) -> Finding:
    floor = math.log(1 + (classes - 1) / math.e)
    return Finding(
        cause="double_softmax",
        severity="error",
        summary="the outputs are probabilities already, and the loss applies a softmax again: it "
        f"cannot fall below {floor:.2f} and its gradient is weak",
        evidence=(
            Evidence(quantity="sum of an output row", measured=total, expected="anything but 1"),
            Evidence(quantity="lowest loss that can be reached", measured=floor, expected="near 0"),
        ),
        remedy="return the logits: drop the softmax at the end (use it for predictions only)",
        source="torch.nn.CrossEntropyLoss: the input is expected to contain unnormalised logits",
    )


def _softmax_inside_loss(classes: int) -> Finding:
    floor, most = math.log(1 + (classes - 1) / math.e), math.log(classes - 1 + math.e)
    return Finding(
        cause="double_softmax",
        severity="error",
        summary="the loss takes the softmax of the outputs, and a cross entropy of that, which "
        f"applies a softmax again: it cannot fall below {floor:.2f} and its gradient is weak",
        evidence=(
            Evidence(
                quantity="loss of outputs of ±1,000, sure and wrong",
                measured=f"at most {most:.3g}",
                expected="hundreds, as of logits",
            ),
            Evidence(quantity="lowest loss that can be reached", measured=floor, expected="near 0"),
        ),
        remedy="give the cross entropy the outputs as they are, without a softmax before it",
        source="torch.nn.CrossEntropyLoss: the input is expected to contain unnormalised logits",
    )


def _squashed(name: str, loss: str, outputs: Tensor) -> Finding:
    return Finding(
        cause="activation_extra",
        severity="error",
        summary=f"a {name} ends the model, and {loss} expects logits and applies its own",
        evidence=(
            Evidence(
                quantity="range of the outputs",
                measured=f"{float(outputs.min()):.3f} to {float(outputs.max()):.3f}",
                expected="logits of both signs",
            ),
        ),
        remedy=f"drop the {name} at the end, or use the loss that takes probabilities",
    )


def _bounded(seen: Examination) -> Iterator[Finding]:
    """A nonlinearity at the end of a regression that cannot reach the targets."""
    nature, targets = seen.nature, seen.targets
    if nature is None or nature.kind not in ("squared", "absolute") or targets is None:
        return
    last = seen.survey.graph[-1].partition("Backward")[0] if seen.survey.graph else ""
    if last not in RANGES or targets.numel() == 0:
        return
    low, high = RANGES[last]
    targets = targets.float()
    beyond = float(((targets < low - TOLERANCE) | (targets > high + TOLERANCE)).float().mean())
    if beyond <= BEYOND:
        return
    outputs = seen.survey.outputs.float()
    yield Finding(
        cause="output_activation_wrong",
        severity="error",
        summary=f"a {last.lower()} ends the model, and {beyond:.0%} of the targets lie where its "
        "outputs cannot go",
        evidence=tuple(
            Evidence(
                quantity=f"range of the {name}",
                measured=f"{float(values.min()):.3g} to {float(values.max()):.3g}",
                expected=expected,
            )
            for name, values, expected in (
                ("outputs", outputs, "that of the targets"),
                ("targets", targets, f"within {low:g} to {high:g}"),
            )
        ),
        remedy="drop the activation behind the last layer, or scale the targets into its range",
    )


def _rectified_then_dropped(seen: Examination) -> bool:
    """Whether the network ends in a rectifier and a dropout, which is a product in the graph."""
    ends = [layer.kind.lower() for layer in seen.survey.layers if layer.kind != "Identity"][-2:]
    return len(ends) == 2 and ends[0] in ("relu", "relu6") and ends[1].startswith("dropout")


def _rectified(outputs: Tensor) -> Finding:
    share = float((outputs == 0).float().mean())
    return Finding(
        cause="output_activation_wrong",
        severity="error",
        summary="a rectifier ends the model: logits below 0 are cut off and pass no gradient",
        evidence=(
            Evidence(quantity="share of logits that are exactly 0", measured=share, expected="0"),
            Evidence(quantity="smallest logit", measured=float(outputs.min()), expected="below 0"),
        ),
        remedy="drop the activation behind the last layer",
    )


def _dead(seen: Examination) -> Iterator[Finding]:
    layers = [layer for layer in seen.survey.layers if layer.kind != "Identity"]
    dead = [
        layer
        for before, layer in itertools.pairwise(layers)
        if layer.is_activation
        and layer.kind.lower() not in SIGMOIDAL
        and layer.silent >= DEAD
        and layer.looks >= LOOKS
        and not _begins_at_zero(seen, before)
    ]
    if constant_weights(seen) is not None:
        return  # the initialisation's fault, named there
    whole = [layer for layer in dead if layer.silent == 1 and _answers_alike(seen)]
    if dead:
        named = whole or dead
        yield Finding(
            cause="hidden_activation_wrong",
            severity="error" if whole else "warning",
            summary="an activation says the same whatever the input is, and so does the network"
            if whole
            else "most units of an activation say the same whatever the input is",
            layers=tuple(layer.name for layer in named),
            evidence=tuple(
                Evidence(
                    quantity=f"units of {layer.name} that never change",
                    measured=layer.silent,
                    expected=f"a share below {DEAD:g}",
                )
                for layer in named[:3]
            ),
            remedy="look at the scale and bias of the layer before; a leaky activation or a norm "
            "layer keeps units alive",
            source="Lu et al. 2020, Dying ReLU and Initialization",
        )


def _begins_at_zero(seen: Examination, layer: LayerRecord) -> bool:
    """Whether the layer has a gain of 0 on purpose: the last norm of a residual branch, say."""
    owner = layer.name.partition("/")[0].partition(" (call")[0]
    gain = f"{owner}.weight"
    return layer.std == 0 and any(p.name == gain and p.norm == 0 for p in seen.survey.parameters)


def _answers_alike(seen: Examination) -> bool:
    """Whether the network's output is the same for every example of the batch."""
    outputs = seen.survey.outputs.float()
    if outputs.ndim == 0 or len(outputs) < 2:
        return False
    return bool((outputs - outputs[:1]).abs().max() <= ALIKE * outputs.abs().max())


def _saturated(seen: Examination) -> Iterator[Finding]:
    hidden = seen.survey.layers[:-1]
    stuck = [layer for layer in hidden if layer.saturated >= SATURATED]
    if stuck:
        yield Finding(
            cause="hidden_activation_wrong",
            severity="warning",
            summary="sigmoid or tanh units sit at the ends of their range, where their slope is "
            "near 0: hardly any gradient passes",
            layers=tuple(layer.name for layer in stuck),
            evidence=tuple(
                Evidence(
                    quantity=f"saturated outputs of {layer.name}",
                    measured=layer.saturated,
                    expected=f"a share below {SATURATED:g}",
                )
                for layer in stuck[:3]
            ),
            remedy="scale the inputs and the weights of the layer before down, or use relu",
            source="Glorot & Bengio 2010, section 3",
        )


def _linear(seen: Examination) -> Iterator[Finding]:
    """Several dense layers or convolutions, and nothing but linear things between them."""
    layers = seen.survey.layers
    affine = [layer for layer in layers if layer.is_affine]
    if len(affine) < 2:
        return
    linear = ("conv", "linear", "dropout", "flatten", "identity", "avgpool", "add", "batchnorm")
    nonlinear = [x for x in layers if not any(word in x.kind.lower() for word in linear)]
    nonlinear = [x for x in nonlinear if x is not layers[-1]]
    if not nonlinear and _is_affine_map(seen, until=affine[-1].name):
        yield Finding(
            cause="activation_missing",
            severity="warning",
            summary=f"{len(affine)} layers without a nonlinearity between them are one linear "
            "layer: depth adds nothing",
            layers=tuple(layer.name for layer in affine),
            evidence=(
                Evidence(
                    quantity="nonlinear layers between the first and the last",
                    measured=0.0,
                    expected="one between each two",
                ),
            ),
            remedy="put a ReLU (or GELU) behind each layer but the last",
        )


def _is_affine_map(seen: Examination, *, until: str) -> bool:
    """Whether f(a + b - c) = f(a) + f(b) - f(c) at a layer: functions that are no layers count too.

    Cost: 1 forward pass of 4 examples, in evaluation mode.
    """
    batch = seen.batch.first(3)
    if len(batch.inputs) != 1 or batch.examples < 3 or not batch.inputs[0].is_floating_point():
        return False
    a, b, c = batch.inputs[0]
    heard: list[Tensor] = []

    def listen(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        if layer.name == until:
            heard.append(output.detach().clone())

    with Taps(seen.model) as taps, torch.no_grad():
        seen.model.eval()
        on_layer(taps, listen)
        try:
            batch.with_inputs(torch.stack([a, b, c, a + b - c])).forward(seen.model)
        except LeadlineError:
            return False  # the number of examples is part of the model: nothing is proven
    if not heard or len(heard[0]) != 4:
        return False
    first, second, third, combined = heard[0].float()
    difference = (combined - (first + second - third)).abs().max()
    return bool(difference <= 1e-4 * heard[0].abs().max())


def _sigmoidal_share(seen: Examination) -> float:
    active = [layer.kind.lower() for layer in seen.survey.layers if layer.is_activation]
    squashing = [kind for kind in active if kind in SIGMOIDAL]
    return len(squashing) / len(active) if active else 0.0


def _vanishing(seen: Examination, flow: Flow) -> Finding:
    kinds = sorted({x.kind for x in seen.survey.layers if x.is_activation})
    return Finding(
        cause="hidden_activation_wrong",
        severity=flow.severity,
        summary=f"the gradient vanishes on its way back through {' and '.join(kinds)}: the first "
        "layers hardly learn",
        layers=(flow.first, flow.last),
        evidence=(flow.evidence,),
        remedy="use relu or gelu inside the network, with residual paths or norm layers when deep",
        source="Hochreiter 1991; Glorot & Bengio 2010: a sigmoid's slope is at most 0.25",
    )
