"""An exponential moving average of the weights, which often tests better than the last weights.

After update number n = 0, 1, …, with d = min(decay, (1 + n) / (10 + n)),

    average <- d average + (1 - d) weights

(Polyak and Juditsky 1992; the rising decay, so that the random initial weights are soon forgotten,
is that of TensorFlow's ExponentialMovingAverage.) All weights move in one `_foreach_lerp_`.

The surprising choice is about buffers. The running mean and variance of batch norms are averaged
with the same decay, since they have to describe the averaged weights, which lag; every other
buffer is copied, since the average of a counter or of a mask with infinities is nonsense.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.config import check, in_range
from leadline.core.errors import ModelError
from leadline.optim.groups import BATCH_NORMS, INSTANCE_NORMS

AVERAGED = (*BATCH_NORMS, *INSTANCE_NORMS)
"""The modules whose floating-point buffers are running statistics."""


class Average:
    """The running average of a model's weights, as a model of its own.

    Make it once the model is on its device and in its memory format; call `update` after each
    optimizer step. `model` is a frozen copy in evaluation mode that always holds the average, in
    the source's layout. `decay` is in [0, 1): about 1 / (1 - decay) steps are remembered. Weights
    of less than float32 precision are a ModelError: an average could not move in them.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> average = Average(model, decay=0.999)
    >>> _ = nn.init.ones_(model.weight)
    >>> average.update()
    >>> round(average.model.weight.item(), 6)  # the first decay is (1 + 0) / (10 + 0)
    0.9
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        check(self, in_range("decay", decay, 0, 1, open_high=True))
        _refuse_low_precision(model)
        self.decay = decay
        self.updates = 0
        self.model = _frozen_copy(model)
        self._live_parameters = [p for _, p in model.named_parameters()]
        self._parameters = [p.detach() for _, p in self.model.named_parameters()]
        self._live_buffers = _buffer_places(model)
        self._buffers = _buffer_places(self.model)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights by one step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averaged: list[Tensor] = list(self._parameters)
        live: list[Tensor] = list(self._live_parameters)
        for (module, name), (source, _) in zip(self._buffers, self._live_buffers, strict=True):
            target, value = module._buffers[name], source._buffers[name]
            assert target is not None, "only buffers that are there are listed"
            assert value is not None, "the copy has the buffers of its source"
            if isinstance(module, AVERAGED) and target.is_floating_point():
                averaged.append(target)
                live.append(value)
            else:
                target.copy_(value)
        if averaged:
            torch._foreach_lerp_(averaged, live, 1 - decay)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The number of updates and the averaged weights by name: all that `update` depends on."""
        return {"updates": self.updates, "model": dict(self.model.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; one of another model is a ModelError."""
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ModelError(
                expected=f"the averaged weights of this {type(self.model).__name__}",
                received=str(error),
                remedy="resume with the model and options that the state was saved from",
            ) from error
        self.updates = state["updates"]


def _frozen_copy(model: nn.Module) -> nn.Module:
    try:
        frozen = copy.deepcopy(model)
    except (TypeError, RuntimeError) as error:
        raise ModelError(
            expected="a model that can be copied, to hold the average of its weights",
            received=f"{type(model).__name__}: {error}",
            remedy="make the average before the first forward pass, keep locks, files and "
            "computed tensors out of the module's attributes, or train without an average",
        ) from error
    return frozen.requires_grad_(False).eval()


def _buffer_places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where each buffer is kept: `Module.to` replaces buffers, so the tensors may not be held."""
    return [
        (module, name)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]


def _refuse_low_precision(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise ModelError(
                expected="weights in float32 or float64 to average",
                received=f"{parameter.dtype} in {name!r}",
                remedy="keep the weights in float32 and let autocast compute in less, or train "
                "without an average",
            )
