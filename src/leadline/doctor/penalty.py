"""Penalty: what a loss adds for the weights, told from what it says of the outputs.

A loss function of (outputs, targets) that reads the weights as well has a gradient that does not
come through the outputs: hold the outputs fixed, and what is left is the penalty's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leadline.core.seeds import preserved_random_state, seed_everything
from leadline.doctor.examination import copied
from leadline.measure.batch import main_output, read_batch
from leadline.training.setup import Setup


def penalty_share(setup: Setup, batch: Any) -> float | None:
    """The norm of the penalty's gradient over that of the data's, at the first weights.

    None where the loss has no such part. Cost: 1 forward and 2 backward passes.
    """
    with preserved_random_state():
        seed_everything(setup.seed)
        try:
            model = setup.model()
            parameters = [p for p in model.parameters() if p.requires_grad]
            given = read_batch(batch, model=model, finite=False)
            outputs = main_output(copied(given).forward(model))
            fixed = setup.loss(outputs.detach(), given.targets)
            if not fixed.requires_grad:
                return None
            own = _norm(torch.autograd.grad(fixed, parameters, allow_unused=True))
            whole = setup.loss(outputs, given.targets)
            both: tuple[Any, ...] = torch.autograd.grad(whole, parameters, allow_unused=True)
            again = setup.loss(outputs.detach(), given.targets)
            penalty: tuple[Any, ...] = torch.autograd.grad(again, parameters, allow_unused=True)
        except Exception:  # the user's code; what fails here, the check has told or an arm will
            return None
    rest = []
    for gradient, part in zip(both, penalty, strict=True):
        if isinstance(gradient, Tensor):
            rest.append(gradient - part if isinstance(part, Tensor) else gradient)
    data = _norm(rest)
    return own / data if data > 0 else None


def _norm(gradients: Any) -> float:
    squares = [float(g.double().square().sum()) for g in gradients if isinstance(g, Tensor)]
    return float(sum(squares) ** 0.5)
