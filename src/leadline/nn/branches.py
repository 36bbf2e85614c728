"""Branches: the same maps along several paths of layers, and what comes out side by side.

    y = concatenate(path_1(x), ..., path_n(x)) over the channels

Kernels of several sizes look at the same place at once, and the next layer chooses (Szegedy et al.
2014, 'Going deeper with convolutions'). The surprising choice: layers are named and paths are lists
of names, so that two paths may share their beginning, which is then computed once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Branches(nn.Module):
    """Maps (B C H W) along every path of `layers`, joined to (B D h w).

    >>> maps = torch.arange(2.0).reshape(1, 2, 1, 1)
    >>> layers = {"same": nn.Identity(), "bent": nn.Tanh()}
    >>> Branches(layers, paths=(("same",), ("same", "bent")))(maps).flatten().tolist()[:3]
    [0.0, 1.0, 0.0]
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], *, paths: tuple[tuple[str, ...], ...]
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.paths = paths

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        reached: dict[tuple[str, ...], Tensor] = {(): maps}
        for path in self.paths:
            for length in range(1, len(path) + 1):
                if path[:length] not in reached:
                    layer = getattr(self, path[length - 1])
                    reached[path[:length]] = layer(reached[path[: length - 1]])
        return torch.cat([reached[path] for path in self.paths], dim=1)
