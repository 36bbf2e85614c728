"""Pooling: a smaller map, and at the end one vector, from what is in each window.

    halve    max, average, blur or stride: a map (B C H W) to (B C ceil(H/2) ceil(W/2))
    whole    average, max, or both added: a map to one number for each channel

Where a map is halved by taking every second place, what is finer than two places turns into what it
is not (aliasing), and a shift by one pixel changes the answer. Blurring first, with the binomial
kernel 1 2 1, prevents it (Zhang 2019, 'Making convolutional networks shift-invariant again',
arXiv:1904.11486). The surprising choice: edges are repeated, so that a map of one pixel can be
blurred too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.names import look_up

HalvingName = Literal["max", "average", "blur"]
WholeName = Literal["average", "max", "both"]

BINOMIAL = (1.0, 2.0, 1.0)


class BlurPool(nn.Module):
    """Blur each channel with the 3 x 3 binomial kernel, then take every `stride`-th place.

    >>> BlurPool()(torch.ones(1, 2, 5, 4)).shape
    torch.Size([1, 2, 3, 2])
    """

    kernel: Tensor

    def __init__(self, *, stride: int = 2) -> None:
        super().__init__()
        self.stride = stride
        row = torch.tensor(BINOMIAL)
        kernel = torch.outer(row, row) / row.sum() ** 2
        self.register_buffer("kernel", kernel[None, None], persistent=False)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        channels = maps.shape[1]
        padded = nn.functional.pad(maps, (1, 1, 1, 1), mode="replicate")
        kernel = self.kernel.to(maps.dtype).expand(channels, 1, 3, 3)
        return nn.functional.conv2d(padded, kernel, stride=self.stride, groups=channels)

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class GlobalPool(nn.Module):
    """A map (B C H W) to (B C): the average, the largest value, or the sum of the two.

    >>> maps = torch.tensor([[[[1.0, 3.0]]]])
    >>> [GlobalPool(name)(maps).item() for name in ("average", "max", "both")]
    [2.0, 3.0, 5.0]
    """

    def __init__(self, name: WholeName) -> None:
        super().__init__()
        self.name = name

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C"]:
        if self.name == "average":
            return maps.mean(dim=(2, 3))
        if self.name == "max":
            return maps.amax(dim=(2, 3))
        return maps.mean(dim=(2, 3)) + maps.amax(dim=(2, 3))

    def extra_repr(self) -> str:
        return self.name


HALVINGS: dict[str, Callable[[], nn.Module]] = {
    # ceil_mode keeps the last row and column of an odd map, and a map of one pixel
    "max": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "average": lambda: nn.AvgPool2d(2, ceil_mode=True),
    "blur": lambda: nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), BlurPool()),
}


def make_halving(name: str) -> nn.Module:
    """The pooling called `name` that halves a map; sides are rounded up.

    >>> make_halving("average")(torch.ones(1, 1, 3, 3)).shape
    torch.Size([1, 1, 2, 2])
    """
    return look_up(name, HALVINGS, kind="pooling")()
