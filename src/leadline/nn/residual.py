"""The residual path: where a branch meets its shortcut, and how to find the branches of a network.

y = x + f(x): whatever the branch f does, the identity carries signal and gradient past it, so that
depth cannot make them vanish (He et al. 2015, 'Deep Residual Learning'). The path can be switched
off, which leaves the plain network y = f(x) with the same weights: the control experiment.

The surprising choice: the sum is its own module, though it is one plus sign. So the branch's
output can be seen before it is added, stochastic depth has a place, and so has the one scalar that
Fixup adds to each branch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import ModelError
from leadline.nn.stochastic_depth import StochasticDepth


class ResidualAdd(nn.Module):
    """shortcut + drop(scale * branch), or the branch alone when the residual path is off.

    `drop_path_rate` is the rate of stochastic depth; `scaled` adds a learned scalar that starts at
    1 (Fixup's multiplier, Zhang et al. 2019). Raises ModelError when a rate is asked for without a
    residual path: a dropped branch would leave nothing.

    >>> ResidualAdd()(torch.tensor([2.0]), shortcut=torch.tensor([1.0])).item()
    3.0
    >>> ResidualAdd(residual=False)(torch.tensor([2.0]), shortcut=torch.tensor([1.0])).item()
    2.0
    """

    def __init__(
        self, *, residual: bool = True, drop_path_rate: float = 0.0, scaled: bool = False
    ) -> None:
        super().__init__()
        if drop_path_rate > 0.0 and not residual:
            raise ModelError(
                expected="a residual path wherever there is stochastic depth",
                received=f"drop_path_rate {drop_path_rate} without a residual path",
                remedy="switch the residual path on, or set drop_path_rate to 0",
            )
        self.residual = residual
        self.drop = StochasticDepth(rate=drop_path_rate)
        self.scale = nn.Parameter(torch.ones(())) if scaled else None

    def forward(
        self, branch: Float[Tensor, "B ..."], *, shortcut: Float[Tensor, "B ..."]
    ) -> Float[Tensor, "B ..."]:
        if self.scale is not None:
            branch = branch * self.scale
        if not self.residual:
            return branch
        # the sum lies in memory as its first operand does: as the branch, which has been computed
        added: Tensor = self.drop(branch) + shortcut
        return added


class ResidualBlock(nn.Module, ABC):
    """A block with residual branches; what `initialise` looks for in a network.

    A subclass sets `join`, the ResidualAdd where its first branch ends, and lists the branches.
    """

    join: ResidualAdd

    @abstractmethod
    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The modules of each branch in the order in which the signal passes them."""


def residual_blocks(model: nn.Module) -> tuple[ResidualBlock, ...]:
    """The blocks of `model` whose residual path is on, in module order."""
    blocks = (module for module in model.modules() if isinstance(module, ResidualBlock))
    return tuple(block for block in blocks if block.join.residual)
