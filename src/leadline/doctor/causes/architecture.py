"""Faults of the architecture: outputs that do not fit, information from where none may come."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from leadline.core.taps import tensors_in
from leadline.doctor.examination import Examination
from leadline.doctor.finding import Evidence, Finding, counted

LEAK = 1e-6
"""Share of the own gradient from which on another example's is no rounding (float32: 1e-7)."""


def signs(seen: Examination) -> Iterator[Finding]:
    """What the outputs and their dependences say."""
    yield from _output_units(seen)
    yield from _other_examples(seen)
    yield from _later_positions(seen)
    yield from _unused(seen)


def _output_units(seen: Examination) -> Iterator[Finding]:
    nature = seen.nature
    if nature is not None and nature.kind == "cross_entropy" and nature.classes == 1:
        yield Finding(
            cause="output_units_wrong",
            severity="error",
            summary="a cross entropy over a single output is 0 whatever the network says: nothing "
            "can be learned",
            evidence=(Evidence(quantity="outputs", measured=1.0, expected="one for each class"),),
            remedy="give the model an output per class, or use binary_cross_entropy_with_logits",
        )
    outputs = seen.survey.outputs
    if outputs.ndim >= 2 and outputs.shape[-1] == 1 and bool((outputs == 1).all()):
        yield Finding(
            cause="output_activation_wrong",
            severity="error",
            summary="the only output is always 1: a softmax over one number",
            evidence=(
                Evidence(quantity="smallest output", measured=1.0, expected="different values"),
            ),
            remedy="return the logit, and use binary_cross_entropy_with_logits",
        )


def _other_examples(seen: Examination) -> Iterator[Finding]:
    found = seen.influence
    if found is None or not found.examples > LEAK or _normalises_over_batch(seen):
        return
    time_first = _takes_time_first(seen)
    if time_first and seen.survey.outputs.ndim >= 3:
        return  # [T, B, ...]: what looks like examples are positions
    entry = found.example_layers[-1:]
    yield Finding(
        cause="batch_leak",
        severity="error" if time_first else "warning",
        summary="the output of one example depends on the other examples of its batch, also in "
        "evaluation mode" + (", where a layer takes the first axis for time" if time_first else ""),
        layers=entry,
        evidence=(
            Evidence(
                quantity="gradient by another example over that by its own",
                measured=found.examples,
                expected="0",
            ),
        ),
        remedy="look behind that layer for a softmax, mean or norm along axis 0, a view or "
        "reshape that mixes the axes, or a recurrent or attention layer without batch_first=True "
        "(a batch that is one graph, or a layer made to compare examples, is meant so)",
    )


def _takes_time_first(seen: Examination) -> bool:
    """Whether a recurrent or attention layer of torch reads [T, B, ...], as they do by default."""
    return any(getattr(module, "batch_first", None) is False for module in seen.model.modules())


def _normalises_over_batch(seen: Examination) -> bool:
    """A batch norm without running statistics uses the batch in evaluation too, as it was told."""
    return any(
        getattr(module, "track_running_stats", None) is False
        and "BatchNorm" in type(module).__name__
        for module in seen.model.modules()
    )


def _later_positions(seen: Examination) -> Iterator[Finding]:
    found = seen.influence
    if found is None or not found.future > LEAK or not _predicts_next(seen):
        return
    yield Finding(
        cause="causal_mask_missing",
        severity="error",
        summary="the targets are the inputs' next tokens, and the output at a position depends on "
        "later ones: the model reads the answer",
        layers=found.future_layers[-1:],
        evidence=(
            Evidence(
                quantity="gradient by later positions over that by earlier ones",
                measured=found.future,
                expected="0",
            ),
        ),
        remedy="pass is_causal=True to scaled_dot_product_attention, or a mask above the diagonal; "
        "pad convolutions on the left only",
    )


def _predicts_next(seen: Examination) -> bool:
    """Whether the targets are the integer inputs, shifted by one, or left to the loss to shift.

    A loss that shifts them by itself does not depend on the output at the last position.
    """
    targets = seen.targets
    if targets is None or targets.is_floating_point():
        return False
    shifted_later = bool(seen.survey.positions) and not seen.survey.positions[-1]
    keywords = {k: v for k, v in seen.batch.kwargs.items() if k != "labels"}
    for tensor in tensors_in((seen.batch.args, keywords)):
        if tensor.is_floating_point() or tensor.ndim != 2 or tensor.shape[1] < 4:
            continue
        if targets.numel() != tensor.numel():
            continue
        wanted = targets.reshape(tensor.shape)
        pairs = [(tensor[:, 1:], wanted[:, :-1])] + [(tensor, wanted)] * shifted_later
        for shown, told in pairs:
            real = told >= 0
            if bool(real.any()) and bool((shown == told)[real].all()):
                return True
    return False


def _unused(seen: Examination) -> Iterator[Finding]:
    missing = [name for name, gradient in seen.survey.gradients.items() if gradient is None]
    unused = [name for name in missing if name not in seen.still_in_the_loss]
    if not unused or not seen.survey.connected or seen.still_in_the_loss:
        return
    sizes = {p.name: math.prod(p.shape) for p in seen.survey.parameters}
    total, every = sum(sizes[name] for name in unused), sum(sizes.values())
    yield Finding(
        cause="parameters_unused",
        severity="note",
        summary=counted(len(unused), "parameter has", "parameters have")
        + " no part in the loss and will not change",
        layers=tuple(unused),
        evidence=(
            Evidence(
                quantity="share of the model's numbers",
                measured=total / every if every else 0.0,
                expected="0, unless a part is kept for later",
            ),
        ),
        remedy="use them in forward, or remove them; DistributedDataParallel needs "
        "find_unused_parameters=True as it is",
    )


def smallest_batch(seen: Examination) -> int:
    """How many values a batch norm averages over, at least: examples times positions."""
    sizes = [
        torch.Size(layer.shape).numel() // max(layer.shape[1], 1)
        for layer in seen.survey.layers
        if "batchnorm" in layer.kind.lower() and len(layer.shape) >= 2
    ]
    return min(sizes, default=0)
