"""Remedies of the loss: the one that fits the problem, on outputs as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from leadline.doctor.problem import Problem
from leadline.doctor.remedy import Remedy
from leadline.training.setup import Setup

Outputs = Literal["logits", "probabilities"]

SMALLEST = 1e-7
"""Probabilities below it count as this much: the logarithm of 0 has no gradient."""


@dataclass(frozen=True, kw_only=True)
class FittingLoss:
    """The usual loss of a problem: cross entropy, binary cross entropy, or squared error.

    >>> loss = FittingLoss(problem=Problem(kind="classes", classes=2), outputs="logits")
    >>> round(loss(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
    0.6931
    """

    problem: Problem
    outputs: Outputs

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        problem = self.problem
        if problem.kind == "classes":
            logits = outputs
            if self.outputs == "probabilities":
                logits = outputs.clamp_min(SMALLEST).log()
            logits = logits.movedim(problem.axis, 1) if problem.axis != 1 else logits
            if problem.one_hot or problem.soft:
                targets = targets.to(logits.dtype)
            return functional.cross_entropy(logits, targets)
        if problem.kind == "labels":
            targets = targets.to(outputs.dtype).reshape(outputs.shape)
            if self.outputs == "logits":
                return functional.binary_cross_entropy_with_logits(outputs, targets)
            inside = outputs.clamp(SMALLEST, 1 - SMALLEST)
            return functional.binary_cross_entropy(inside, targets)
        targets = targets.to(outputs.dtype)
        if targets.numel() == outputs.numel():
            targets = targets.reshape(outputs.shape)
        return functional.mse_loss(outputs, targets)

    @property
    def code(self) -> str:
        """How a person writes it."""
        names = {
            ("classes", "logits"): "nn.CrossEntropyLoss()",
            ("classes", "probabilities"): "nn.NLLLoss() of outputs.log(), "
            "or nn.CrossEntropyLoss() on the logits",
            ("labels", "logits"): "nn.BCEWithLogitsLoss()",
            ("labels", "probabilities"): "nn.BCELoss()",
        }
        return names.get((self.problem.kind, self.outputs), "nn.MSELoss()")


def fitting_loss(problem: Problem, outputs: Outputs) -> Remedy:
    """Train with the loss that fits the problem; the outputs mean what they did."""
    loss = FittingLoss(problem=problem, outputs=outputs)
    return Remedy(
        title=f"use the loss for {problem}: {loss.code}",
        apply=lambda setup: replace(setup, loss=loss),
        lines=(f"+ loss = {loss.code}",),
    )


def on_logits_of_probabilities(kind: Literal["softmax", "sigmoid"]) -> Remedy:
    """Let a loss that expects logits have those behind the model's softmax or sigmoid.

    The model goes on answering with probabilities. A cross entropy of ln p is - ln p of the right
    class, for the softmax of ln p is p again.
    """

    def apply(setup: Setup) -> Setup:
        return replace(setup, loss=_OfLogits(setup.loss, kind))

    return Remedy(
        title=f"compute the loss from the logits, before the {kind}",
        apply=apply,
        lines=(f"- return {kind}(logits)", "+ return logits"),
    )


class _OfLogits:
    def __init__(self, loss: Callable[[Any, Any], Tensor], kind: str) -> None:
        self.loss = loss
        self.kind = kind

    def __call__(self, outputs: Tensor, targets: Any) -> Tensor:
        if self.kind == "softmax":
            return self.loss(outputs.clamp_min(1e-30).log(), targets)
        return self.loss(torch.logit(outputs, eps=SMALLEST), targets)


def without_softmax() -> Remedy:
    """Hand the loss the outputs as they are where it takes their softmax first."""
    return Remedy(
        title="compute the loss from the logits, without the softmax inside it",
        apply=lambda setup: replace(setup, loss=_WithoutSoftmax(setup.loss)),
        lines=("- loss(softmax(outputs), targets)", "+ loss(outputs, targets)"),
    )


class _WithoutSoftmax:
    """A loss that runs as it is written, but that every softmax in it hands on what it is given.

    >>> loss = _WithoutSoftmax(lambda x, y: functional.cross_entropy(x.softmax(dim=1), y))
    >>> loss(torch.tensor([[100.0, 0.0]]), torch.tensor([0])).item()
    0.0
    """

    def __init__(self, loss: Callable[[Any, Any], Tensor]) -> None:
        self.loss = loss

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        with _PassedOn():
            return self.loss(outputs, targets)


class _PassedOn(TorchFunctionMode):
    SOFTMAXES = (torch.softmax, functional.softmax, Tensor.softmax)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in self.SOFTMAXES:
            return args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))


def mean_instead_of_sum(examples: int) -> Remedy:
    """Divide a loss that adds up its examples by how many there are."""

    def apply(setup: Setup) -> Setup:
        return replace(setup, loss=_Divided(setup.loss))

    return Remedy(
        title="average over the batch instead of adding up",
        apply=apply,
        lines=("- loss.sum()", f"+ loss.mean()  # batches of {examples}"),
    )


class _Divided:
    def __init__(self, loss: Callable[[Any, Any], Tensor]) -> None:
        self.loss = loss

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        count = targets.numel() if not targets.is_floating_point() else len(targets)
        return self.loss(outputs, targets) / max(count, 1)


def other_sign() -> Remedy:
    """Descend what was climbed."""
    return Remedy(
        title="turn the sign of the loss round",
        apply=lambda setup: replace(setup, loss=_Negated(setup.loss)),
        lines=("- (-loss).backward()", "+ loss.backward()"),
    )


class _Negated:
    def __init__(self, loss: Callable[[Any, Any], Tensor]) -> None:
        self.loss = loss

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        return -self.loss(outputs, targets)


def targets_like_outputs() -> Remedy:
    """Give the targets the outputs' shape, so that each is held against its own."""
    return Remedy(
        title="give the targets the shape of the outputs",
        apply=lambda setup: replace(setup, loss=_Reshaped(setup.loss)),
        lines=("- loss(outputs, targets)", "+ loss(outputs, targets.view_as(outputs))"),
    )


class _Reshaped:
    def __init__(self, loss: Callable[[Any, Any], Tensor]) -> None:
        self.loss = loss

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets.reshape(outputs.shape))


def without_penalty() -> Remedy:
    """Leave out what the loss adds for the size of the weights."""
    return Remedy(
        title="leave out the penalty on the weights",
        apply=lambda setup: replace(setup, loss=ThroughOutputs(setup.loss)),
        lines=("- loss = loss + penalty(model)", "+ loss = loss"),
    )


class ThroughOutputs:
    """A loss whose gradient comes through the outputs only: what it adds for weights is left out.

    The value stays what it was; the gradient is that of the part the outputs are in.
    """

    def __init__(self, loss: Callable[[Any, Any], Tensor]) -> None:
        self.loss = loss

    def __call__(self, outputs: Tensor, targets: Any) -> Tensor:
        if not outputs.requires_grad:
            return self.loss(outputs, targets).detach()
        leaf = outputs.detach().requires_grad_()
        value = self.loss(leaf, targets)
        (gradient,) = torch.autograd.grad(value, leaf)
        through = (outputs * gradient).sum()
        return value.detach() + through - through.detach()
