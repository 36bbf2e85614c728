"""Update-to-weight ratio: how far one step of the optimizer moves each parameter.

    ratio = |w_next - w| / |w|

The gradient alone does not tell, since momentum, adaptive rates, decay and schedule stand between
it and the step. About 10^-3 is a common rule of thumb for matrices (Karpathy's CS231n notes on
babysitting training, 2015): well below, the parameter hardly learns; 10^-1 and above, it is thrown
about.

The surprising choice: the step is neither predicted nor taken and undone. It is taken by a copy of
the optimizer on copies of its parameters, so that weights, moments and counters of the training
are never written to, whatever the optimizer does and even if it fails.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.seeds import preserved_random_state
from leadline.core.taps import Taps, plain_name
from leadline.measure.batch import Loss, read_batch, trainable
from leadline.measure.gradients.gradients import gradients_of, relative_size
from leadline.measure.magnitudes import tensor_norms


def update_ratio(
    model: nn.Module,
    batch: Any = None,
    *,
    optimizer: torch.optim.Optimizer,
    loss: Loss | None = None,
) -> Profile:
    """How far the next step of `optimizer` would move each trainable parameter of `model`.

    The step follows the gradient of `batch`; without one, the gradients that the parameters hold,
    as they do between `loss.backward()` and `optimizer.step()`. Columns: `update_norm`,
    `weight_norm`, their `ratio` (infinite for a parameter at 0), and `in_optimizer`, 1 for a
    parameter that the optimizer moves and 0 for one that it does not know. A parameter without a
    gradient has update_norm 0 in most optimizers. Raises MeasurementError when there is no gradient
    at all, none of the parameters is the optimizer's, or its step fails (L-BFGS wants a closure).

    Cost: 1 forward-backward pass (none without `batch`), one step, and for its duration the memory
    of one more copy of the weights, the gradients and the optimizer's state.

    How to read it: 10^-4 to 10^-2 is healthy for matrices at a usual learning rate; parameters that
    start at 0, above all biases, have large ratios at first.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 0.5)
    >>> descent = torch.optim.SGD(model.parameters(), lr=0.01)
    >>> profile = update_ratio(
    ...     model, torch.ones(1, 2), optimizer=descent, loss=lambda outputs, targets: outputs.sum()
    ... )
    >>> [round(value, 6) for value in profile.column("ratio")]
    [0.02]
    """
    wanted = trainable(model)
    gradients = _gradients(model, wanted, batch, loss)
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    moved = {name: parameter for name, parameter in wanted.items() if id(parameter) in known}
    if not moved:
        raise MeasurementError(
            expected="an optimizer of this model's parameters",
            received=f"{type(optimizer).__name__}, which has none of them",
            remedy="make the optimizer after the model is complete and on its device",
        )
    after = step_of_a_copy(optimizer, gradients)
    differences = tensor_norms([after[id(p)].detach() - p.detach() for p in moved.values()])
    updates = dict(zip(moved, differences, strict=True))
    weights = tensor_norms([parameter.detach() for parameter in wanted.values()])
    norms = tuple(updates.get(name, math.nan) for name in wanted)
    return Profile(
        name="update-to-weight ratio",
        unit="ratio: 1; update_norm and weight_norm: the weight's own",
        reading="a ratio of 10^-4 to 10^-2 is healthy for matrices; in_optimizer 0 is a parameter "
        "that no step will move",
        layers=tuple(plain_name(name) for name in wanted),
        values={
            "update_norm": norms,
            "weight_norm": tuple(weights),
            "ratio": tuple(relative_size(*pair) for pair in zip(norms, weights, strict=True)),
            "in_optimizer": tuple(float(name in moved) for name in wanted),
        },
    )


def _gradients(
    model: nn.Module,
    wanted: Mapping[str, nn.Parameter],
    batch: Any,
    loss: Loss | None,
) -> dict[int, Tensor]:
    """The gradient of each parameter that has one, by the parameter's identity."""
    parameters = list(wanted.values())
    if batch is None:
        found: list[Tensor | None] = [parameter.grad for parameter in parameters]
        if all(gradient is None for gradient in found):
            raise MeasurementError(
                expected="parameters that hold gradients, or a batch to compute them from",
                received="neither",
                remedy="pass a batch, or call this between loss.backward() and optimizer.step()",
            )
    else:
        given = read_batch(batch, model=model)
        with Taps(model), torch.enable_grad():
            found = gradients_of(given.loss(model, loss), parameters)
    pairs = zip(parameters, found, strict=True)
    return {id(p): gradient.detach() for p, gradient in pairs if gradient is not None}


def step_of_a_copy(
    optimizer: torch.optim.Optimizer,
    gradients: Mapping[int, Tensor],
    *,
    rates: Sequence[float] | None = None,
) -> dict[int, Tensor]:
    """The optimizer's parameters as one step would leave them, by identity of the originals.

    `gradients` are by identity too; `rates`, one a parameter group, replace the present ones.

    >>> weight = nn.Parameter(torch.ones(1))
    >>> descent = torch.optim.SGD([weight], lr=0.5)
    >>> step_of_a_copy(descent, {id(weight): torch.ones(1)})[id(weight)].item(), weight.item()
    (0.5, 1.0)
    """
    copies: dict[int, nn.Parameter] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            twin = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            gradient = gradients.get(id(parameter))
            twin.grad = None if gradient is None else gradient.clone()
            copies[id(parameter)] = twin
    try:
        # The copies stand in for the originals wherever a deep copy comes upon one of these.
        # Dropped by torch: the hooks of the optimizer, and a schedule's wrapping of its step.
        twin_optimizer = copy.deepcopy(optimizer, dict(copies))
        if rates is not None:
            for group, rate in zip(twin_optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        with torch.no_grad(), preserved_random_state():
            twin_optimizer.step()
    except Exception as error:
        raise MeasurementError(
            expected="an optimizer that can be copied and steps without a closure",
            received=f"{type(error).__name__} from {type(optimizer).__name__}: {error}",
            remedy="measure with another optimizer, such as the SGD or AdamW it begins with",
        ) from error
    return dict(copies)
