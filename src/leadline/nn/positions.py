"""Positions: what tells a token where it stands, since attention itself cannot know.

    sine      for a place p and frequencies w_i = 10000^(-i / n): sin(p w_i), cos(p w_i); in two
              dimensions a half of the features for the column and a half for the row (Vaswani et
              al. 2017; He et al. 2021, arXiv:2111.06377)
    learned   a vector for each place; for another grid interpolated as an image would be

The surprising choice: interpolation is bicubic with antialiasing, as in timm, whose weights it is
held to; without antialiasing a smaller grid would skip places.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

BASE = 10_000.0  # the longest wave, in places over 2 pi


def sine_positions(features: int, *, grid: tuple[int, int]) -> Float[Tensor, "1 N D"]:
    """Positions of a grid of (rows, columns), row by row; `features` is a multiple of 4.

    >>> sine_positions(4, grid=(1, 2))[0, 0].tolist()  # column 0, row 0: sin, cos, sin, cos
    [0.0, 1.0, 0.0, 1.0]
    """
    rows, columns = grid
    quarter = features // 4
    waves = BASE ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    parts = []
    for place in (column, row):
        angles = place.reshape(-1, 1).double() * waves
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=1).float()[None]


def resize_positions(
    positions: Float[Tensor, "1 N D"],
    *,
    old: tuple[int, int],
    new: tuple[int, int],
    others: int = 0,
) -> Float[Tensor, "1 M D"]:
    """Positions of one grid for another; the first `others` belong to no place and stay.

    >>> resize_positions(torch.ones(1, 4, 2), old=(2, 2), new=(3, 3)).shape
    torch.Size([1, 9, 2])
    """
    if old == new:
        return positions
    fixed, places = positions[:, :others], positions[:, others:]
    maps = places.reshape(1, *old, -1).permute(0, 3, 1, 2)
    maps = nn.functional.interpolate(maps.float(), size=new, mode="bicubic", antialias=True)
    resized = maps.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([fixed, resized], dim=1)
