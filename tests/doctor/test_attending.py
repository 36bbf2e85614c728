"""Tests of who looks on while a run trains: when it looks, and what it asks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from leadline.doctor.attending import INTERVAL, SPARING, Attendant, AttendedWatch
from leadline.doctor.symptoms import Symptom
from leadline.doctor.watch import Watch
from leadline.training.step import Step
from leadline.training.train import Validation


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step(index: int, loss: float) -> Step:
    return Step(
        index=index,
        epoch=1,
        loss=torch.tensor(loss),
        lr=0.1,
        examples=1,
        grad_norm=torch.tensor(1.0),
        ends_epoch=False,
    )


def train(attendant: Attendant, losses: list[float], clock: Clock, *, each: float = 0.1) -> None:
    for index, loss in enumerate(losses, start=1):
        clock.now += each
        attendant(step(index, loss), None)


def test_a_symptom_is_asked_about_once() -> None:
    seen: list[Symptom] = []
    clock = Clock()
    attendant = Attendant(seen.append, total_steps=200, clock=clock)
    train(attendant, [2.0] * 10 + [50.0] * 100, clock)
    assert [symptom.kind for symptom in seen] == ["far_above_start"]
    assert attendant.vitals.losses[:11] == [2.0] * 10 + [50.0]


def test_a_healthy_training_is_not_spoken_to() -> None:
    seen: list[Symptom] = []
    clock = Clock()
    attendant = Attendant(seen.append, total_steps=300, clock=clock)
    train(attendant, [2.0 / (1 + n / 20) for n in range(300)], clock)
    assert seen == []


def test_it_looks_now_and_then_and_the_less_the_longer_a_look_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []
    clock = Clock()
    attendant = Attendant(lambda symptom: None, total_steps=0, clock=clock)
    read = attendant.read

    def slowly() -> None:
        looks.append(clock.now)
        clock.now += 0.01
        read()

    monkeypatch.setattr(attendant, "read", slowly)
    train(attendant, [1.0] * 100, clock, each=0.1)
    assert looks[0] == pytest.approx(INTERVAL)
    gaps = [b - a for a, b in itertools.pairwise(looks)]
    assert min(gaps) >= SPARING * 0.01


def test_what_is_raised_in_the_examination_ends_the_training() -> None:
    def stop(symptom: Symptom) -> None:
        raise RuntimeError(symptom.kind)

    clock = Clock()
    attendant = Attendant(stop, total_steps=200, clock=clock)
    with pytest.raises(RuntimeError, match="far_above_start"):
        train(attendant, [2.0] * 10 + [50.0] * 100, clock)


def test_validations_and_the_first_step_are_kept() -> None:
    attendant = Attendant(lambda symptom: None, total_steps=0, metric="accuracy")
    attendant(step(41, 1.0), Validation(epoch=2, step=41, metrics={"accuracy": 0.5}))
    attendant.read()
    assert attendant.vitals.first == 41 and attendant.vitals.step == 41
    assert attendant.vitals.validations == [(41, {"accuracy": 0.5})]


def test_an_attended_watch_hands_on_both_kinds_of_rows_once() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attendant = Attendant(lambda symptom: None, total_steps=0)
    watched = AttendedWatch(Watch(model, optimizer), attendant)
    loss = model(torch.ones(3, 2)).square().mean()
    loss.backward()
    optimizer.step()
    watched.step(loss)
    attendant.told.append({"event": "doctor", "step": 1})
    rows = watched.rows()
    assert [row["event"] for row in rows] == ["watch", "doctor"]
    assert [row["event"] for row in attendant.vitals.watched] == ["watch"]
    assert watched.rows() == []
    watched.close()
    assert not any(module._forward_hooks for module in model.modules())
