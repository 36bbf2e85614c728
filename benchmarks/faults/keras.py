"""Keras' defaults in PyTorch: how layers begin, what losses compute, how optimizers step.

Most published programs are written in Keras, whose defaults differ from torch's: weights by Glorot
and zero biases; an epsilon of 1e-7 in Adam and RMSprop; losses that take probabilities, not logits,
and clip them to [1e-7, 1 - 1e-7] (`keras/src/backend`, `keras/src/losses`). A fault may depend on
it: a clipped probability gives no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

EPSILON = 1e-7  # keras.backend.epsilon()
TRUNCATED = 0.87962566103423978  # std of a unit normal cut at two: Keras divides by it

Initializer = Callable[[Tensor], object]
OptimizerFactory = Callable[[nn.Module], Optimizer]

glorot_uniform: Initializer = nn.init.xavier_uniform_
zeros: Initializer = nn.init.zeros_
ones: Initializer = nn.init.ones_


def he_uniform(weights: Tensor) -> None:
    """U(-a, a) with a = sqrt(6 / fan_in)."""
    nn.init.kaiming_uniform_(weights, nonlinearity="relu")


def he_normal(weights: Tensor) -> None:
    """A normal of variance 2 / fan_in, cut at two standard deviations."""
    _cut_normal(weights, 2.0)


def lecun_normal(weights: Tensor) -> None:
    """A normal of variance 1 / fan_in, cut at two standard deviations: what SELU asks for."""
    _cut_normal(weights, 1.0)


def normal(std: float) -> Initializer:
    """A normal around 0."""
    return lambda weights: nn.init.normal_(weights, std=std)


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""
    return lambda weights: nn.init.uniform_(weights, -bound, bound)


def truncated_normal(std: float) -> Initializer:
    """`tf.truncated_normal`: cut at two standard deviations, and not widened again."""
    return lambda weights: nn.init.trunc_normal_(weights, std=std, a=-2 * std, b=2 * std)


def constant(value: float) -> Initializer:
    """Every weight the same."""
    return lambda weights: nn.init.constant_(weights, value)


def _cut_normal(weights: Tensor, gain: float) -> None:
    fan_in = weights[0].numel()
    std = (gain / fan_in) ** 0.5 / TRUNCATED
    nn.init.trunc_normal_(weights, std=std, a=-2 * std, b=2 * std)


def dense(
    inputs: int,
    outputs: int,
    *,
    weights: Initializer = glorot_uniform,
    bias: Initializer | None = zeros,
) -> nn.Linear:
    """Keras' Dense without its activation; `bias=None` leaves the bias out."""
    layer = nn.Linear(inputs, outputs, bias=bias is not None)
    weights(layer.weight)
    if bias is not None:
        bias(layer.bias)
    return layer


def conv(
    inputs: int,
    outputs: int,
    size: int,
    *,
    same: bool = False,
    weights: Initializer = glorot_uniform,
    bias: Initializer | None = zeros,
) -> nn.Conv2d:
    """Keras' Conv2D without its activation: padding 'valid', or 'same' for an odd size."""
    padding = size // 2 if same else 0
    layer = nn.Conv2d(inputs, outputs, size, padding=padding, bias=bias is not None)
    weights(layer.weight)
    if bias is not None:
        bias(layer.bias)
    return layer


def categorical_crossentropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of probabilities against one-hot rows: divided by their sum, clipped, logarithm taken."""
    outputs = outputs / outputs.sum(dim=-1, keepdim=True)
    outputs = outputs.clamp(EPSILON, 1 - EPSILON)
    return -(targets * outputs.log()).sum(dim=-1).mean()


def sparse_categorical_crossentropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of probabilities against class numbers: clipped, then taken as logits of a softmax."""
    return nn.functional.cross_entropy(outputs.clamp(EPSILON, 1 - EPSILON).log(), targets)


def binary_crossentropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of probabilities against zeros and ones, the mean over every number."""
    outputs = outputs.clamp(EPSILON, 1 - EPSILON)
    losses = targets * (outputs + EPSILON).log() + (1 - targets) * (1 - outputs + EPSILON).log()
    return -losses.mean()


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of the squares."""
    return (outputs - targets).square().mean()


def mean_absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of the absolute differences."""
    return (outputs - targets).abs().mean()


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """max(1 - t y, 0) with targets 0 and 1 taken for -1 and 1."""
    return (1 - (2 * targets - 1) * outputs).relu().mean()


def adam(lr: float = 1e-3, *, eps: float = EPSILON) -> OptimizerFactory:
    """Adam; fused, because torch's plain one takes longer than the rest of a large Dense layer."""
    return lambda model: torch.optim.Adam(model.parameters(), lr=lr, eps=eps, fused=True)


def rmsprop(lr: float = 1e-3) -> OptimizerFactory:
    """RMSprop with rho 0.9."""
    return lambda model: torch.optim.RMSprop(model.parameters(), lr=lr, alpha=0.9, eps=EPSILON)


def adadelta(lr: float) -> OptimizerFactory:
    """Adadelta with rho 0.95."""
    return lambda model: torch.optim.Adadelta(model.parameters(), lr=lr, rho=0.95, eps=EPSILON)


def sgd(
    lr: float, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
) -> OptimizerFactory:
    """Plain gradient descent, or with momentum."""
    return lambda model: torch.optim.SGD(
        model.parameters(),
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
    )


def decay(amount: float) -> Callable[[Optimizer], LambdaLR]:
    """The old argument `decay` of Keras' optimizers: lr / (1 + amount * updates)."""
    return lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + amount * step))
