"""Tests that evaluations are told from the calls that belong to a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leadline.doctor.record import record
from leadline.doctor.recording.evaluations import evaluations

ROWS = torch.randn(40, 3)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor) -> None:
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


def test_an_evaluation_knows_which_of_its_examples_were_trained_on() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record() as tape:
        for _ in range(2):
            for inputs in ROWS[:30].split(10):
                step(model, optimizer, inputs)
            model.eval()
            with torch.no_grad():
                for inputs in ROWS[25:].split(5):
                    model(inputs)
            model.train()
    phases = evaluations(tape)
    assert [len(phase.calls) for phase in phases] == [3, 3]
    assert [phase.seen for phase in phases] == [1 / 3, 1 / 3]
    assert all(phase.held_out and phase.repeated == 0 for phase in phases)


def test_a_call_without_gradients_within_each_step_is_none() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record() as tape:
        for inputs in ROWS.split(2):
            with torch.no_grad():
                model(inputs)
            step(model, optimizer, inputs)
    assert evaluations(tape) == []
