"""SIGINT once is heard, twice it interrupts; the handlers are put back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from leadline.training.signals import Stopped, StopRequests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_only_noted(number: int) -> None:
    before = signal.getsignal(number)
    with StopRequests() as requests:
        os.kill(os.getpid(), number)
        assert requests.number == number
    assert signal.getsignal(number) is before


def test_the_second_interrupt_quits_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequests():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_exit_codes_follow_the_shell() -> None:
    assert Stopped(signal.SIGTERM, folder=Path()).exit_code == 143
    assert Stopped(signal.SIGINT, folder=Path()).exit_code == 130
