"""Tests that an event gives its figures by name."""

from __future__ import annotations

from leadline.doctor.recording.events import Event


def test_a_figure_that_is_not_known_is_none() -> None:
    event = Event(kind="step", index=3, updates=1, subject=0, facts={"lr": (0.1,)})
    assert event["lr"] == (0.1,) and event["norm"] is None
