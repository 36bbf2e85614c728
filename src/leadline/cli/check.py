"""leadline check FILE.py:function | RECIPE: what is wrong with a network before it trains."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.text import Text

from leadline.cli.options import parse
from leadline.doctor.check import Checkup, check
from leadline.recipes.subject import Subject, read_subject

COLOURS = {"ERROR": "bold red", "WARNING": "bold yellow", "NOTE": "bold cyan"}


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The words after `leadline check`."""

    subject: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUBJECT")]
    """FILE.py:function that returns (model, batch, loss) or a Setup; a recipe, run or data path"""
    device: str = "auto"
    """where a recipe is checked: auto, cpu, cuda, mps"""
    strict: bool = False
    """exit with 1 when there is an error among the findings, for use in CI"""


def run(words: list[str], *, as_json: bool) -> int:
    """Check; the exit code."""
    options = parse(CheckOptions, words, verb="check", caption=__doc__ or "")
    checkup = _check(read_subject(options.subject, device=options.device))
    if as_json:
        print(json.dumps({"subject": options.subject, **checkup.to_plain()}))
    else:
        _print(checkup)
    failed = any(finding.severity == "error" for finding in checkup.findings)
    return 1 if options.strict and failed else 0


def _check(subject: Subject) -> Checkup:
    if subject.setup is not None:
        return check(subject.setup)
    assert subject.model is not None
    return check(subject.model, subject.batch, subject.loss, optimizer=subject.optimizer)


def _print(checkup: Checkup) -> None:
    console = Console(highlight=False)
    for line in str(checkup).splitlines():
        text = Text(line)
        word = line.split(" ", 1)[0]
        if word in COLOURS:
            text.stylize(COLOURS[word], 0, len(word))
        elif line.lstrip().startswith("▶"):
            text.stylize("bold")
        console.print(text, soft_wrap=True)
