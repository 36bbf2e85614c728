"""Events: what a recording keeps of a loop, in its real order.

An event says what happened (`kind`), to which object (`subject`, its number in the tape's list of
that kind, -1 where it is not known), and the figures (`facts`). What each kind knows:

    forward        model          training, grad, examples, autocast, idle, batch, loader, used
    backward       model          loss, connected, stale, root, forwards, part, names
    zero_grad      optimizer or model (`of`)     cleared
    clip           optimizer      method, max_norm, norm, before_backward
    step           optimizer      lr, empty, stale, backwards, norm, moved, unmoved
    optimizer_made, scheduler_made               the number of the new object
    schedule       scheduler      lr, before_step
    unscale, scale_update         the gradient scaler's `scale`
    mode           model          training
    state_taken, state_loaded     model          own: whether it shares the model's memory
    epoch_begun, epoch_ended      loader         batches
    seeded         -              seed
    threshold      model          value, function, lowest, highest
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "forward",
    "backward",
    "zero_grad",
    "clip",
    "step",
    "optimizer_made",
    "scheduler_made",
    "schedule",
    "unscale",
    "scale_update",
    "mode",
    "state_taken",
    "state_loaded",
    "state_saved",
    "epoch_begun",
    "epoch_ended",
    "seeded",
    "threshold",
    "batch",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Event:
    """One thing that happened.

    `index` counts the events, `updates` the optimizer steps before it; `closure` tells that it
    happened inside an `optimizer.step(closure)`.
    """

    kind: Kind
    index: int
    updates: int
    subject: int = -1
    closure: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.facts.get(name)
