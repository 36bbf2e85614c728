"""Tests of the exception tree."""

from __future__ import annotations

import inspect
import re

import pytest

from leadline.core import errors
from leadline.core.errors import ConfigError, LeadlineError, RunLockedError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_what_was_expected_what_came_and_what_to_do(
    kind: type[LeadlineError],
) -> None:
    error = kind(expected="a folder", received="a file", remedy="pass its parent")
    assert str(error) == "expected a folder\nreceived a file\ndo this  pass its parent"
    assert (error.expected, error.received, error.remedy) == (
        "a folder",
        "a file",
        "pass its parent",
    )


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"([│ ]*)(├── |└── )?(\w+Error)\b", line):
            depth = len(match[1]) // 4 + bool(match[2])
            path[depth:] = [match[3]]
            drawn[match[3]] = path[-2] if depth else "Exception"
    assert drawn == {kind.__name__: kind.__mro__[1].__name__ for kind in CLASSES}


def test_one_except_clause_catches_them_all() -> None:
    with pytest.raises(LeadlineError):
        raise RunLockedError(expected="a free run", received="a locked one", remedy="wait")


def test_a_wrong_option_is_a_value_error_that_lists_its_problems() -> None:
    error = ConfigError(expected="e", received="r", remedy="d", problems=("one", "two"))
    assert isinstance(error, ValueError)
    assert error.problems == ("one", "two")
    assert ConfigError(expected="e", received="r", remedy="d").problems == ("r",)
