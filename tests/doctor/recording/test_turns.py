"""Tests that events are sorted by the optimizer and the step they belong to."""

from __future__ import annotations

import torch
from torch import nn

from leadline.doctor.record import record
from leadline.doctor.recording.turns import models_of, turns_of


def test_each_step_has_what_came_since_the_one_before() -> None:
    models = [nn.Linear(1, 1), nn.Linear(1, 1)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    with record() as tape:
        for _ in range(2):
            for model, optimizer in zip(models, optimizers, strict=True):
                model.zero_grad()
                for _ in range(2):
                    model(torch.ones(1, 1)).sum().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
    first, second = turns_of(tape, 0)
    assert (len(first.backwards), first.step.updates) == (2, 0)
    assert (len(second.backwards), second.step.updates) == (2, 2)
    assert (len(second.zeroed), len(second.clips)) == (1, 1)
    assert [models_of(tape, n) for n in (0, 1)] == [frozenset({0}), frozenset({1})]


def test_what_a_closure_does_belongs_to_its_step() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(torch.ones(1, 1)) - 5).square().sum()
        loss.backward()
        return loss

    with record() as tape:
        for _ in range(2):
            optimizer.step(closure)
    turns = turns_of(tape, 0)
    assert len(turns) == 2 and all(turn.backwards and turn.zeroed for turn in turns)
