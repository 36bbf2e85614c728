"""The norm of the whole gradient, and its clipping, without waiting for the device.

    g <- g min(1, max_norm / (|g| + 1e-6)),  |g| = square root of the sum of squares of all entries

One factor for all parameters keeps the gradient's direction (Pascanu et al. 2013,
arXiv:1211.5063). The norm is returned as a tensor: reading its value is what would wait, and that
is left to whoever wants the number.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def gradient_norm(parameters: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The Euclidean norm over all gradients of `parameters`; those without one count as zero.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> gradient_norm([weight])
    tensor(5.)
    """
    return get_total_norm([_values(p.grad) for p in parameters if p.grad is not None])


def _values(gradient: Tensor) -> Tensor:
    """The entries of a sparse gradient, as embeddings have it: each row once, added up."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def clip_gradient(parameters: Iterable[Tensor], *, max_norm: float) -> Float[Tensor, ""]:
    """Scale all gradients together so that their norm is at most `max_norm`.

    Returns the norm before clipping, on the device. `max_norm` must be above 0. A norm that is
    not finite is returned as it is and spoils the gradient: look at it before stepping.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_gradient([weight], max_norm=1.0), weight.grad
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    with_gradient = [p for p in parameters if p.grad is not None]
    norm = gradient_norm(with_gradient)
    clip_grads_with_norm_(with_gradient, max_norm, norm)
    return norm
