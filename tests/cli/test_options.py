"""Words become options, and what is wrong with them is said before anything else happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from leadline.cli.options import parse
from leadline.core.config import check, in_range


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Something nested."""

    shape: Literal["round", "square"] = "round"
    """its shape"""
    deep: bool | None = None
    """whether it is deep; None leaves it open"""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Something with options."""

    inner: Inner = Inner()
    """What is inside."""
    count: int = 3
    """how many"""
    place: Path = Path("here")
    """where"""
    flip: bool = False
    """turn it round"""

    def __post_init__(self) -> None:
        check(self, in_range("count", self.count, 1))


def read(*words: str, default: Outer | None = None) -> Outer:
    return parse(Outer, list(words), verb="try", caption="A caption.\n", default=default)


def test_nested_options_need_no_prefix_and_take_their_types() -> None:
    found = read("--shape", "square", "--count=5", "--place", "a/b", "--flip", "--deep", "True")
    inner = Inner(shape="square", deep=True)
    assert found == Outer(inner=inner, count=5, place=Path("a/b"), flip=True)


def test_what_is_not_given_comes_from_the_default() -> None:
    default = Outer(inner=Inner(shape="square"), count=7, flip=True)
    assert read(default=default) == default
    assert read("--no-flip", default=default) == Outer(inner=default.inner, count=7)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--coutn", "5"), "--count"),
        (("--count", "many"), "--count"),
        (("--count", "0"), "count must be >= 1, received 0"),
        (("--shape", "oval"), "'oval'"),
        (("stray",), "stray"),
    ],
)
def test_a_wrong_word_exits_with_2_and_is_named(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        read(*words)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert said in err and "leadline try --help" in err and out == ""


def test_the_help_shows_captions_the_docstrings_of_fields_and_the_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        read("--help", default=Outer(count=7))
    out, err = capsys.readouterr()
    assert stop.value.code == 0 and err == ""
    for text in ("A caption.", "What is inside.", "how many (default: 7)", "{round,square}"):
        assert text in out
