"""Faults of the loss: shapes that broadcast, sums for means, an axis that is not the classes'."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from leadline.core.errors import LeadlineError, MeasurementError
from leadline.core.seeds import preserved_random_state
from leadline.core.taps import plain_name
from leadline.doctor.examination import Examination
from leadline.doctor.finding import Evidence, Finding
from leadline.measure.batch import Batch


def signs(seen: Examination) -> Iterator[Finding]:
    """What the loss function's answers say."""
    yield from _broadcast(seen)
    yield from _sums(seen)
    yield from _wrong_axis(seen)
    yield from _normalised_over_examples(seen)
    yield from _padding(seen)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _broadcast(seen: Examination) -> Iterator[Finding]:
    matched, targets, outputs = seen.matched_loss, seen.targets, seen.survey.outputs
    if targets is None:
        return
    apart = matched is not None and abs(matched - seen.survey.loss) > 1e-5 * max(
        abs(matched), 1e-12
    )
    if matched is None or not math.isfinite(matched):
        apart = seen.nature is not None and seen.nature.broadcasts
    if not apart:
        return
    equal = outputs.numel() == targets.numel()
    wide = tuple(torch.broadcast_shapes(outputs.shape, targets.shape))
    consequence = "each output is compared with every target, and the network learns their mean"
    if not equal:
        consequence = "one number is compared with each of a row"
    expected = (
        "one target per output" if matched is None else f"{matched:.4g}, that with equal shapes"
    )
    yield Finding(
        cause="target_broadcast_shape",
        severity="error" if equal else "warning",
        summary=f"outputs {_shape(outputs)} and targets {_shape(targets)} broadcast to {wide}: "
        + consequence,
        evidence=(
            Evidence(
                quantity="loss with the shapes as they are",
                measured=seen.survey.loss,
                expected=expected,
            ),
        ),
        remedy="give the targets the outputs' shape: targets.view_as(outputs), or "
        "outputs.squeeze(-1)"
        if equal
        else "give the model as many outputs as there are targets for an example, or write the "
        "repetition down: targets.expand_as(outputs)",
    )


def _sums(seen: Examination) -> Iterator[Finding]:
    if seen.nature is None or not seen.nature.sums or seen.batch.examples < 2:
        return
    yield Finding(
        cause="loss_reduction_wrong",
        severity="warning",
        summary="the loss adds the examples up instead of averaging them: the step grows with the "
        "batch, and the learning rate means another thing for each batch size",
        evidence=(
            Evidence(
                quantity="loss of the batch twice over that of the batch",
                measured=2.0,
                expected="1",
            ),
        ),
        remedy="use reduction='mean', or divide by the number of examples",
    )


def _wrong_axis(seen: Examination) -> Iterator[Finding]:
    """Probabilities that add up to 1 over the examples: a softmax along the batch."""
    outputs = seen.survey.outputs.float()
    if outputs.ndim < 2 or len(outputs) < 2 or not bool((outputs >= 0).all()):
        return
    over_batch, over_classes = outputs.sum(dim=0), outputs.sum(dim=1)
    along = bool(((over_batch - 1).abs() < 1e-3).all())
    if along and not bool(((over_classes - 1).abs() < 1e-3).all()):
        yield Finding(
            cause="loss_axis_wrong",
            severity="error",
            summary="the outputs add up to 1 over the examples of the batch, not over the classes: "
            "a softmax along the wrong axis",
            evidence=(
                Evidence(
                    quantity="sum over the batch",
                    measured=float(over_batch.mean()),
                    expected="any number",
                ),
                Evidence(
                    quantity="sum over the classes",
                    measured=float(over_classes.mean()),
                    expected="1 for probabilities",
                ),
            ),
            remedy="drop the softmax when the loss takes logits, else softmax(dim=1)",
        )


def _normalised_over_examples(seen: Examination) -> Iterator[Finding]:
    """A softmax along the batch inside the loss: it is blind to what it should weigh.

    A number added to one class, for all examples, changes every loss over classes but this one.
    """
    outputs, numbers = seen.survey.outputs.detach().float(), seen.class_numbers
    whole = seen.loss is not None and seen.targets is not None and numbers is not None
    if not whole or outputs.ndim != 2 or min(outputs.shape) < 2:
        return
    examples, classes = outputs.shape
    to_classes = torch.linspace(-1, 1, classes, device=outputs.device)[None, :]
    to_examples = torch.linspace(-1, 1, examples, device=outputs.device)[:, None]
    try:
        plain = _value(seen, outputs)
        by_class = abs(_value(seen, outputs + to_classes) - plain)
        by_example = abs(_value(seen, outputs + to_examples) - plain)
    except (LeadlineError, RuntimeError, TypeError, ValueError, IndexError):
        return  # a loss that takes no other outputs is told elsewhere
    size = max(1.0, abs(plain))
    if by_class > 1e-5 * size or not by_example > 1e-3 * size:
        return
    yield Finding(
        cause="loss_axis_wrong",
        severity="error",
        summary="the loss does not change when a class is made likelier for every example: its "
        "softmax runs over the examples of the batch, not over the classes",
        evidence=(
            Evidence(
                quantity="change of the loss with -1 to 1 added to the classes",
                measured=by_class,
                expected="a good part of the loss",
            ),
            Evidence(
                quantity="change of the loss with -1 to 1 added to the examples",
                measured=by_example,
                expected="0 under a softmax over the classes",
            ),
        ),
        remedy="use CrossEntropyLoss on the logits, or log_softmax(outputs, dim=1)",
    )


def _value(seen: Examination, outputs: Tensor) -> float:
    with preserved_random_state(), torch.no_grad():
        return float(seen.batch.loss_of(outputs, seen.loss))


PADDED = 0.3
"""Share of padding among the targets from which on a loss that counts it is misled."""


def _padding(seen: Examination) -> Iterator[Finding]:
    """Targets that are padding, of the same vocabulary as the inputs, and that the loss counts."""
    nature, numbers = seen.nature, seen.targets
    if nature is None or not nature.over_classes or numbers is None or numbers.is_floating_point():
        return
    if all(tensor.is_floating_point() for tensor in seen.batch.inputs) or not numbers.numel():
        return
    for path, table in seen.model.named_modules():
        if not isinstance(table, nn.Embedding) or table.padding_idx is None:
            continue
        share = float((numbers == table.padding_idx).float().mean())
        if table.num_embeddings != nature.classes or share <= PADDED:
            continue
        if not _counts(seen, nature.class_axis or -1, numbers == table.padding_idx):
            continue
        yield Finding(
            cause="padding_in_loss",
            severity="warning",
            summary=f"{share:.0%} of the targets are padding, and the loss counts them: the "
            "network is paid for predicting padding",
            layers=(plain_name(path),),
            evidence=(
                Evidence(
                    quantity=f"share of the targets that are {table.padding_idx}, the padding",
                    measured=share,
                    expected=f"below {PADDED:g}, or left out of the loss",
                ),
            ),
            remedy=f"pass ignore_index={table.padding_idx} to the loss",
        )
        return


def _counts(seen: Examination, axis: int, padding: Tensor) -> bool:
    """Whether the loss changes with the outputs where the targets are padding."""
    outputs, generator = seen.survey.outputs, torch.Generator().manual_seed(0)
    rows = outputs.movedim(axis, -1)
    if seen.loss is None or rows[..., 0].numel() != padding.numel():
        return False
    noise = torch.randn(rows.shape, generator=generator).to(rows)
    changed = rows + noise * padding.reshape(rows.shape[:-1])[..., None]
    try:
        with preserved_random_state(), torch.no_grad():
            now = float(seen.loss(outputs, seen.targets))
            then = float(seen.loss(changed.movedim(-1, axis), seen.targets))
    except Exception:
        return False  # a loss that takes more than the tensor of the outputs cannot be asked
    return not math.isclose(now, then, rel_tol=1e-6)


OUT_OF_RANGE = re.compile(r"out of (bounds|range)|num_classes", re.IGNORECASE)
"""How torch says that a class number has no output: CrossEntropyLoss, gather, one_hot."""

OTHER_SHAPE = re.compile(r"\b(sizes?|shapes?|dimensions?|[0-9]D)\b|broadcast", re.IGNORECASE)
"""And that outputs and targets cannot be held against each other."""

IGNORED = -100
"""The class number that torch's losses leave out, unless they are told another one."""


def explain_failed_loss(outputs: Tensor, batch: Batch, reason: str) -> Finding | None:
    """What is wrong when the loss function cannot even be computed, where that can be said."""
    targets = batch.targets
    if not isinstance(targets, Tensor) or outputs.ndim < 1:
        return None
    if any(targets is tensor for tensor in batch.inputs) and targets.shape != outputs.shape:
        raise MeasurementError(
            expected="a batch with targets",
            received=f"one tensor {_shape(targets)}, held against outputs {_shape(outputs)}: the "
            "batch has no targets",
            remedy="pass (inputs, targets)",
        )
    if not targets.is_floating_point() and OUT_OF_RANGE.search(reason):
        return _out_of_range(outputs, targets, reason)
    if outputs.shape != targets.shape and OTHER_SHAPE.search(reason):
        return _other_shape(outputs, targets, reason)
    low, high = float(outputs.min()), float(outputs.max())
    if "between 0 and 1" in reason and (low < 0 or high > 1):
        return Finding(
            cause="output_activation_wrong",
            severity="error",
            summary="the loss takes probabilities, and the outputs are not between 0 and 1",
            evidence=(
                Evidence(
                    quantity="range of the outputs",
                    measured=f"{low:.3g} to {high:.3g}",
                    expected="0 to 1",
                ),
            ),
            remedy="use binary_cross_entropy_with_logits, or end the model with a sigmoid",
        )
    return None


def class_axis(outputs: Tensor, targets: Tensor) -> int:
    """The axis of the outputs that the classes are on, told by the targets' shape."""
    if outputs.ndim < 2:
        return 0
    behind = outputs.shape[:1] + outputs.shape[2:]  # [B, C, H, W] against [B, H, W]
    return -1 if targets.shape == outputs.shape[:-1] and targets.shape != behind else 1


def _other_shape(outputs: Tensor, targets: Tensor, reason: str) -> Finding | None:
    classes_behind = not targets.is_floating_point() and targets.numel() != outputs.numel()
    if classes_behind and not (targets.ndim >= 2 and targets.shape[1] == 1):
        return None  # class numbers of some other shape: what the loss said is the best there is
    wanted = "that of the outputs, " + _shape(outputs)
    remedy = "give the targets the outputs' shape: targets.view_as(outputs)"
    if classes_behind:
        wanted, remedy = _shape(targets.squeeze(1)), "drop the axis of one: targets.squeeze(1)"
    return Finding(
        cause="target_broadcast_shape",
        severity="error",
        summary="the loss cannot compare outputs and targets of these shapes",
        evidence=(
            Evidence(quantity="shape of the targets", measured=_shape(targets), expected=wanted),
            Evidence(quantity="what the loss said", measured=reason, expected="a number"),
        ),
        remedy=remedy,
    )


def _out_of_range(outputs: Tensor, targets: Tensor, reason: str) -> Finding | None:
    classes = outputs.shape[class_axis(outputs, targets)]
    wanted = targets[targets != IGNORED].reshape(-1)
    if not len(wanted) or 0 <= int(wanted.min()) <= int(wanted.max()) < classes:
        return None
    low, high = int(wanted.min()), int(wanted.max())
    others = wanted[wanted != 255]  # what many data sets write on pixels that do not count
    marked = high == 255 and bool((others < classes).all())
    shifted = (low >= 1 and high == classes) or (low == -1 and high < classes)
    if shifted:
        remedy = "subtract 1 from the labels" if low > 0 else "add 1 to the labels"
    elif marked:
        remedy = "pass ignore_index=255 to the loss, if 255 marks what does not count"
    elif high >= classes:
        remedy = f"give the model {high + 1} outputs"
    else:
        remedy = "number the classes from 0 on"
    return Finding(
        cause="labels_shifted" if shifted else "output_units_wrong",
        severity="error",
        summary=f"the labels go from {low} to {high}, and the model has {_outputs(classes)}, "
        f"numbered 0 to {classes - 1}" + (f": they begin at {low} instead of 0" if shifted else ""),
        evidence=(
            Evidence(
                quantity="largest label", measured=float(high), expected=f"at most {classes - 1}"
            ),
            Evidence(quantity="smallest label", measured=float(low), expected="0"),
            Evidence(quantity="what the loss said", measured=reason, expected="a number"),
        ),
        remedy=remedy,
    )


def _outputs(count: int) -> str:
    return f"{count} output{'s' * (count != 1)}"
