"""Tests of the model card."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from leadline.core.errors import FileError
from leadline.report.card import plain, write_card


@pytest.fixture
def written(finished: Any, tmp_path: Path) -> str:
    copy = finished.renamed(tmp_path / "digits-007", finished.dataset.class_names)
    return write_card(copy.run, dataset=copy.dataset, result=copy.result).read_text()


def test_the_head_is_what_the_hub_expects(written: str) -> None:
    head = written.split("---\n")[1]
    assert "library_name: leadline\n" in head
    assert "pipeline_tag: image-classification\n" in head
    assert 'datasets:\n- "digits"\n' in head
    assert re.search(r'model-index:\n- name: "digits-007"\n  results:\n  - task:\n', head)


def test_the_head_is_valid_yaml(written: str) -> None:
    """Read by hand: nested by two blanks, every value a plain word, a number or JSON text."""
    for line in written.split("---\n")[1].splitlines():
        found = re.fullmatch(r" *(- )?([\w-]+):( .+)?| *- (.+)", line)
        assert found, line
        value = (found[3] or found[4] or "").strip()
        assert not value or re.fullmatch(r"[\w.+-]+", value) or isinstance(json.loads(value), str)


def test_the_accuracy_in_the_head_is_the_measured_one(finished: Any, written: str) -> None:
    found = re.search(r"type: accuracy\n +name: .*\n +value: ([\d.]+)", written)
    assert found
    assert float(found[1]) == pytest.approx(finished.result.accuracy, abs=1e-6)


def test_the_card_says_how_many_images_stand_behind_the_figure(finished: Any, written: str) -> None:
    right, total = int(finished.result.confusion.diagonal().sum()), len(finished.targets)
    assert f"It named {right} of {total} test images correctly" in written
    assert "95 % interval of the accuracy" in written


@pytest.mark.parametrize(
    "title", ["Intended use", "Data", "Training", "Results", "Limits", "How to use it"]
)
def test_the_card_has_the_chapters_of_a_model_card(written: str, title: str) -> None:
    assert f"\n## {title}\n" in written


def test_the_commonest_mistakes_are_told_as_limits(finished: Any, written: str) -> None:
    wrong = finished.result.confusion.clone().fill_diagonal_(0)
    true, answer = divmod(int(wrong.argmax()), wrong.shape[1])
    assert f"- It took {true} for {answer} in {int(wrong.max())} of " in written


def test_class_names_cannot_become_markdown_or_html(finished: Any, tmp_path: Path) -> None:
    names = ("<img src=x>", "a|b", "# c", "[d](e)", "`f`", "*g*", "h\n## i", "\udcff", "j", "---")
    copy = finished.renamed(tmp_path / "run", names)
    text = write_card(copy.run, dataset=copy.dataset, result=copy.result).read_text()
    assert "<img" not in text.replace("\\<img", "")
    assert "\n## i" not in text
    assert r"\[d\](e)" in text


@pytest.mark.parametrize("text", ["<b>", "a_b*c", "[x]", "a|b", "`x`", "# x"])
def test_every_special_character_is_escaped(text: str) -> None:
    assert re.sub(r"\\(.)", r"\1", plain(text)) == text
    assert re.sub(r"\\.", "", plain(text)).isalnum() or " " in plain(text)


def test_a_folder_that_is_gone_is_named(finished: Any, tmp_path: Path) -> None:
    copy = finished.renamed(tmp_path / "run", finished.dataset.class_names)
    copy.run.card_file.mkdir()
    with pytest.raises(FileError, match=r"README\.md"):
        write_card(copy.run, dataset=copy.dataset, result=copy.result)
