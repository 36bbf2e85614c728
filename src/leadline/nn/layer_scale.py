"""Layer scale: a learned factor for every channel of a residual branch, tiny at first.

A deep network of such branches begins as the identity and lets each branch in as far as it helps
(Touvron et al. 2021, 'Going deeper with image transformers', arXiv:2103.17239).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def layer_scale(channels: int, *, start: float, trailing: int = 0) -> nn.Parameter:
    """The factors, all `start`; `trailing` axes of length 1 stand behind the channels' one.

    >>> layer_scale(3, start=0.5, trailing=2).shape
    torch.Size([3, 1, 1])
    """
    return nn.Parameter(torch.full((channels, *(1,) * trailing), start))


class LayerScale(nn.Module):
    """Features (… D) times their factors.

    >>> LayerScale(2, start=0.5)(torch.ones(1, 2)).tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, features: int, *, start: float) -> None:
        super().__init__()
        self.gamma = layer_scale(features, start=start)

    def forward(self, values: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return values * self.gamma
