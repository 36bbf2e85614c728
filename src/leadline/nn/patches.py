"""Patches: an image as a grid of words, each a small square mapped to a vector by one linear map.

Dosovitskiy et al. 2020, 'An image is worth 16x16 words' (arXiv:2010.11929). The linear map of every
square alike is a convolution whose stride is its size. The surprising choice: an image whose sides
are no multiple of the patch is padded with zeros at its right and lower edge; no pixel is dropped.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Images (B C H W) to a map of patches (B D h w), h = ceil(H / patch).

    >>> import torch
    >>> PatchEmbedding(3, 8, patch_size=4)(torch.zeros(1, 3, 9, 8)).shape
    torch.Size([1, 8, 3, 2])
    """

    def __init__(self, in_chans: int, features: int, *, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, features, patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        below, right = (-size % self.patch_size for size in images.shape[2:])
        if below or right:
            images = nn.functional.pad(images, (0, right, 0, below))
        maps: Tensor = self.proj(images)
        return maps


def as_tokens(maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "B N D"]:
    """The places of a map as a sequence, row by row.

    >>> import torch
    >>> as_tokens(torch.arange(4.0).reshape(1, 1, 2, 2)).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    return maps.flatten(2).transpose(1, 2)
