"""Tests that the lines to be copied do what they say."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leadline.report.usage import predict_command, predict_lines, repeat_command, usage_section
from leadline.training.run import Run


def test_the_three_lines_of_python_name_the_class_of_an_image(
    finished: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    run = finished.run  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((12, 9, 3), dtype=np.uint8)).save("image.png")
    lines = predict_lines(run)
    assert lines.count("\n") == 2
    exec(lines, {})
    printed = capsys.readouterr().out  # type: ignore[attr-defined]
    assert re.search(r"classes=\(\('\d', [\d.]+\)", printed)


def test_a_folder_with_blanks_and_quotes_stays_one_word() -> None:
    run = Run(Path("my runs/it's-001"))
    assert shlex.split(predict_command(run)) == [
        "leadline",
        "predict",
        "my runs/it's-001",
        "image.png",
    ]
    assert shlex.split(repeat_command(run))[2] == "my runs/it's-001/recipe.json"


def test_the_page_shows_the_commands_as_they_are() -> None:
    run = Run(Path("runs/<a>&b"))
    shown = html.unescape(" ".join(re.findall(r"<code>(.*?)</code>", usage_section(run), re.S)))
    assert predict_command(run) in shown
    assert predict_lines(run) in shown
    assert repeat_command(run) in shown
