"""Gradient flow: how much of the loss's gradient arrives at each layer and at each parameter.

    layer l        g_l = dL/dx_l for its outputs x_l       norm |g_l|, ratio |g_l| / |g_last|
    parameter w    g_w = dL/dw                             norm |g_w|, ratio |g_w| / |w|

By the chain rule g_l is g_last times a product of one Jacobian per layer between them, so that it
changes by a factor per layer: 0.9 in each of 10 layers leaves 0.35 (Hochreiter 1991; Bengio et al.
1994; Glorot & Bengio 2010). A gradient that vanishes or explodes is a straight line on a log scale.

The surprising choice: every gradient is divided by its largest magnitude before it is squared, so
that one of 10^-30 is told from 0, which a square in float32 would not do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.taps import Taps, plain_name
from leadline.measure.backward_graph import gradients_through
from leadline.measure.batch import Loss, read_batch, trainable
from leadline.measure.layers import Layer, on_layer


def gradient_flow(model: nn.Module, batch: Any, *, loss: Loss | None = None) -> Profile:
    """The gradient of the loss with respect to each layer's outputs, in depth order.

    Columns: `norm`, Euclidean over the whole batch; `root_mean_square`, the same per number;
    `ratio`, the norm relative to that of the last layer that has one; `zeros`, the share of entries
    that are exactly 0. Layers are those of `signal_propagation`. A layer on which the loss does not
    depend has norm 0; one before every trainable parameter needs no gradient and has NaN. `loss` is
    a function of (outputs, targets), the mean over the batch; None is the loss that the model
    itself returns. The model stays in the mode it is in. Raises MeasurementError for a model that
    fails, has nothing to learn, or a loss that is not finite or without gradient.

    Cost: 1 forward-backward pass, and one reading of every gradient.

    How to read it: the ratio at the first layer is what depth does to the gradient. Between 0.1 and
    10 is healthy; 10^-3 and less means that the first layers hardly learn.

    >>> model = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(11)))
    >>> for layer in model:
    ...     _ = nn.init.constant_(layer.weight, 0.9)
    >>> profile = gradient_flow(
    ...     model, torch.ones(1, 1), loss=lambda outputs, targets: outputs.sum()
    ... )
    >>> round(profile.column("ratio")[0], 3)  # ten layers lie between the first and the last
    0.349
    """
    given = read_batch(batch, model=model)
    wanted = list(trainable(model).values())
    layers: list[str] = []
    differentiable: list[bool] = []
    rows: dict[int, Tensor] = {}

    with Taps(model) as taps, torch.enable_grad():

        def listen(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
            number = len(layers)
            layers.append(layer.name)
            differentiable.append(output.requires_grad)
            taps.hook(output, lambda gradient: rows.update({number: _statistics(gradient)}))

        on_layer(taps, listen)
        gradients_of(given.loss(model, loss), wanted)
    measured = dict(zip(rows, _read(list(rows.values())), strict=True))
    absent = [(0.0, 0.0, 1.0) if needed else (math.nan,) * 3 for needed in differentiable]
    table = [measured.get(number, absent[number]) for number in range(len(layers))]
    norms = [norm for norm, _, _ in table]
    last = next((norm for norm in reversed(norms) if norm > 0), math.nan)
    return Profile(
        name="gradient flow",
        unit="norm and root mean square: loss per unit of output; ratio and zeros: 1",
        reading="the ratio at the first layer is what depth does to the gradient: 0.1 to 10 is "
        "healthy, a slope on a log scale vanishes or explodes",
        layers=tuple(layers),
        values={
            "norm": tuple(norms),
            "root_mean_square": tuple(size for _, size, _ in table),
            "ratio": tuple(norm / last for norm in norms),
            "zeros": tuple(zeros for _, _, zeros in table),
        },
    )


def parameter_gradients(model: nn.Module, batch: Any, *, loss: Loss | None = None) -> Profile:
    """The gradient of the loss with respect to each trainable parameter, in declaration order.

    Columns: `norm` of the gradient; `root_mean_square`, the same per entry; `weight_norm`;
    `gradient_to_weight`, norm / weight_norm (infinite for a parameter at 0); `zeros`, the share of
    entries that are exactly 0; `reached`, 1 where the loss depends on the parameter and 0 where it
    does not, whose gradient columns are NaN. Frozen parameters are left out; of tied ones the first
    name counts. Arguments and errors are those of `gradient_flow`.

    Cost: 1 forward-backward pass, and one reading of every gradient and weight.

    How to read it: norms of like layers should be of like size at every depth, and `reached` 1
    everywhere; a 0 is a parameter that no training can move.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 0.5)
    >>> profile = parameter_gradients(
    ...     model, torch.tensor([[3.0, 4.0]]), loss=lambda outputs, targets: outputs.sum()
    ... )
    >>> [round(value, 4) for value in profile.column("norm")]
    [5.0]
    """
    given = read_batch(batch, model=model)
    wanted = trainable(model)
    with Taps(model), torch.enable_grad():
        gradients = gradients_of(given.loss(model, loss), list(wanted.values()))
    found = [gradient for gradient in gradients if gradient is not None]
    numbers = iter(_read([_statistics(gradient) for gradient in found]))
    weights = _read([_statistics(parameter.detach()) for parameter in wanted.values()])
    table = [(math.nan,) * 3 if gradient is None else next(numbers) for gradient in gradients]
    return Profile(
        name="gradients of the parameters",
        unit="norm and root mean square: loss per unit of weight; the others: 1",
        reading="like layers should have norms of like size at every depth; reached 0 is a "
        "parameter that the loss does not depend on",
        layers=tuple(plain_name(name) for name in wanted),
        values={
            "norm": tuple(norm for norm, _, _ in table),
            "root_mean_square": tuple(size for _, size, _ in table),
            "weight_norm": tuple(norm for norm, _, _ in weights),
            "gradient_to_weight": tuple(
                relative_size(norm, weight)
                for (norm, _, _), (weight, _, _) in zip(table, weights, strict=True)
            ),
            "zeros": tuple(zeros for _, _, zeros in table),
            "reached": tuple(float(gradient is not None) for gradient in gradients),
        },
    )


def gradients_of(loss: Float[Tensor, ""], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradient of `loss` by each parameter, None where there is none; no `.grad` is touched.

    Raises MeasurementError where the loss is NaN or infinite, or cut off from all of them.

    >>> weight = torch.ones(2, requires_grad=True)
    >>> gradients_of((3 * weight).sum(), [weight])
    [tensor([3., 3.])]
    """
    check_finite(loss)
    found = gradients_through(loss, list(parameters))
    if all(gradient is None for gradient in found):
        raise MeasurementError(
            expected="a loss that depends on at least one trainable parameter",
            received="a loss whose gradient reaches none of them",
            remedy="look for .detach(), .item(), no_grad() or argmax between weights and loss",
        )
    return found


def check_finite(loss: Float[Tensor, ""]) -> None:
    """Raise a MeasurementError for a loss that is NaN or infinite: nothing can be told of it.

    >>> check_finite(torch.tensor(1.0))
    """
    if not bool(torch.isfinite(loss.detach())):
        raise MeasurementError(
            expected="a finite loss",
            received=f"a loss of {float(loss.detach())}",
            remedy="find the layer where it begins: leadline.core.taps.first_nonfinite names it",
        )


def relative_size(part: float, whole: float) -> float:
    """part / whole as IEEE arithmetic has it: infinite or NaN where `whole` is 0.

    >>> relative_size(1.0, 0.0), relative_size(1.0, 4.0)
    (inf, 0.25)
    """
    if whole == 0:
        return math.inf if part > 0 else math.nan
    return part / whole


def _statistics(tensor: Tensor) -> Float[Tensor, "4"]:
    """Largest magnitude s, norm of tensor / s, count of zeros, count; on the device, unawaited."""
    values = tensor.detach()
    count = values.numel()
    if values.is_sparse:  # the gradient of an embedding, most of which is 0
        values = values.coalesce().values()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    if values.numel() == 0:
        return values.new_tensor([0.0, 0.0, count, max(1, count)])
    low, high = torch.aminmax(values)
    scale = torch.maximum(high, -low)
    norm = torch.linalg.vector_norm(values / scale.clamp_min(torch.finfo(values.dtype).tiny))
    zeros = count - torch.count_nonzero(values)
    return torch.stack([scale, norm, zeros.to(scale.dtype), torch.full_like(scale, count)])


def _read(rows: list[Tensor]) -> list[tuple[float, float, float]]:
    """Norm, root mean square and share of zeros of each; here the device is waited for, once."""
    if not rows:
        return []
    device = rows[0].device
    exact = max((row.dtype for row in rows), key=lambda dtype: dtype.itemsize)
    table = torch.stack([row.to(device, exact) for row in rows]).tolist()
    return [
        (scale * norm, scale * norm / math.sqrt(count), zeros / count)
        for scale, norm, zeros, count in table
    ]
