"""Faults of preprocessing: inputs and targets that are far too large, too small or uneven.

Weights are initialised for inputs of mean 0 and variance 1 (LeCun et al. 1998, Efficient
BackProp). What counts is what enters the first dense layer or convolution: a network that scales
its inputs by itself, or whose first layer normalises, is not blamed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.errors import LeadlineError
from leadline.core.taps import Taps, tensors_in
from leadline.doctor.causes.numerics import ROUNDING
from leadline.doctor.examination import Examination
from leadline.doctor.finding import Evidence, Finding, Severity
from leadline.measure.layers import Layer, on_layer

LARGE = 10.0
"""Root mean square of an input from which on it is large: raw pixels have about 130."""

VERY_LARGE = 50.0
"""And from which on it is an error where nothing normalises behind it."""

SMALL = 0.02
"""Below it an input is small: pixels divided by 255 twice have 0.002."""

UNEVEN = 1e3
"""Ratio of the largest to the smallest feature's root mean square."""

SOURCE = "LeCun et al. 1998, Efficient BackProp, section 4.3"


OTHER_FUNCTION = 1e-3
"""Relative difference of the two modes beyond any rounding."""

FAR_TARGETS = 100.0
"""Root mean square of regression targets from which on a network first learns their scale."""


def signs(seen: Examination) -> Iterator[Finding]:
    """What the scale of the inputs and of the targets says, and the model's two modes."""
    yield from _inputs(seen)
    yield from _targets(seen)
    yield from _modes(seen)


def _inputs(seen: Examination) -> Iterator[Finding]:
    """The first input whose scale is a fault: one finding is enough to look at them all."""
    if normalises_at_once(seen):
        return
    given = [t for t in seen.batch.inputs if t.numel() and not t.is_complex()]
    floating = [t.float() for t in given if t.is_floating_point()]
    entering = seen.survey.entering
    if not floating:
        if given and entering is not None and entering > LARGE and not embeds(seen):
            yield _large(seen, max(given, key=Tensor.numel).float(), entering)
        return
    for number, inputs in enumerate(floating):
        if not bool(torch.isfinite(inputs).all()):
            continue
        raw = _size(inputs)
        if number == 0:
            found = _judged(seen, inputs, raw if entering is None else entering)
        else:
            found = _judged(seen, inputs, raw)
            found = found if found is not None and _enters(seen, inputs) else None
        if found is not None:
            yield found
            return


def _judged(seen: Examination, inputs: Tensor, entering: float) -> Finding | None:
    """What is wrong with one input's scale; `entering` is what is left of it at the first layer."""
    given = _size(inputs)
    size = min(given, entering, key=lambda value: abs(math.log(value)) if value else math.inf)
    uneven = _unevenness(inputs) if math.isclose(given, entering, rel_tol=1e-3) else 1.0
    if size > LARGE:
        return _large(seen, inputs, size)
    if uneven > UNEVEN:
        return _uneven(uneven)
    if 0 < size * _filling(inputs) < SMALL:
        return _small(inputs, size * _filling(inputs))
    return None


def _size(inputs: Tensor) -> float:
    return float(inputs.square().mean().sqrt())


def embeds(seen: Examination) -> bool:
    """Whether whole numbers are looked up: then they are names, and have no scale."""
    modules = seen.model.modules()
    return any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in modules) or any(
        "embedding" in layer.kind.lower() for layer in seen.survey.layers
    )


def _enters(seen: Examination, inputs: Tensor) -> bool:
    """Whether a dense layer or convolution is given this input as it is, or reshaped.

    A time step that is turned into waves first, or a mask, may have any scale.
    Cost: 1 forward pass.
    """
    affine = {layer.name for layer in seen.survey.layers if layer.is_affine}
    size, found = _size(inputs), [False]

    def listen(layer: Layer, given: tuple[Any, ...], output: Tensor) -> None:
        if layer.name in affine:
            same = (t for t in tensors_in(given) if t.numel() == inputs.numel())
            close = (math.isclose(_size(t.float()), size, rel_tol=1e-3) for t in same)
            found[0] = found[0] or any(close)

    batch = seen.batch.with_inputs(*(tensor.clone() for tensor in seen.batch.inputs))
    with Taps(seen.model) as taps, torch.no_grad():
        on_layer(taps, listen)
        try:
            batch.forward(seen.model)
        except LeadlineError:
            return False
    return found[0]


def _filling(inputs: Tensor) -> float:
    """What zeros take off the root mean square, where they are more than half of the numbers.

    A one-hot row or a count of words is not small for being sparse.
    """
    filled = float(torch.count_nonzero(inputs)) / inputs.numel()
    return 1 / math.sqrt(filled) if 0 < filled < 0.5 else 1.0


def _small(inputs: Tensor, size: float) -> Finding:
    low, high = float(inputs.min()), float(inputs.max())
    pixels = low >= 0 and high <= 1.01 / 255
    return Finding(
        cause="input_double_normalized",
        severity="error" if pixels and high > 0.5 / 255 else "warning",
        summary="the inputs are tiny: scaled twice, perhaps divided by 255 once too often"
        if pixels
        else "the inputs are tiny: the first layer hardly hears them beside its bias",
        evidence=(
            Evidence(quantity="root mean square of the input", measured=size, expected="about 1"),
            Evidence(
                quantity="range of the input",
                measured=f"{low:.3g} to {high:.3g}",
                expected="about -1 to 1",
            ),
        ),
        remedy="scale once; then subtract the mean and divide by the standard deviation",
        source=SOURCE,
    )


def normalises_at_once(seen: Examination) -> bool:
    """Whether a norm is the first layer, or comes right behind the first linear one."""
    kinds = [layer.kind.lower() for layer in seen.survey.layers[:3]]
    for kind in kinds:
        if "norm" in kind:
            return True
        if not any(word in kind for word in ("conv", "linear", "dropout", "flatten", "cat")):
            return False
    return False


def _unevenness(inputs: Tensor) -> float:
    """The largest over the smallest feature's spread; 1 for what is not a table of features."""
    if inputs.ndim != 2 or len(inputs) < 8 or inputs.shape[1] > 1000:
        return 1.0
    sizes = inputs.square().mean(dim=0).sqrt()
    sizes = sizes[sizes > 0]
    return float(sizes.max() / sizes.min()) if len(sizes) > 1 else 1.0


def _large(seen: Examination, inputs: Tensor, size: float) -> Finding:
    mean, std = float(inputs.mean()), float(inputs.std()) if inputs.numel() > 1 else math.nan
    severity: Severity = "error" if size > VERY_LARGE else "warning"
    return Finding(
        cause="input_not_normalized",
        severity=severity,
        summary="the inputs are far larger than weights are initialised for, so that the first "
        "steps throw the network far off",
        evidence=(
            Evidence(quantity="root mean square of the input", measured=size, expected="about 1"),
            Evidence(quantity="mean of the input", measured=mean, expected="about 0"),
            Evidence(quantity="standard deviation of the input", measured=std, expected="about 1"),
            Evidence(
                quantity="loss at the start", measured=seen.survey.loss, expected=_start(seen)
            ),
        ),
        layers=tuple(layer.name for layer in seen.survey.layers[:1]),
        remedy="subtract the training set's mean and divide by its standard deviation; pixels "
        "from 0 to 255: divide by 255 first",
        source=SOURCE,
    )


def _start(seen: Examination) -> str:
    start = seen.nature.at_start if seen.nature else None
    return "small" if start is None else f"about {start:.3g}"


def _uneven(ratio: float) -> Finding:
    return Finding(
        cause="input_not_normalized",
        severity="warning",
        summary="the features differ in scale by powers of ten: the largest drowns the others",
        evidence=(
            Evidence(
                quantity="largest over smallest feature",
                measured=ratio,
                expected=f"below {UNEVEN:g}",
            ),
        ),
        remedy="standardise each feature by its own mean and standard deviation",
        source=SOURCE,
    )


def _targets(seen: Examination) -> Iterator[Finding]:
    nature, targets = seen.nature, seen.targets
    if nature is None or nature.kind not in ("squared", "absolute") or targets is None:
        return
    size = float(targets.float().square().mean().sqrt())
    outputs = float(seen.survey.outputs.float().square().mean().sqrt())
    if not size > FAR_TARGETS or outputs > size / LARGE:
        return
    yield Finding(
        cause="target_not_normalized",
        severity="warning",
        summary="the targets are far larger than what the network puts out: the training begins "
        "with learning their scale, and its gradients are as large as they are",
        evidence=(
            Evidence(quantity="root mean square of the targets", measured=size, expected="about 1"),
            Evidence(
                quantity="root mean square of the outputs", measured=outputs, expected="the same"
            ),
        ),
        remedy="subtract the mean of the training targets and divide by their standard deviation; "
        "turn predictions back at the end",
        source=SOURCE,
    )


def _modes(seen: Examination) -> Iterator[Finding]:
    """A model that neither drops nor normalises by the batch, and yet minds the mode."""
    found = seen.determinism
    if found is None or found.modes is None or not found.modes > OTHER_FUNCTION:
        return
    if found.repeated > ROUNDING or found.redrawn > ROUNDING:
        return
    yield Finding(
        cause="preprocess_train_test_mismatch",
        severity="warning",
        summary="the model computes something else in evaluation mode, and neither dropout nor "
        "batch norm explains it: what it learns is not what is used",
        evidence=(
            Evidence(
                quantity="relative difference of the outputs in the two modes",
                measured=found.modes,
                expected="0",
            ),
        ),
        remedy="look for self.training in the model: scaling and normalising of inputs belong into "
        "both modes alike",
    )
