"""Magnitudes: norms and spreads of tensors whose squares would under- or overflow.

A number below 1e-23 has the square 0 in float32, so that a gradient that has vanished to 1e-30
would be taken for none. Divided by its largest magnitude first, a tensor keeps its norm.

The surprising choice: a tensor is first measured plainly, and read again only where the result lies
at the edge of what squares can hold. On a GPU it is scaled always, since to look would be to wait.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_SMALLEST, _LARGEST = 1e-14, 1e18  # between them, squares in float32 lose nothing


def norm_of(tensor: Tensor) -> Tensor:
    """The Euclidean norm in float32 at least, scaled where a square would under- or overflow.

    >>> round(norm_of(torch.tensor([3e-30, 4e-30])).item() * 1e30, 4)
    5.0
    """
    exact = None if tensor.dtype == torch.float64 else torch.float32
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=exact)
    if (tensor.is_cpu and _SMALLEST < float(norm) < _LARGEST) or not tensor.numel():
        return norm
    scale = _scale(tensor)
    scaled: Tensor = torch.linalg.vector_norm(tensor / scale, dtype=exact)
    return scaled * scale.to(norm)


def tensor_norms(tensors: Sequence[Tensor]) -> list[float]:
    """The Euclidean norm of each, sparse and complex ones too; a device is waited for once.

    >>> tiny, nothing = tensor_norms([torch.tensor([3e-30, 4e-30]), torch.zeros(0)])
    >>> round(tiny * 1e30, 4), nothing
    (5.0, 0.0)
    """
    if not tensors:
        return []
    norms = [norm_of(numbers_in(tensor)) for tensor in tensors]
    exact = max((norm.dtype for norm in norms), key=lambda dtype: dtype.itemsize)
    values: list[float] = torch.stack([n.to(norms[0].device, exact) for n in norms]).tolist()
    return values


def spread_of(output: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean, scaled where a square would under- or overflow.

    >>> std, mean = spread_of(torch.tensor([1e-25, 3e-25]))
    >>> round(std.item() * 1e25, 4), round(mean.item() * 1e25, 4)
    (1.0, 2.0)
    """
    variance, mean = torch.var_mean(output, correction=0)
    if output.is_cpu and _SMALLEST**2 < float(variance) < _LARGEST**2:
        return variance.sqrt(), mean
    scale = _scale(output)
    variance, mean = torch.var_mean(output / scale, correction=0)
    return variance.clamp(min=0).sqrt() * scale, mean * scale


def _scale(tensor: Tensor) -> Tensor:
    """The largest magnitude, or 1 where that is 0 or not finite."""
    largest: Tensor = torch.linalg.vector_norm(tensor, ord=math.inf)
    return torch.where((largest > 0) & torch.isfinite(largest), largest, torch.ones_like(largest))


def numbers_in(tensor: Tensor) -> Tensor:
    """A tensor's numbers, real and dense: what a sparse one holds, both parts of complex ones.

    >>> numbers_in(torch.tensor([0.0, 3.0, 0.0]).to_sparse())
    tensor([3.])
    """
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
