"""Depthwise convolution: one kernel for each channel; a 1x1 convolution then mixes the channels.

    depthwise separable   depthwise k x k -> 1x1            cost k^2 C + C D instead of k^2 C D
    inverted bottleneck   1x1 to e C -> depthwise -> 1x1 to D, the last without an activation

Howard et al. 2017 (MobileNet, arXiv:1704.04861), Sandler et al. 2018 (MobileNetV2,
arXiv:1801.04381): a bottleneck turned inside out, wide where it filters and narrow where it adds.
"""

from __future__ import annotations

from torch import nn

from leadline.nn.conv_block import conv_block


def depthwise(
    channels: int, kernel: int, *, norm: str, activation: str | None, stride: int = 1
) -> nn.Sequential:
    """Each map of (B `channels` H W) filtered by its own kernel -> norm -> activation.

    >>> depthwise(8, 3, norm="batch", activation="relu")[0].weight.shape
    torch.Size([8, 1, 3, 3])
    """
    return conv_block(
        channels,
        channels,
        kernel,
        norm=norm,
        activation=activation,
        stride=stride,
        groups=channels,
    )


def depthwise_separable(
    inputs: int, outputs: int, kernel: int, *, norm: str, activation: str, stride: int = 1
) -> nn.Sequential:
    """A convolution in two steps: `depthwise`, then 1x1 -> norm -> activation.

    >>> block = depthwise_separable(8, 16, 3, norm="none", activation="relu")
    >>> sum(p.numel() for p in block.parameters())  # (9 * 8 + 8) + (8 * 16 + 16)
    224
    """
    return nn.Sequential(
        depthwise(inputs, kernel, norm=norm, activation=activation, stride=stride),
        conv_block(inputs, outputs, 1, norm=norm, activation=activation),
    )
