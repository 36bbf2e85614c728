"""Up-sampling: a larger map from a smaller one.

    nearest, bilinear   interpolate, then a 3x3 convolution
    transposed          a convolution run backwards: each place writes a kernel-sized square

A transposed convolution whose kernel is no multiple of its stride writes some places more often
than others, which is seen as a checkerboard (Odena et al. 2016, 'Deconvolution and checkerboard
artifacts'); the kernel here is two or three times the stride.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

from leadline.core.names import look_up

UpsamplingName = Literal["nearest", "bilinear", "transposed"]


def make_upsampling(name: str, *, inputs: int, outputs: int, factor: int = 2) -> nn.Module:
    """The layer called `name`: maps (B `inputs` H W) to (B `outputs` `factor`·H `factor`·W).

    >>> import torch
    >>> layer = make_upsampling("transposed", inputs=2, outputs=3, factor=4)
    >>> layer(torch.ones(1, 2, 5, 5)).shape
    torch.Size([1, 3, 20, 20])
    """
    return look_up(name, UPSAMPLINGS, kind="up-sampling")(inputs, outputs, factor)


def _interpolated(mode: str) -> Callable[[int, int, int], nn.Module]:
    def make(inputs: int, outputs: int, factor: int) -> nn.Module:
        return nn.Sequential(
            nn.Upsample(scale_factor=factor, mode=mode),
            nn.Conv2d(inputs, outputs, 3, padding=1),
        )

    return make


def _transposed(inputs: int, outputs: int, factor: int) -> nn.Module:
    times = 2 if factor % 2 == 0 else 3  # so that the padding on both sides is alike
    return nn.ConvTranspose2d(
        inputs, outputs, times * factor, stride=factor, padding=(times - 1) * factor // 2
    )


UPSAMPLINGS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "nearest": _interpolated("nearest"),
    "bilinear": _interpolated("bilinear"),
    "transposed": _transposed,
}
