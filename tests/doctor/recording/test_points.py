"""Tests that what is replaced is put back, and that others go past it."""

from __future__ import annotations

import math
import statistics
import threading
from typing import Any

import pytest

from leadline.doctor.recording.points import Points, in_backward


class Bell:
    def ring(self) -> str:
        return "dong"


class LoudBell(Bell):
    def ring(self) -> str:
        return "DONG"


def twice(original: Any, args: Any, kwargs: Any) -> Any:
    return original(*args, **kwargs) * 2


def test_a_class_and_those_below_it_are_replaced_and_put_back() -> None:
    before = Bell.ring, LoudBell.ring
    with pytest.raises(ZeroDivisionError), Points() as points:
        points.around_classes(Bell, "ring", twice)
        assert (Bell().ring(), LoudBell().ring()) == ("dongdong", "DONGDONG")
        raise ZeroDivisionError
    assert (Bell.ring, LoudBell.ring) == before


def test_one_handler_in_another_is_put_back_in_order() -> None:
    before = Bell.ring
    with Points() as outer:
        outer.around(Bell, "ring", twice)
        with Points() as inner:
            inner.around(Bell, "ring", twice)
            assert Bell().ring() == "dong" * 4
        assert Bell().ring() == "dong" * 2
    assert Bell.ring is before


def test_a_function_is_replaced_under_every_name_that_a_module_has_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "root_of_mine", math.sqrt, raising=False)
    with Points() as points:
        points.everywhere(math, "sqrt", twice)
        assert statistics.root_of_mine(4.0) == 4.0  # type: ignore[attr-defined]
    assert statistics.root_of_mine(4.0) == 2.0  # type: ignore[attr-defined]


def test_another_thread_goes_past_the_handler() -> None:
    heard: list[str] = []
    with Points() as points:
        points.around(Bell, "ring", twice)
        thread = threading.Thread(target=lambda: heard.append(Bell().ring()))
        thread.start()
        thread.join()
    assert heard == ["dong"]


def test_outside_of_a_backward_pass_none_is_running() -> None:
    assert not in_backward()
