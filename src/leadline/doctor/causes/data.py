"""Faults of the data: values that are no numbers, labels that do not fit, classes in order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from leadline.doctor.examination import Examination
from leadline.doctor.finding import Evidence, Finding, counted

FEW = 16
"""Examples below which a batch of one class says nothing."""


def signs(seen: Examination) -> Iterator[Finding]:
    """What one batch says about the data."""
    yield from _not_finite(seen)
    yield from _labels(seen)
    yield from _one_class(seen)
    yield from _written(seen)


def _not_finite(seen: Examination) -> Iterator[Finding]:
    for index, tensor in enumerate(seen.batch.inputs):
        bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if bad:
            yield Finding(
                cause="input_not_finite",
                severity="error",
                summary="the input holds "
                + counted(bad, "number that is", "numbers that are")
                + " NaN or infinite",
                evidence=(
                    Evidence(
                        quantity=f"NaN or infinite numbers in input {index}",
                        measured=float(bad),
                        expected="none",
                    ),
                ),
                remedy="find where the data get them: a division by zero, an empty field, a log "
                "of 0; fill or drop those examples before the loop",
            )


def _labels(seen: Examination) -> Iterator[Finding]:
    classes, numbers = seen.nature and seen.nature.classes, seen.class_numbers
    if not classes or numbers is None or not len(numbers) or not seen.nature:
        return
    if not seen.nature.over_classes:
        return
    yield from labels_from_one(seen, numbers, classes)


def labels_from_one(seen: Examination, numbers: Tensor, classes: int) -> Iterator[Finding]:
    """The finding that class 0 never comes and every other does, in class numbers [N] of any draw.

    Fewer than four examples for each class say nothing.
    """
    if len(numbers) < 4 * classes or classes < 3 or int(numbers.max()) >= classes:
        return
    if seen.survey.outputs.ndim > 2 or _same_vocabulary(seen, classes):
        return  # tokens, of which the first is often kept for padding
    present = torch.bincount(numbers.clamp_min(0), minlength=classes)
    if present[0] == 0 and bool((present[1:] > 0).all()):
        yield Finding(
            cause="labels_shifted",
            severity="warning",
            summary=f"class 0 never comes, all the other {classes - 1} do: labels from 1 on, "
            "with an output too many, are the usual reason",
            evidence=(
                Evidence(quantity="examples of class 0", measured=0.0, expected="some"),
                Evidence(
                    quantity="outputs",
                    measured=float(classes),
                    expected=f"{classes - 1}, one per class that comes",
                ),
            ),
            remedy="subtract 1 from the labels and drop one output",
            source="torch.nn.CrossEntropyLoss: class numbers are from 0 to C - 1",
        )


def _same_vocabulary(seen: Examination, classes: int) -> bool:
    """Whether the inputs are token numbers out of as many as there are classes."""
    whole = any(not t.is_floating_point() and not t.is_complex() for t in seen.batch.inputs)
    tables = (m for m in seen.model.modules() if isinstance(m, nn.Embedding))
    return whole and any(table.num_embeddings == classes for table in tables)


def _one_class(seen: Examination) -> Iterator[Finding]:
    nature, numbers = seen.nature, seen.class_numbers
    if nature is None or seen.survey.outputs.ndim > 2:
        return
    classes = nature.classes
    binary = nature.kind in ("binary_logits", "binary_probabilities")
    if binary and seen.targets is not None:
        numbers = seen.targets.reshape(-1) if seen.survey.outputs[0].numel() == 1 else None
        classes = 2
    if numbers is None or not classes or classes < 2 or len(numbers) < FEW:
        return
    if len(torch.unique(numbers)) > 1:
        return
    only = int(numbers[0])
    yield Finding(
        cause="shuffle_missing",
        severity="note" if binary else "warning",
        summary=f"all {len(numbers)} examples of the batch are of class {only}: data in the order "
        "of their classes, not shuffled, or classes that hardly ever come"
        + " (usual for the discriminator of a GAN)"
        * binary,
        evidence=(
            Evidence(
                quantity="classes in the batch",
                measured=1.0,
                expected=f"several of {classes}",
            ),
        ),
        remedy="pass shuffle=True to the DataLoader, or shuffle the examples once",
    )


def _written(seen: Examination) -> Iterator[Finding]:
    if not seen.inputs_written:
        return
    yield Finding(
        cause="data_modified_in_place",
        severity="warning",
        summary="the model writes into its input: data that stay in memory change with every pass",
        evidence=(
            Evidence(
                quantity="tensors of the batch that the model wrote into",
                measured=float(seen.inputs_written),
                expected="0",
            ),
        ),
        remedy="write x = x * s instead of x *= s, and no inplace=True on what comes first",
    )
