"""Step: one record per optimizer step, yielded by the loop; everything else just reads it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What happened in one optimizer step.

    `loss` and `grad_norm` are scalars that still live on the device: reading them waits for it,
    so a reader gathers many before it looks.
    """

    index: int
    """Optimizer steps done so far, this one included: the first step is 1."""
    epoch: int
    """Which pass over the data, from 1."""
    loss: Tensor
    """Mean loss over the examples of this step, before the update."""
    lr: float
    """The learning rate this step used (of the first parameter group)."""
    examples: int
    """How many examples this step saw."""
    grad_norm: Tensor
    """Norm of the whole gradient, before clipping."""
    ends_epoch: bool
    """Whether this was the last step of its epoch."""
