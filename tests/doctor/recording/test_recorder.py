"""Tests that parts of a model belong to it, and that events are counted."""

from __future__ import annotations

import torch
from torch import nn

from leadline.doctor.recording.recorder import Recorder, parts_of


def test_a_part_of_a_known_model_is_that_model() -> None:
    recorder = Recorder()
    whole = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    recorder.know_root(whole)
    card = recorder.model(whole[0])
    assert card.reference() is whole and not card.whole
    assert recorder.model(whole) is card


def test_events_are_counted_and_can_be_added_to() -> None:
    recorder = Recorder()
    recorder.emit("seeded", seed=1)
    event = recorder.emit("step", 0, lr=(0.1,))
    recorder.amend(event.index, changed=0.5)
    assert (event.index, event["changed"], recorder.events[0]["seed"]) == (1, 0.5, 1)


def test_the_first_steps_are_looked_at_and_then_every_tenth() -> None:
    recorder = Recorder()
    looked = []
    for recorder.updates in range(41):
        looked += [recorder.updates] if recorder.close else []
    assert looked == [*range(16), 20, 30, 40]


def test_the_parts_of_a_batch_are_its_tensors_in_order() -> None:
    one, other = torch.ones(1), torch.zeros(2)
    assert parts_of({"a": one, "b": (other, "text")}) == (one, other)
