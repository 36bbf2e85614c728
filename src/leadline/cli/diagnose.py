"""leadline diagnose RUN | RECIPE | FILE.py:function: why a training does not do better, proven.

Each cause is proven by a trial: copies trained for a few steps with and without the remedy.
FILE.py:function returns a Setup or (model, batch, loss), or trains: then it is recorded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

from leadline.cli.options import parse
from leadline.core.config import check, in_range
from leadline.core.errors import LeadlineError
from leadline.doctor.diagnosis_words import describe_diagnosis
from leadline.recipes.diagnose import Bounds, Diagnosed, diagnose_subject
from leadline.recipes.subject import Subject, read_subject
from leadline.recipes.treat import Treatment, treat_recipe, treat_setup, treatable
from leadline.report.diagnosis import keep_diagnosis, write_diagnosis
from leadline.report.terminal import Terminal

COLOURS = {"ERROR": "bold red", "WARNING": "bold yellow", "NOTE": "bold cyan"}
WIDEST = 100
"""Columns that are used, at most: longer lines are hard to read."""


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions:
    """The words after `leadline diagnose`."""

    subject: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUBJECT")]
    """a run's folder, a recipe, a path to data, or FILE.py:function"""
    steps: int | None = None
    """steps that the trials may take together; as many as the seconds allow when not given"""
    seconds: float | None = None
    """seconds that it may take; 15 % of the training, but 60 at least, when not given"""
    treat: bool = False
    """apply what is proven, train it to its end beside the training as it is, and compare"""
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """write the diagnosis as a page; for a run it is written into its folder in any case"""
    strict: bool = False
    """exit with 1 when there is an error among the findings, for use in CI"""
    rerun: bool = False
    """your training function may be run again, with a remedy applied, where only that is a proof"""
    device: str = "auto"
    """where a recipe is trained: auto, cpu, cuda, mps"""

    def __post_init__(self) -> None:
        check(
            self,
            in_range("steps", self.steps, 1),
            in_range("seconds", self.seconds, 0, open_low=True),
        )


def run(words: list[str], *, as_json: bool) -> int:
    """Diagnose; the exit code."""
    options = parse(DiagnoseOptions, words, verb="diagnose", caption=__doc__ or "")
    subject = read_subject(options.subject, device=options.device, call=False)
    bounds = Bounds(steps=options.steps, seconds=options.seconds, rerun=options.rerun)
    diagnosed = diagnose_subject(subject, bounds=bounds)
    plain = diagnosed.to_plain()
    if not as_json:
        show(plain)
    pages = _write(subject, plain, options.html)
    terminal = Terminal(quiet=as_json)
    for page in pages:
        terminal.say("page", str(page))
    treated, code = None, 0
    try:
        treatment = _treat(subject, diagnosed, terminal=terminal) if options.treat else None
        treated = treatment.to_plain() if treatment is not None else None
    except LeadlineError as error:
        if not as_json:
            raise
        treated, code = error.to_plain(), 1  # what was found before is told all the same
    if as_json:
        written = [str(page) for page in pages]
        said = {"subject": options.subject, **plain, "html": written, "treatment": treated}
        print(json.dumps(said))
    failed = any(f.severity == "error" for f in diagnosed.diagnosis.findings)
    return code or (1 if options.strict and failed else 0)


def _write(subject: Subject, plain: dict[str, Any], html: Path | None) -> list[Path]:
    """Write the pages: into the folder of a run, and where it was asked for."""
    pages = [keep_diagnosis(subject.run, plain)] if subject.run is not None else []
    if html is not None:
        pages.append(write_diagnosis(html, plain, name=subject.name))
    return pages


def _treat(subject: Subject, diagnosed: Diagnosed, *, terminal: Terminal) -> Treatment | None:
    """Train healed and sick, and say what each came to; None where there is nothing to treat."""
    diagnosis = diagnosed.diagnosis
    if diagnosis.healthy:
        terminal.say("treat", "there is nothing to treat")
        return None
    if subject.prepared is not None:
        run = subject.run
        treatment = treat_recipe(
            subject.prepared,
            diagnosis,
            run=run,
            root=run.folder.parent if run is not None else Path("runs"),
            device=subject.device,
            terminal=terminal,
        )
    else:
        treatment = treat_setup(treatable(diagnosed.setup), diagnosis)
    if not terminal.quiet:
        print(treatment)
    return treatment


def show(plain: dict[str, Any]) -> None:
    """Print a diagnosis, in colours where there is a terminal."""
    console = Console(highlight=False)
    for line in describe_diagnosis(plain, width=min(console.width, WIDEST)).splitlines():
        console.print(_coloured(line), soft_wrap=True)


def _coloured(line: str) -> Text:
    text = Text(line)
    word = line.split(" ", 1)[0]
    bare = line.lstrip()
    if word in COLOURS:
        text.stylize(COLOURS[word], 0, len(word))
        text.stylize("bold", len(word), line.index(":") if ":" in line else len(line))
    elif bare.startswith(("+ ", "- ")) and line.startswith("        "):
        text.stylize("green" if bare[0] == "+" else "red")
    elif line.startswith("        ") and line[8:17].strip():
        text.stylize("dim", 8, 17)
    return text
