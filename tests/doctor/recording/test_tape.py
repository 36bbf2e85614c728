"""Tests that a tape gives events by kind and object, and figures per step."""

from __future__ import annotations

import math

import torch
from torch import nn

from leadline.doctor.record import record


def test_events_are_found_by_kind_and_object() -> None:
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    with record() as tape:
        one(torch.ones(1, 1))
        other(torch.ones(1, 1))
        one(torch.ones(1, 1)).sum().backward()
    assert len(tape.of("forward")) == 3 and len(tape.of("forward", subject=0)) == 2
    assert [event.index for event in tape.of("forward", "backward")] == [0, 1, 2, 3]


def test_losses_are_those_that_backward_was_called_on() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    with record() as tape:
        model(torch.ones(1, 1)).sum().backward()
        (model(torch.ones(1, 1)).sum() * math.inf).backward()
    assert tape.losses == (2.0, math.inf)
    assert tape.moved(0) is False and tape.updates == 0
