"""Determinism: whether the same input gives the same output in evaluation mode.

A network in evaluation mode is a function. If a second pass differs although every random stream
stands where it stood, something else enters (a clock, a set's order, a racing kernel); if it
differs only when the streams have moved on, something still draws: a dropout that does not know
the mode, which is what `F.dropout(x)` without `training=self.training` is. And where training mode
neither draws nor gathers statistics, both modes have to be the same function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.errors import LeadlineError
from leadline.core.seeds import (
    RandomState,
    capture_random_state,
    restore_random_state,
    seed_everything,
)
from leadline.core.taps import Taps
from leadline.measure.batch import Batch, main_output, read_batch

EXAMPLES = 2
"""How many examples are passed again: enough to see a difference, cheap enough to always look."""


@dataclass(frozen=True, kw_only=True)
class Determinism:
    """The largest difference between outputs that should agree, over the largest output.

    `repeated`: the same random streams; `redrawn`: other streams; `zeros_finite`: whether an
    input of zeros, as padding makes it, gives a finite output (None for inputs that are integers);
    `modes`: training against evaluation mode, None where they differ by design: where a pass in
    training mode draws random numbers, changes a buffer, fails, or returns something of another
    shape.
    """

    repeated: float
    redrawn: float
    zeros_finite: bool | None
    modes: float | None = None


def determinism(model: nn.Module, batch: Any, *, seed: int = 0) -> Determinism:
    """Pass two examples three times in evaluation mode, once as zeros, and in training mode.

    Cost: 5 to 6 forward passes of two examples. Read it: anything above rounding (1e-5) in
    `repeated` cannot be reproduced, in `redrawn` is random in evaluation, in `modes` is another
    function in evaluation.

    >>> determinism(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), torch.ones(2, 2))
    Determinism(repeated=0.0, redrawn=0.0, zeros_finite=True, modes=None)
    """
    given = read_batch(batch, model=model).first(EXAMPLES)
    with Taps(model), torch.no_grad():
        model.eval()
        start = capture_random_state()
        first = _answer(model, given)
        restore_random_state(start)
        again = _answer(model, given)
        seed_everything(seed + 1)
        other = _answer(model, given)
        blank = None
        if all(tensor.is_floating_point() for tensor in given.inputs) and given.inputs:
            blank = _survives_zeros(model, given)
        modes = _between_modes(model, given)
    return Determinism(
        repeated=_difference(first, again),
        redrawn=_difference(first, other),
        zeros_finite=blank,
        modes=modes,
    )


def _between_modes(model: nn.Module, batch: Batch) -> float | None:
    start = capture_random_state()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    try:
        # With gradients: without them torch's Transformer layers take a shorter way in evaluation
        # mode, which fills the padding with zeros.
        with torch.enable_grad():
            trained = _answer(model, batch)
            if not _same(start, capture_random_state()):
                return None
            if any(not torch.equal(b, buffers[n]) for n, b in model.named_buffers()):
                return None
            model.eval()
            evaluated = _answer(model, batch)
    except (LeadlineError, RuntimeError, ValueError):
        return None  # in evaluation mode the model ran: training may need more than two examples
    return _difference(evaluated, trained) if evaluated.shape == trained.shape else None


def _same(first: RandomState, second: RandomState) -> bool:
    """Whether nobody has drawn: torch compares tensors by element, so field by field."""
    for entry in fields(RandomState):
        one, other = getattr(first, entry.name), getattr(second, entry.name)
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else ((one, other),)
        for a, b in pairs:
            if not (torch.equal(a, b) if isinstance(a, Tensor) else a == b):
                return False
    return True


def _answer(model: nn.Module, batch: Batch) -> Tensor:
    # A copy is handed in: a model may write into its input.
    inputs = (tensor.clone() for tensor in batch.inputs)
    return main_output(batch.with_inputs(*inputs).forward(model)).detach().clone()


def _survives_zeros(model: nn.Module, batch: Batch) -> bool:
    zeros = (torch.zeros_like(tensor) for tensor in batch.inputs)
    return bool(torch.isfinite(main_output(batch.with_inputs(*zeros).forward(model))).all())


def _difference(first: Tensor, second: Tensor) -> float:
    if first.shape != second.shape:
        return math.inf
    size = float(first.abs().max())
    difference = float((first - second).abs().max())
    if math.isnan(difference):
        same = torch.equal(torch.isnan(first), torch.isnan(second))
        return 0.0 if same else math.inf
    return difference / size if size else difference
