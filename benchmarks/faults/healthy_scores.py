"""Scores for the healthy recipes that `score.py` lacks: shares per answer, and next symbols."""

from __future__ import annotations

import math

import torch
from score import PLAIN, Score, outputs_of
from torch import nn
from torch.nn import functional

from data import Examples


def balanced(examples: Examples) -> Score:
    """The mean of the shares of right answers among the yes and among the no; below 0: no answer.

    Yes is above 0.5 where all outputs lie in [0, 1], and above 0 otherwise, as in `yes_or_no`.
    """
    wanted = examples.targets

    def score(model: nn.Module) -> float:
        outputs = outputs_of(model, examples.inputs, PLAIN)
        inside = bool(((outputs >= 0) & (outputs <= 1)).all())
        yes = outputs > (0.5 if inside else 0)
        return float((yes[wanted > 0.5].float().mean() + (~yes)[wanted == 0].float().mean()) / 2)

    return score


def next_symbol(examples: Examples, *, after: int) -> Score:
    """Nats for symbol number `after` from those before it, which is all the model is shown.

    A model that looks ahead gains nothing: there is nothing ahead.
    """
    wanted = examples.targets[:, after - 1]

    def score(model: nn.Module) -> float:
        outputs = outputs_of(model, examples.inputs[:, :after], PLAIN)
        nats = float(functional.cross_entropy(outputs[:, -1], wanted))
        return nats if math.isfinite(nats) else math.inf

    return score


def masked_binary(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy with logits over the answers that there are (those below 0 are none)."""
    known = targets >= 0
    return functional.binary_cross_entropy_with_logits(outputs[known], targets[known])
