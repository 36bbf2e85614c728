"""Gradient alignment: the cosine between the gradients of successive batches or steps.

    cos = <g_t, g_t+1> / (|g_t| |g_t+1|)

At fixed weights, two batches whose gradients point the same way agree on where to go; a cosine near
0 says that each is mostly noise, or that the weights are near a minimum. Between the steps of a
training, a negative one says that the step goes too far and comes back: the edge of stability
(Xing et al. 2018, 'A Walk with SGD', arXiv:1802.08770; Cohen et al. 2021, arXiv:2103.00065).

The surprising choice: the cosine of the whole gradient is not the mean of those of the parameters.
Both are given, since one large layer can hide what the others do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.taps import Taps, plain_name
from leadline.measure.batch import Loss, read_batch, trainable
from leadline.measure.gradients.gradients import gradients_of


@dataclass(frozen=True, kw_only=True)
class GradientAlignment:
    """`successive` is the cosine of the whole gradient from each batch to the next.

    `layers` has, per parameter, the `mean` and the `lowest` of its own cosines.
    """

    successive: tuple[float, ...]
    layers: Profile


def gradient_alignment(
    model: nn.Module, batches: Iterable[Any], *, loss: Loss | None = None
) -> GradientAlignment:
    """The cosines between the gradients of successive `batches` at the model's present weights.

    A cosine is NaN where a gradient is 0 or missing. `loss` is a function of (outputs, targets),
    the mean over the batch; None is the loss that the model itself returns. Raises MeasurementError
    for fewer than two batches, a single batch or bare tensors in their place, a model that fails,
    has nothing to learn or a loss without gradient.

    Cost: 1 forward-backward pass per batch, and two gradients of memory.

    How to read it: cosines near 1 mean that a smaller batch would do, near 0 that the noise rules
    (see `gradient_noise_scale`), and below 0 throughout that the batches want different things.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> batches = [(torch.tensor([[1.0, 0.0]]),), (torch.tensor([[1.0, 1.0]]),)]
    >>> measured = gradient_alignment(model, batches, loss=lambda outputs, targets: outputs.sum())
    >>> [round(cosine, 4) for cosine in measured.successive]  # of an angle of 45 degrees
    [0.7071]
    """
    wanted = trainable(model)
    parameters = list(wanted.values())
    before: list[Tensor | None] | None = None
    rows: list[Tensor] = []
    _refuse_one_batch(batches)
    with Taps(model), torch.enable_grad():
        for batch in batches:
            _refuse_one_batch(batch if isinstance(batch, Tensor) else None)
            given = read_batch(batch, model=model)
            now = gradients_of(given.loss(model, loss), parameters)
            if before is not None:
                rows.append(gradient_cosines(before, now))
            before = now
    if not rows:
        raise MeasurementError(
            expected="two batches or more",
            received="fewer",
            remedy="pass a list of batches, or a loader",
        )
    table = torch.stack(rows).double().cpu()  # [batches - 1, 1 + P]
    return GradientAlignment(
        successive=tuple(table[:, 0].tolist()),
        layers=Profile(
            name="gradient alignment",
            unit="1",
            reading="near 1 the batches agree, near 0 noise rules, below 0 they disagree",
            layers=tuple(plain_name(name) for name in wanted),
            values={
                "mean": tuple(table[:, 1:].mean(dim=0).tolist()),
                "lowest": tuple(table[:, 1:].amin(dim=0).tolist()),
            },
        ),
    )


def _refuse_one_batch(given: Any) -> None:
    """A bare tensor is a part of one batch: of (x, y), x would be held against y."""
    if isinstance(given, Tensor | Mapping):
        kind = "tensor" if isinstance(given, Tensor) else "mapping"
        raise MeasurementError(
            expected="several batches: a list of (inputs, targets), or a loader",
            received=f"a bare {kind}, which is a batch or a part of one",
            remedy="pass [batch, other_batch]; a batch that is one tensor as (tensor,)",
        )


def gradient_cosines(
    before: Sequence[Tensor | None], now: Sequence[Tensor | None]
) -> Float[Tensor, "..."]:
    """The cosine of the whole gradient, then that of each parameter, on the first one's device.

    For a training's own loop: keep the gradients of one step and hold them against the next. A
    gradient that is None counts as 0 in the whole and has the cosine NaN itself. Nothing waits for
    the device.

    >>> cosines = gradient_cosines([torch.tensor([3.0, 4.0])], [torch.tensor([4.0, 3.0])])
    >>> [round(cosine, 4) for cosine in cosines.tolist()]
    [0.96, 0.96]
    """
    present = [tensor for tensor in (*before, *now) if tensor is not None]
    if not present:
        return torch.full((len(before) + 1,), math.nan)
    absent = torch.zeros((), device=present[0].device)
    cosines, sizes = [], []
    for pair in zip(before, now, strict=True):
        lengths = [absent if tensor is None else _length(tensor) for tensor in pair]
        sizes.append(torch.stack([length.to(absent.device, torch.float32) for length in lengths]))
        first, second = pair
        if first is None or second is None:
            cosines.append(absent + math.nan)
            continue
        cosine = ((_dense(first) / lengths[0]) * (_dense(second) / lengths[1])).sum()
        cosines.append(cosine.to(absent.device, torch.float32))
    each, table = torch.stack(cosines), torch.stack(sizes)  # [P], [P, 2]
    table = table / table.amax(dim=0)  # so that no square underflows
    shares = table / torch.linalg.vector_norm(table, dim=0)
    return torch.cat([(each.nan_to_num() * shares.prod(dim=1)).sum()[None], each])


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _length(gradient: Tensor) -> Float[Tensor, ""]:
    """The norm, safe from underflow."""
    values = _dense(gradient)
    if values.numel() == 0:
        return values.new_zeros(())
    largest = values.abs().amax().clamp_min(torch.finfo(values.dtype).tiny)
    norm: Tensor = largest * torch.linalg.vector_norm(values / largest)
    return norm
