"""leadline report RUN: test the run's model anew, and write its report and model card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from leadline.cli.options import parse
from leadline.recipes.finish import rewrite_report
from leadline.training.run import Run


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The words after `leadline report`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """the folder of a finished run"""


def run(words: list[str], *, as_json: bool) -> int:
    """Write the report; the exit code."""
    options = parse(ReportOptions, words, verb="report", caption=__doc__ or "")
    trained = Run.open(options.run)
    metrics = rewrite_report(trained)
    if as_json:
        print(
            json.dumps(
                {
                    "run": str(trained.folder),
                    "report": str(trained.report_file),
                    "card": str(trained.card_file),
                    "metrics": metrics,
                }
            )
        )
    else:
        print(f"report  {trained.report_file}\ncard    {trained.card_file}")
    return 0
