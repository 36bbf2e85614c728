"""Contents: whether what a data set holds in memory has changed since it was last looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset

from leadline.doctor.recording.examples import row_numbers

ROWS = 2**16
"""Examples of each array that are looked at, evenly spread; of all, their order does not count."""

NUMBERS = 2**20
"""Numbers of each array that are looked at, at most."""


def digest(dataset: Any) -> Mapping[str, int]:
    """A number for each array that a data set holds, equal for equal contents.

    >>> from torch.utils.data import TensorDataset
    >>> values = torch.ones(4, 2)
    >>> before = digest(TensorDataset(values))
    >>> values.mul_(2)[0, 0].item(), digest(TensorDataset(values)) == before
    (2.0, False)
    """
    return {name: _number(tensor) for name, tensor in arrays(dataset)}


def arrays(dataset: Any) -> Iterator[tuple[str, Tensor]]:
    """The arrays among a data set's attributes, by name, not copied.

    Of floating numbers and bytes all, of whole numbers those with a row for every example: others
    may count or look up.
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    examples = length_of(dataset)
    for name, value in (getattr(dataset, "__dict__", None) or {}).items():
        entries = value if isinstance(value, tuple | list) and len(value) <= 8 else (value,)
        for number, entry in enumerate(entries):
            tensor = _tensor(entry)
            if tensor is not None and (_measures(tensor) or len(tensor) == examples):
                yield f"{name}.{number}" if entries is value else name, tensor


def length_of(value: Any) -> int | None:
    """The length of a loader or a data set, None where it has none or does not know it."""
    try:
        return len(value)
    except (TypeError, NotImplementedError):  # the latter by hand, in a class that streams
        return None


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray):
        value = _shared(value) if value.flags.writeable else None
    if not isinstance(value, Tensor) or value.is_sparse or value.is_complex():
        return None
    return value if value.dtype != torch.bool and value.ndim and value.numel() else None


def _shared(array: NDArray[Any]) -> Tensor | None:
    """The same memory as a tensor, None where torch cannot reckon with it."""
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        return None
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):  # text, other byte orders, arrays that run backwards
        return None


def _measures(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.dtype == torch.uint8


def _number(tensor: Tensor) -> int:
    some = tensor.detach().reshape(len(tensor), -1)
    if len(some) > ROWS:
        some = some[_evenly(len(some), ROWS, some)]
    width = some.shape[1]
    columns = _evenly(width, max(1, min(width, NUMBERS // len(some))), some)
    return int(row_numbers(some[:, columns]).sum())


def _evenly(length: int, count: int, like: Tensor) -> Tensor:
    return torch.linspace(0, length - 1, count, device=like.device, dtype=torch.float64).long()
