"""Tests that everything between the loss and the new weights is heard."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from leadline.doctor.record import record


def test_clipping_is_heard_under_a_name_that_was_imported_before() -> None:
    model = nn.Linear(2, 1)
    with record() as tape:
        clip_grad_norm_(model.parameters(), 0.1)
        model(torch.ones(1, 2)).sum().backward()
        found = clip_grad_norm_(model.parameters(), max_norm=0.1)
    first, last = tape.of("clip")
    assert (first["present"], last["present"], last["most"]) == (False, True, 0.1)
    assert float(last["norm"]) == float(found) == pytest.approx(3**0.5)


@pytest.mark.parametrize(
    ("factor", "below"),
    [(0.25, "cross_entropy"), (-1.0, "cross_entropy"), (1.0, "cross_entropy")],
)
def test_the_factor_before_a_loss_is_found(factor: float, below: str) -> None:
    model, loss = nn.Linear(2, 3), nn.CrossEntropyLoss()
    with record() as tape:
        value = loss(model(torch.ones(4, 2)), torch.zeros(4, dtype=torch.long))
        {0.25: value / 4, -1.0: -value, 1.0: value}[factor].backward()
    (event,) = tape.of("backward")
    assert (event["factor"], event["below"]) == (factor, below)


def test_a_scaled_loss_is_the_loss() -> None:
    model = nn.Linear(2, 1)
    scaler = torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record() as tape:
        loss = nn.functional.mse_loss(model(torch.ones(4, 2)), torch.ones(4, 1)) / 2
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    (event,) = tape.of("backward")
    assert (event["factor"], event["below"]) == (0.5, "mse_loss")
    kinds = [e.kind for e in tape.events]
    assert kinds == ["forward", "backward", "unscale", "step", "scale_update"]


def test_what_a_closure_does_is_inside_of_its_step() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(1, 2)).square().sum()
        loss.backward()
        return loss

    with record() as tape:
        optimizer.step(closure)
    assert tape.events[0].kind == "step"
    assert all(event.closure for event in tape.events[1:])


def test_a_schedule_inside_of_another_is_known_as_such() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record() as tape:
        kinds = torch.optim.lr_scheduler
        inner = kinds.ConstantLR(optimizer), kinds.ExponentialLR(optimizer, 0.9)
        outer = kinds.SequentialLR(optimizer, list(inner), milestones=[2])
        optimizer.step()
        outer.step()
    assert [(c.name, c.inside) for c in tape.schedules] == [
        ("ConstantLR", True),
        ("ExponentialLR", True),
        ("SequentialLR", False),
    ]
    assert [event.subject for event in tape.of("schedule")] == [2]
