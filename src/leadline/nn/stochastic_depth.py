"""Stochastic depth: in training, leave out each residual branch for a random part of the batch.

With survival probability p, sample by sample, the branch f contributes b f(x) / p where
b ~ Bernoulli(p); in evaluation it contributes f(x). Both have the same expectation. The network
is shallower in training, which shortens the gradient's way, and an ensemble in evaluation.

Huang et al. 2016, 'Deep Networks with Stochastic Depth': the probability of being left out grows
linearly with depth, from near 0 at the first branch to the full rate at the last.

The surprising choice: the division by p happens in training, as in dropout, and not in evaluation
as in the paper, so that the evaluated network needs no correction.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import ModelError


class StochasticDepth(nn.Module):
    """Zero a whole sample of the input with probability `rate` in training, else scale it up.

    Axes: B batch, the rest whatever a sample is made of. In evaluation, and at rate 0, it is the
    identity and draws no random number. Raises ModelError unless 0 <= rate < 1.

    >>> StochasticDepth(rate=0.2).eval()(torch.ones(2, 3)).sum().item()
    6.0
    """

    def __init__(self, *, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ModelError(
                expected="a stochastic depth rate of at least 0 and below 1",
                received=str(rate),
                remedy="choose a rate such as 0.1",
            )
        self.rate = rate

    def forward(self, branch: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        if not self.training or self.rate == 0.0:
            return branch
        survival = 1.0 - self.rate
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        kept = torch.empty(shape, dtype=branch.dtype, device=branch.device).bernoulli_(survival)
        return branch * kept.div_(survival)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def linear_rates(rate: float, *, blocks: int) -> tuple[float, ...]:
    """The rate of each of `blocks` residual blocks: block l of L has rate * l / L, l from 1.

    >>> linear_rates(0.5, blocks=2)
    (0.25, 0.5)
    """
    return tuple(rate * (block + 1) / blocks for block in range(blocks))
