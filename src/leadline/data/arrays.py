"""Arrays in memory, numpy's or torch's, checked before they are believed.

Pictures come as `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]`, as bytes or as numbers. Channels
are looked for where 1, 3 or 4 entries are, first after N, then last; a note says which was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leadline.core.config import config_error
from leadline.core.errors import DataError
from leadline.data.assemble import assemble
from leadline.data.examples import ArrayExamples, Dataset
from leadline.data.options import fraction_problems

USUAL_CHANNELS = (1, 3, 4)
Array = NDArray[Any] | Tensor


def from_arrays(
    inputs: Array,
    targets: Array | Sequence[Any],
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A Dataset from pictures and their class numbers 0 to K-1.

    Raises `DataError` for lengths that differ, empty arrays, NaN or infinite inputs, and labels
    that are negative, not whole, out of range, or leave a class out (unless `class_names` has it).

    >>> data = from_arrays(np.zeros((30, 8, 8), dtype=np.uint8), [0, 1, 2] * 10)
    >>> data.shape, data.num_classes, len(data.train), len(data.val), len(data.test)
    ((1, 8, 8), 3, 21, 3, 6)
    """
    problems = [problem for problem in fraction_problems(val_fraction, test_fraction) if problem]
    if problems:
        raise config_error("split", problems)
    pixels, labels = _tensor(inputs, "inputs"), _tensor(targets, "targets")
    if labels.dim() != 1:
        raise DataError(
            expected="targets [N], one class number for each picture",
            received=f"targets of shape {list(labels.shape)}",
            remedy="for one-hot rows pass targets.argmax(1)",
        )
    if len(pixels) != len(labels) or not len(pixels):
        raise DataError(
            expected="as many targets as inputs, and at least one",
            received=f"{len(pixels)} inputs and {len(labels)} targets",
            remedy="check how the two arrays were made",
        )
    images, layout = _images(pixels)
    whole = _targets(labels)
    names = _class_names(whole, class_names)
    channels, height, width = images.shape[1:]
    found = (
        f"found {len(images):,} pictures {height}x{width} with {channels} "
        f"channel{'s' if channels > 1 else ''} in {len(names)} classes, read as {layout}"
    )
    return assemble(
        name,
        ArrayExamples(images, whole),
        class_names=names,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        notes=(found,),
    )


def _tensor(values: Array | Sequence[Any], what: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise DataError(
            expected=f"numbers as {what}",
            received=f"an array of {array.dtype}",
            remedy="turn words into class numbers with np.unique(words, return_inverse=True)",
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)  # torch can hold wider unsigned numbers, not compare them
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _images(pixels: Tensor) -> tuple[Tensor, str]:
    if pixels.dim() not in (3, 4) or 0 in pixels.shape:
        raise DataError(
            expected="inputs [N, H, W], [N, H, W, C] or [N, C, H, W] with at least one pixel",
            received=f"inputs of shape {list(pixels.shape)}",
            remedy="reshape them; flat rows of pixels need .reshape(N, H, W)",
        )
    if pixels.dim() == 3:
        return _numbers(pixels)[:, None], "[N, H, W]"
    first, last = pixels.shape[1], pixels.shape[3]
    channels_first = first in USUAL_CHANNELS or (last not in USUAL_CHANNELS and first <= last)
    if channels_first:
        return _numbers(pixels), "[N, C, H, W]"
    return _numbers(pixels).permute(0, 3, 1, 2).contiguous(), "[N, H, W, C]"


def _numbers(pixels: Tensor) -> Tensor:
    """As uint8 where they are bytes, otherwise as float32, all finite."""
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.dtype == torch.bool:
        return pixels.to(torch.uint8) * 255
    if pixels.is_complex():
        raise DataError(
            expected="real numbers as inputs",
            received=f"{pixels.dtype}",
            remedy="pass their magnitude, or real and imaginary part as two channels",
        )
    if not pixels.is_floating_point():
        if int(pixels.min()) < 0 or int(pixels.max()) > 255:
            return pixels.to(torch.float32)
        return pixels.to(torch.uint8)
    numbers = pixels.to(torch.float32)
    finite = torch.isfinite(numbers).flatten(1)
    if not bool(finite.all()):
        first = int((~finite).any(1).nonzero()[0])
        nans = int(torch.isnan(numbers).sum())
        raise DataError(
            expected="finite numbers in the inputs",
            received=f"{nans} NaN and {int((~finite).sum()) - nans} infinite values in "
            f"{int((~finite).any(1).sum())} of {len(numbers)} inputs, the first at index {first}",
            remedy="drop or repair these inputs; one NaN makes every weight NaN",
        )
    return numbers


def _targets(labels: Tensor) -> Tensor:
    whole = labels.to(torch.int64)
    wrong = whole != labels if labels.is_floating_point() else whole < 0
    wrong |= whole < 0
    if labels.is_complex() or labels.dtype == torch.bool or not bool(wrong.any()):
        return whole
    first = int(wrong.nonzero()[0])
    raise DataError(
        expected="class numbers that are whole and 0 or more",
        received=f"{labels[first].item()} at index {first} ({int(wrong.sum())} such targets)",
        remedy="number the classes 0, 1, 2, ...; for a regression use another task",
    )


def _class_names(targets: Tensor, names: Sequence[str] | None) -> tuple[str, ...]:
    highest = int(targets.max())
    if names is not None:
        if highest >= len(names):
            first = int((targets >= len(names)).nonzero()[0])
            raise DataError(
                expected=f"class numbers from 0 to {len(names) - 1}, one for each class name",
                received=f"{int(targets[first])} at index {first}",
                remedy="name every class, or correct the targets",
            )
        return tuple(names)
    present = len(torch.unique(targets))
    if present != highest + 1:
        raise DataError(
            expected="class numbers 0 to K-1 without gaps",
            received=f"{present} different ones between {int(targets.min())} and {highest}",
            remedy="number them anew (np.unique(targets, return_inverse=True)[1]), or pass "
            "class_names with every class",
        )
    return tuple(str(label) for label in range(highest + 1))
