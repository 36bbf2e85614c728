"""The networks that several of the rebuilt programs share, and the layers torch does not have."""

from __future__ import annotations

import keras
import torch
from keras import Initializer, conv, dense
from torch import Tensor, nn
from torch.nn import functional


class Scale(nn.Module):
    """The input times a number, or a number per feature: a fixed twin's scaling, in its model."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.register_buffer("factors", torch.tensor(factors))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factors


class Standardize(nn.Module):
    """Every feature minus its mean over its standard deviation, those of the training data."""

    def __init__(self, training_inputs: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", training_inputs.mean(0))
        self.register_buffer("std", training_inputs.std(0, correction=0))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.std


class KeepProbability(nn.Module):
    """A dropout that takes the share to keep for the share to drop, as in the published program.

    It keeps half in training. In evaluation it means to keep everything, and drops everything.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        keep = 0.5 if self.training else 1.0
        return functional.dropout(inputs, p=keep, training=True)


class Line(nn.Module):
    """w x + b from w = b = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.b = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.w * inputs + self.b


class Parabola(nn.Module):
    """a x^2 + b x + c from a = b = c = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(()))
        self.b = nn.Parameter(torch.zeros(()))
        self.c = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.a * inputs.square() + self.b * inputs + self.c


def keras_digits(*, first: Initializer = keras.glorot_uniform) -> nn.Sequential:
    """Keras' own example network for MNIST: two convolutions, two dropouts, a softmax."""
    return nn.Sequential(
        conv(1, 32, 3, weights=first),
        nn.ReLU(),
        conv(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        dense(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        dense(128, 10),
        nn.Softmax(dim=1),
    )


def base_cnn(*, activation: tuple[nn.Module, nn.Module, nn.Module] | None = None) -> nn.Sequential:
    """TheDeepChecker's small network for MNIST; gives logits."""
    first, second, third = activation or (nn.ReLU(), nn.ReLU(), nn.ReLU())
    return nn.Sequential(
        conv(1, 32, 5, same=True, weights=keras.he_normal),
        first,
        nn.MaxPool2d(2),
        conv(32, 64, 3, same=True, weights=keras.he_normal),
        second,
        nn.MaxPool2d(2),
        nn.Flatten(),
        dense(3136, 512, weights=keras.he_normal),
        third,
        dense(512, 10),
    )


def deep_cnn(
    *,
    weights: Initializer = keras.he_normal,
    last: Initializer = keras.glorot_uniform,
    softmax: bool = False,
    momentum: float = 0.1,
    after_convs: float = 0.0,
    after_pools: tuple[float, float, float] = (0.2, 0.3, 0.4),
) -> nn.Sequential:
    """TheDeepChecker's VGG-like network for CIFAR-10; gives logits.

    `softmax` puts a softmax over the channels in the place of every hidden ReLU; `momentum` is that
    of the batch norms' running statistics; `after_convs` a dropout after convolutions 1, 3 and 5.
    """

    def hidden() -> nn.Module:
        return nn.Softmax(dim=1) if softmax else nn.ReLU()

    layers: list[nn.Module] = []
    for inputs, outputs, rate in zip((3, 32, 64), (32, 64, 128), after_pools, strict=True):
        for position, size in enumerate((inputs, outputs)):
            layers.append(conv(size, outputs, 3, same=True, weights=weights, bias=None))
            layers += [hidden(), nn.BatchNorm2d(outputs, momentum=momentum)]
            if after_convs and position == 0:
                layers.append(nn.Dropout(after_convs))
        layers += [nn.MaxPool2d(2), nn.Dropout(rate)]
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        dense(2048, 128, weights=weights),
        hidden(),
        nn.BatchNorm1d(128, momentum=momentum),
        nn.Dropout(0.5),
        dense(128, 10, weights=last),
    )


def cifar_cnn(*, second: Initializer = keras.glorot_uniform) -> nn.Sequential:
    """DeepCrime's network for CIFAR-10: three convolutions, three dense layers, a softmax."""
    return nn.Sequential(
        conv(3, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(32, 64, 3, weights=second),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(64, 128, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        dense(512, 256),
        nn.ReLU(),
        dense(256, 128),
        nn.ReLU(),
        dense(128, 10),
        nn.Softmax(dim=1),
    )
