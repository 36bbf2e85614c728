"""What a person reads in the terminal: what was found, what came out, what went wrong.

Results go to stdout, errors to stderr, colours only to a terminal. Names of files and classes are
printed as they are: rich's own markup is never read from them.
"""

from __future__ import annotations

import signal

from rich.console import Console
from rich.text import Text

from leadline.core.errors import LeadlineError
from leadline.data.examples import Dataset
from leadline.report.numbers import count, duration, number, percent, plural
from leadline.report.usage import predict_command
from leadline.training.run import Run
from leadline.training.tune import Tuning

LABEL = 10
"""Width of the words at the start of a line."""


class Terminal:
    """Prints for people; `quiet` keeps everything but errors to itself.

    >>> from io import StringIO
    >>> terminal = Terminal(console=Console(file=StringIO()))
    >>> terminal.say("model", "convnet")
    >>> terminal.console.file.getvalue()
    'model     convnet\\n'
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        console: Console | None = None,
        errors: Console | None = None,
    ) -> None:
        self.quiet = quiet
        self.console = console or Console(highlight=False)
        self.errors = errors or Console(stderr=True, highlight=False)

    def say(self, label: str, text: str, *, style: str = "") -> None:
        """One line: a word that says what it is about, and the text."""
        if self.quiet:
            return
        line = Text.assemble((f"{label:<{LABEL}}", "dim"), (text, style))
        self.console.print(line, soft_wrap=True, highlight=False)

    def found(self, dataset: Dataset, *, reason: str) -> None:
        """The data and the model chosen for them, then whatever was noticed about the data."""
        channels, height, width = dataset.shape
        kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
        splits = {"training": dataset.train, "validation": dataset.val, "test": dataset.test}
        sizes = ", ".join(f"{count(len(split))} {name}" for name, split in splits.items())
        classes = plural(dataset.num_classes, "class")
        shape = f"{kind}, {width} × {height} pixels"
        self.say("data", f"{dataset.name}: {sizes} images, {shape}, {classes}")
        self.say("model", reason)
        for note in dataset.notes:
            self.say("note", note, style="dim")

    def tuned(self, tuning: Tuning) -> None:
        """The execution that tuning kept, its speed, and what that gains over the plain one."""
        plain = tuning.timings[0].seconds if len(tuning.timings) > 1 else None
        kept = [t.seconds for t in tuning.timings if t.execution == tuning.execution and t.seconds]
        gain = f", {plain / min(kept):.1f} × the plain default" if plain and kept else ""
        self.say(
            "computed",
            f"{tuning.execution.describe()}: about {number(tuning.examples_per_second)} "
            f"examples/s{gain}",
        )

    def finished(self, run: Run) -> None:
        """The test result, how long it took, and where everything lies."""
        end = run.event("end") or {}
        metrics = end.get("metrics", {})
        if "accuracy" in metrics:
            self.say("test", f"accuracy {percent(metrics['accuracy'])}", style="bold")
        if end.get("seconds") is not None:
            self.say("time", f"{duration(end['seconds'])}, {plural(end['step'], 'step')}")
        self.say("model", str(run.model_file))
        self.say("report", str(run.report_file))
        self.say("try", predict_command(run))

    def stopped(self, number: int, *, run: str = "RUN") -> None:
        """A signal ended the training, after saving; `run` is how to name its folder."""
        name = signal.Signals(number).name
        text = f"{name}: the training is saved; go on with leadline train --resume {run}"
        self.errors.print(Text(text), soft_wrap=True)

    def error(self, error: LeadlineError) -> None:
        """What was expected, what came, and what to do, on stderr."""
        self.errors.print(error_text(error), soft_wrap=True, highlight=False)


def error_text(error: LeadlineError) -> Text:
    """An error in three parts, one below the other, with the labels in colour.

    >>> error = LeadlineError(expected="a folder", received="a file", remedy="check the path")
    >>> print(error_text(error))
    error     LeadlineError
    expected  a folder
    received  a file
    do this   check the path
    """
    lines = [
        ("error", type(error).__name__, "bold red"),
        ("expected", error.expected, "green"),
        ("received", error.received, "yellow"),
        ("do this", error.remedy, "bold cyan"),
    ]
    text = Text()
    for index, (label, content, style) in enumerate(lines):
        text.append(("\n" if index else "") + f"{label:<{LABEL}}", style=style)
        text.append(content)
    return text
