"""Tests of what is printed."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from leadline.core.errors import DataError, LeadlineError
from leadline.report.terminal import Terminal, error_text
from leadline.training.execution import Execution
from leadline.training.tune import Timing, Tuning


class Recorded(Terminal):
    """A terminal of which everything printed is kept."""

    def __init__(self, *, colours: bool = False, quiet: bool = False) -> None:
        self.out, self.err = StringIO(), StringIO()
        super().__init__(
            quiet=quiet,
            console=Console(file=self.out, force_terminal=colours, width=80),
            errors=Console(file=self.err, force_terminal=colours, width=80),
        )


ERROR = DataError(
    expected="a folder of images, a sub-folder per class, each with an image or more in it",
    received="[red]nothing[/red] at x",
    remedy="check the path",
)


def test_an_error_is_printed_to_stderr_in_its_three_parts() -> None:
    terminal = Recorded()
    terminal.error(ERROR)
    assert terminal.out.getvalue() == ""
    assert terminal.err.getvalue() == (
        "error     DataError\n"
        "expected  a folder of images, a sub-folder per class, each with an image or more in it\n"
        "received  [red]nothing[/red] at x\n"
        "do this   check the path\n"
    )


def test_colours_go_to_terminals_only() -> None:
    plain, coloured = Recorded(), Recorded(colours=True)
    plain.error(ERROR)
    coloured.error(ERROR)
    assert "\x1b[" not in plain.err.getvalue()
    assert "\x1b[" in coloured.err.getvalue()


def test_an_error_as_text_has_every_word_of_the_error() -> None:
    error = LeadlineError(expected="e", received="r", remedy="d")
    assert error_text(error).plain.split() == [
        "error",
        "LeadlineError",
        "expected",
        "e",
        "received",
        "r",
        "do",
        "this",
        "d",
    ]


def test_the_data_and_the_reason_for_the_model_are_told(finished: Any) -> None:
    terminal = Recorded()
    terminal.found(finished.dataset, reason="mlp, [because]")
    lines = terminal.out.getvalue().splitlines()
    assert lines[0] == (
        "data      digits: 1,293 training, 145 validation, 359 test images, grey, 8 × 8 pixels, "
        "10 classes"
    )
    assert lines[1] == "model     mlp, [because]"
    assert len(lines) == 2 + len(finished.dataset.notes)


def test_the_tuned_execution_is_told_with_what_it_gains() -> None:
    best = Execution(precision="bfloat16")
    tuning = Tuning(
        execution=best,
        examples_per_second=12345.6,
        timings=(Timing(execution=Execution(), seconds=0.3), Timing(execution=best, seconds=0.1)),
    )
    terminal = Recorded()
    terminal.tuned(tuning)
    assert terminal.out.getvalue() == (
        "computed  cpu, bfloat16, contiguous, eager: about 12,346 examples/s, "
        "3.0 × the plain default\n"
    )


def test_a_single_timing_is_no_gain() -> None:
    timing = Timing(execution=Execution(), seconds=0.3)
    terminal = Recorded()
    terminal.tuned(Tuning(execution=Execution(), examples_per_second=10, timings=(timing,)))
    assert "×" not in terminal.out.getvalue()


def test_the_end_says_result_time_and_places(finished: Any) -> None:
    terminal = Recorded()
    terminal.finished(finished.run)
    printed = terminal.out.getvalue()
    assert f"test      accuracy {100 * finished.result.accuracy:.1f} %\n" in printed
    assert "time      1.2 s, " in printed
    assert f"report    {finished.run.report_file}\n" in printed
    assert f"model     {finished.run.model_file}\n" in printed


def test_a_stop_says_how_to_go_on() -> None:
    terminal = Recorded()
    terminal.stopped(15)
    assert "SIGTERM" in terminal.err.getvalue()
    assert "--resume" in terminal.err.getvalue()


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_terminal_says_nothing_but_errors(finished: Any, quiet: bool) -> None:
    terminal = Recorded(quiet=quiet)
    terminal.found(finished.dataset, reason="r")
    terminal.finished(finished.run)
    terminal.error(ERROR)
    assert (terminal.out.getvalue() == "") is quiet
    assert "DataError" in terminal.err.getvalue()
