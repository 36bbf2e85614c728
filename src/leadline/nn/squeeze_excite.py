"""Squeeze and excitation: every channel is scaled by a number that depends on all of them.

    y = x * gate(W2 act(W1 mean(x)))     the mean over height and width

The whole map is squeezed to one number per channel, and a small bottleneck of two dense layers says
how much of each channel to let through (Hu et al. 2018, arXiv:1709.01507). The dense layers are 1x1
convolutions, as in torchvision and timm, whose names they have.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from leadline.nn.activations import make_activation


class SqueezeExcite(nn.Module):
    """Maps (B C H W), each channel times a factor in (0, 1); `squeezed` units between the two.

    >>> import torch
    >>> gate = SqueezeExcite(2, squeezed=1, activation="relu")
    >>> for parameter in gate.parameters():
    ...     _ = nn.init.zeros_(parameter)
    >>> gate(torch.ones(1, 2, 1, 1)).flatten().tolist()  # sigmoid(0)
    [0.5, 0.5]
    """

    def __init__(self, channels: int, *, squeezed: int, activation: str) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.act = make_activation(activation)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        factors = self.gate(self.fc2(self.act(self.fc1(self.avgpool(maps)))))  # B C 1 1
        scaled: Tensor = maps * factors
        return scaled
