"""Events: what a recording keeps of a loop, in its real order.

An event says what happened (`kind`), to which object (`subject`, its number in the tape's list of
that kind, -1 where it is not known), and the figures (`facts`). What each kind knows:

    forward        model      training, grad, examples, kept, loader, drawn, rows, autocast,
                              noisy and quiet: layers in training and in evaluation mode
    backward       models     loss, connected, stale, names, forwards, factor, below, problem
    zero_grad      optimizer or model (`of`)      lost: whether unused gradients went
    clip           optimizer  method, most, norm, present
    step           optimizer  lr, norm, given, empty, stale, changed, relative
    optimizer_made, scheduler_made                the number of the new object
    schedule       schedule   lr
    unscale, scale_update     the gradient scaler's `scale`
    mode           model      training
    state_taken, state_loaded model               state: which; own: is it the model's own memory
    epoch_begun, epoch_ended  loader              data, batches
    worker         loader     worker, epoch, streams
    seeded         -          seed, in_loader
    stream_restored -         since the seed before it no batch was drawn: that seed is over
    threshold      model      value, function, lowest, highest
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
    "epoch_begun",
    "epoch_ended",
    "seeded",
    "stream_restored",
    "threshold",
    "worker",
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
