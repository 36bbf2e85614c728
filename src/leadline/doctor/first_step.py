"""The first step: what one update does to the weights and to the loss on its own batch.

A copy of the optimizer that the user made takes one real step with the gradient that was measured,
on copies of the weights, and the loss of the batch is computed with these. A step that is too large
shows at once: the loss of the very batch it was made for rises. The sizes tell the rest: an update
of a thousandth of a weight's norm is usual (Karpathy's rule of thumb for the ratio is 1e-3); one of
the norm itself wipes out what initialisation did. Under a warm-up the first step is small whatever
the rate is, so the step is taken at the rate that the warm-up leads to.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leadline.core.taps import Taps, plain_name
from leadline.measure.batch import Batch, Loss
from leadline.measure.gradients.updates import step_of_a_copy
from leadline.measure.magnitudes import tensor_norms


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """What one update did: the loss before and after, and each matrix's relative change.

    `ratios` maps a parameter of two or more dimensions to ‖Δw‖/‖w‖; biases and gains, which often
    begin at 0, are left out. `rate` is the largest learning rate of the step, NaN without one.
    """

    before: float
    after: float
    ratios: Mapping[str, float]
    rate: float = math.nan

    @property
    def typical(self) -> float:
        """The median ratio, of an even number the lower one; NaN when there is none."""
        return statistics.median_low(self.ratios.values()) if self.ratios else math.nan


def first_step(
    model: nn.Module,
    batch: Batch,
    *,
    loss: Loss | None,
    optimizer: Optimizer,
    gradients: Mapping[str, Tensor | None],
    before: float,
) -> FirstStep:
    """Take one step of a copy of `optimizer` with the given gradients, and look.

    Cost: 1 optimizer step and 1 forward pass; memory for one more copy of the
    weights, the gradients and the optimizer's state.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = model.weight.data.fill_(1.0)
    >>> batch = Batch(args=(torch.ones(1, 1),), targets=torch.zeros(1, 1))
    >>> step = first_step(
    ...     model,
    ...     batch,
    ...     loss=nn.functional.mse_loss,
    ...     optimizer=torch.optim.SGD(model.parameters(), lr=0.25),
    ...     gradients={"weight": torch.tensor([[2.0]])},
    ...     before=1.0,
    ... )
    >>> step.after, step.ratios["weight"], model.weight.item()
    (0.25, 0.5, 1.0)
    """
    full = {plain_name(name): name for name, _ in model.named_parameters()}
    parameters = {plain_name(name): p for name, p in model.named_parameters()}
    rates = _warmed_up(optimizer)
    after = step_of_a_copy(
        optimizer,
        {id(parameters[name]): g for name, g in gradients.items() if g is not None},
        rates=rates,
    )
    moved = {name: after[id(p)].detach() for name, p in parameters.items() if id(p) in after}
    matrices = [name for name in moved if parameters[name].ndim >= 2]
    changes = tensor_norms([moved[name] - parameters[name].detach() for name in matrices])
    norms = tensor_norms([parameters[name] for name in matrices])
    with Taps(model), torch.no_grad():
        weights = {full[name]: weight for name, weight in moved.items()}
        outputs = torch.func.functional_call(model, weights, batch.args, dict(batch.kwargs))
        loss_after = float(batch.loss_of(outputs, loss))
    return FirstStep(
        before=before,
        after=loss_after,
        ratios={n: c / size for n, c, size in zip(matrices, changes, norms, strict=True) if size},
        rate=max(rates, default=math.nan),
    )


def is_scheduled(optimizer: Optimizer) -> bool:
    """Whether a scheduler holds the rates: it notes in each group the rate it began with."""
    return any("initial_lr" in group for group in optimizer.param_groups)


def _warmed_up(optimizer: Optimizer) -> list[float]:
    """The rate of each group; in a training that has not begun, the one its warm-up leads to.

    Later a rate below the initial one is a decay, and is left.
    """
    begun = bool(optimizer.state)
    return [
        float(group["lr"] if begun else max(group["lr"], group.get("initial_lr", group["lr"])))
        for group in optimizer.param_groups
    ]
