"""Gauss-Newton and Fisher: the curvature of the loss seen through a network made linear.

With outputs z, their Jacobian J by the parameters and a curvature C in the space of the outputs,

    M v = J^T C J v

is the Gauss-Newton matrix for C = d2L/dz2 (Schraudolph 2002), the Fisher matrix for C = the mean
of s s^T over targets drawn from the model, the empirical Fisher for s from the targets in the data;
s is the gradient of one example's loss by its outputs. Each term of the loss, an example, a pixel
or a token, counts as an example; the scale is that of the mean (Dangel et al. 2025, curvlinops).

The surprising choice: J v needs no forward mode. The backward pass u -> J^T u is linear in u, so
that differentiating it by u gives J v, for any module and through one graph that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils._pytree import tree_map_only

from leadline.core.errors import MeasurementError
from leadline.measure.batch import Batch, Loss, main_output
from leadline.measure.curvature.derivatives import (
    Linearised,
    check_second_derivatives,
    differentiate,
)

OutputCurvatureName = Literal["gauss_newton", "fisher", "monte_carlo_fisher", "empirical_fisher"]
OUTPUT_CURVATURES = ("gauss_newton", "fisher", "monte_carlo_fisher", "empirical_fisher")

Likelihood = Literal["cross entropy", "squared error", "binary cross entropy"]
_LIKELIHOODS: dict[frozenset[str], Likelihood] = {
    frozenset({"NllLossBackward0", "LogSoftmaxBackward0"}): "cross entropy",
    frozenset({"NllLoss2DBackward0", "LogSoftmaxBackward0"}): "cross entropy",
    frozenset({"MseLossBackward0"}): "squared error",
    frozenset({"BinaryCrossEntropyWithLogitsBackward0"}): "binary cross entropy",
}
# Operations that move numbers without changing them, as a language model's shift by one does.
_MOVES = frozenset(
    f"{name}Backward0"
    for name in (
        *("View", "Reshape", "UnsafeView", "Slice", "Select", "Permute", "Transpose", "T"),
        *("Squeeze", "Unsqueeze", "Clone", "Alias", "ToCopy"),
    )
)


@dataclass(frozen=True, kw_only=True)
class OutputCurvature:
    """Which curvature in the space of the outputs; `samples` and `seed` for the sampled one."""

    name: OutputCurvatureName
    samples: int = 1
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Head:
    """Where the network ends and the loss begins: `outputs` of the first, `inputs` of the second.

    They are the same tensors, or copies that have no graph behind them: then a second output that
    is computed from the first is not counted twice.
    """

    loss: Tensor
    outputs: Sequence[Tensor]
    inputs: Sequence[Tensor]
    slopes: Sequence[Tensor]


def gauss_newton(
    outputs: Any,
    batch: Batch,
    parameters: Sequence[Tensor],
    loss: Loss | None,
    kind: OutputCurvature,
) -> Linearised:
    """Products with J^T C J for what one forward pass returned."""
    head = _divide(outputs, batch, loss)
    check_second_derivatives([head.loss, *head.outputs])
    bend = _curvature(head, batch, kind)
    duals = [torch.zeros_like(z, requires_grad=True) for z in head.outputs]
    pulled = differentiate(head.outputs, parameters, duals, keep=True)  # J^T u, linear in u
    linear = [n for n, tensor in enumerate(pulled) if tensor.requires_grad]
    if not linear:
        raise MeasurementError(
            expected="outputs that depend on the trainable parameters",
            received="outputs without a graph",
            remedy="look for .detach() or torch.no_grad() in the model",
        )

    def multiply(vector: Sequence[Tensor]) -> Sequence[Tensor]:
        pushed = differentiate([pulled[n] for n in linear], duals, [vector[n] for n in linear])
        return differentiate(head.outputs, parameters, bend(pushed))

    gradient = differentiate(head.outputs, parameters, [s.detach() for s in head.slopes])
    return Linearised(loss=head.loss.detach(), gradient=gradient, multiply=multiply)


def _divide(outputs: Any, batch: Batch, loss: Loss | None) -> _Head:
    """Divide the computation into network and loss, and differentiate the loss by its inputs."""
    ends: list[Tensor] = []
    begins: list[Tensor] = []

    def detach(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        ends.append(tensor)
        begins.append(tensor.detach().requires_grad_())
        return begins[-1]

    if loss is not None:
        value = batch.loss_of(tree_map_only(Tensor, detach, outputs), loss)
    if not begins:  # the model's own loss, or outputs in a class of the user's
        ends = begins = [main_output(outputs)]
        value = batch.loss_of(outputs, loss)
    slopes = differentiate([value], begins, keep=True)
    used = [n for n, slope in enumerate(slopes) if slope.grad_fn is not None or bool(slope.any())]
    if not used and loss is None:
        raise MeasurementError(
            expected="a loss that the model computes from its main output",
            received="one that does not depend on it",
            remedy="pass the loss as a function of (outputs, targets)",
        )
    used = used or [0]
    return _Head(
        loss=value,
        outputs=[ends[n] for n in used],
        inputs=[begins[n] for n in used],
        slopes=[slopes[n] for n in used],
    )


Bend = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def _curvature(head: _Head, batch: Batch, kind: OutputCurvature) -> Bend:
    """The product with C, in the space of the outputs."""
    if kind.name in ("gauss_newton", "fisher"):
        if kind.name == "fisher":
            _likelihood(head)
        return _second_derivative(head)
    return _outer_products(head, batch, kind)


def _second_derivative(head: _Head) -> Bend:
    curved = [n for n, slope in enumerate(head.slopes) if slope.requires_grad]

    def bend(pushed: Sequence[Tensor]) -> Sequence[Tensor]:
        if not curved:
            return [torch.zeros_like(z) for z in pushed]
        return differentiate(
            [head.slopes[n] for n in curved], head.inputs, [pushed[n] for n in curved]
        )

    return bend


def _outer_products(head: _Head, batch: Batch, kind: OutputCurvature) -> Bend:
    """C = (1 / M R) sum of s s^T over M samples; R is what the loss divides its sum by."""
    likelihood = _likelihood(head)
    channels = 1 if likelihood == "cross entropy" and head.inputs[0].ndim > 1 else -1

    def rows(tensor: Tensor) -> Tensor:  # terms, channels
        return tensor.reshape(-1, 1) if tensor.ndim < 2 else _last(tensor, channels).flatten(0, -2)

    outputs = rows(head.inputs[0].detach())
    divisor = len(outputs) if likelihood == "cross entropy" else outputs.numel()
    slopes = rows(head.slopes[0].detach()) * divisor
    _check_mean(likelihood, outputs, slopes, batch)
    if kind.name == "empirical_fisher":
        scores = slopes[None]
    else:
        generator = torch.Generator(device=outputs.device).manual_seed(kind.seed)
        scores = _draw(likelihood, outputs, kind.samples, generator)

    def bend(pushed: Sequence[Tensor]) -> Sequence[Tensor]:
        flat = rows(pushed[0])
        along = (scores * flat).sum(dim=-1, keepdim=True)  # samples, terms, 1
        bent = (scores * along).sum(dim=0) / (len(scores) * divisor)
        moved = _last(pushed[0], channels) if pushed[0].ndim > 1 else pushed[0]
        bent = bent.reshape(moved.shape)
        return [bent.movedim(-1, channels) if bent.ndim > 1 else bent]

    return bend


def _last(tensor: Tensor, channels: int) -> Tensor:
    return tensor.movedim(channels, -1)


def _draw(
    likelihood: Likelihood, outputs: Tensor, samples: int, generator: torch.Generator
) -> Tensor:
    """Gradients by the outputs for targets drawn from the model: samples, terms, channels."""
    shape = (samples, *outputs.shape)
    if likelihood == "squared error":  # targets of variance 1/2 around the outputs, slope 2 (z - y)
        normal = torch.randn(shape, generator=generator, dtype=outputs.dtype, device=outputs.device)
        return normal * 2**0.5
    if likelihood == "binary cross entropy":
        chance = outputs.sigmoid().expand(shape)
        return chance - torch.bernoulli(chance, generator=generator)
    chance = outputs.softmax(dim=-1)
    drawn = chance.multinomial(samples, replacement=True, generator=generator)  # terms, samples
    return chance - one_hot(drawn.T, outputs.shape[-1])


def _likelihood(head: _Head) -> Likelihood:
    """Which loss it is, read from its graph: a name or a class could be anything."""
    found = _operations(head.loss, head.inputs) if len(head.inputs) == 1 else frozenset({"?"})
    likelihood = _LIKELIHOODS.get(found)
    if likelihood is None:
        raise MeasurementError(
            expected="cross entropy, binary cross entropy with logits or squared error, of one "
            "output and without label smoothing: only these say how the model draws targets",
            received=f"a loss made of {', '.join(sorted(found)) or 'nothing'}",
            remedy="ask for matrix='gauss_newton', which takes any loss",
        )
    return likelihood


def _operations(loss: Tensor, inputs: Sequence[Tensor]) -> frozenset[str]:
    ends = {z.grad_fn for z in inputs if z.grad_fn is not None}
    waiting = [loss.grad_fn]
    names: set[str] = set()
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in ends or node in seen or len(seen) > 1000:
            continue
        seen.add(node)
        name = node.name().rpartition("::")[2]
        if name != "AccumulateGrad" and name not in _MOVES:
            names.add(name)
        waiting.extend(following for following, _ in node.next_functions)
    return frozenset(names)


def _check_mean(likelihood: Likelihood, outputs: Tensor, slopes: Tensor, batch: Batch) -> None:
    """Whether the loss is the plain mean over all its terms: else the scale would be wrong."""
    if likelihood == "cross entropy":
        chance = outputs.softmax(dim=-1)
        target = one_hot(slopes.argmin(dim=-1), outputs.shape[-1])
        error = slopes - (chance - target)
    elif likelihood == "binary cross entropy":
        targets = outputs.sigmoid() - slopes
        error = targets - targets.round().clamp(0, 1)
    else:
        targets = batch.targets
        fits = isinstance(targets, Tensor) and targets.numel() == outputs.numel()
        expected = 2 * (outputs - targets.to(outputs).reshape(outputs.shape)) if fits else slopes
        error = slopes - expected
        error = error / expected.abs().amax().clamp(min=1)
    if float(error.abs().amax()) > 1e-3:  # rounding is below, a wrong divisor or weight far above
        raise MeasurementError(
            expected=f"{likelihood} as the mean over all terms",
            received="a sum, or one with weights, ignored targets or targets that are not binary",
            remedy="use reduction='mean' without weights, or ask for matrix='gauss_newton'",
        )
