"""Tests of configurations: to JSON and back, with every error at once."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.core.config import (
    check,
    from_json,
    from_plain,
    in_range,
    read_text,
    to_json,
    to_plain,
)
from leadline.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    kind: Literal["adam", "sgd"] = "adam"

    def __post_init__(self) -> None:
        check(self, in_range("rate", self.rate, 0, 1, open_low=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    name: str | None = None
    flag: bool = False
    sizes: tuple[int, ...] = ()
    pair: tuple[str, float] = ("a", 1.0)
    inner: Inner = Inner()


def problems_of(plain: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        from_plain(Outer, plain)
    return caught.value.problems


@given(
    st.builds(
        Outer,
        count=st.integers(),
        name=st.none() | st.text(),
        flag=st.booleans(),
        sizes=st.lists(st.integers()).map(tuple),
        pair=st.tuples(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
        inner=st.builds(
            Inner,
            rate=st.floats(min_value=1e-300, max_value=1),
            kind=st.sampled_from(["adam", "sgd"]),
        ),
    )
)
def test_json_gives_back_an_equal_configuration(config: Outer) -> None:
    assert from_json(Outer, to_json(config)) == config


def test_the_json_is_the_plain_nested_object_in_field_order() -> None:
    plain = to_plain(Outer(count=2, sizes=(1, 2)))
    assert list(plain) == ["count", "name", "flag", "sizes", "pair", "inner"]
    assert plain["sizes"] == [1, 2]
    assert plain["inner"] == {"rate": 0.1, "kind": "adam"}
    assert json.loads(to_json(Outer(count=2, sizes=(1, 2)))) == plain


def test_defaults_fill_what_is_missing() -> None:
    assert from_plain(Outer, {"count": 1}) == Outer(count=1)


def test_all_problems_arrive_in_one_error_each_with_its_place() -> None:
    plain = {
        "nmae": "x",
        "flag": 1,
        "sizes": [1, "two"],
        "inner": {"rate": "fast", "kind": "adm"},
    }
    assert problems_of(plain) == (
        "unknown key nmae (did you mean 'name'?)",
        "missing key count",
        "flag must be true or false, received 1 (a whole number)",
        "sizes[1] must be a whole number, received 'two' (text)",
        "inner.rate must be a number, received 'fast' (text)",
        "inner.kind must be one of 'adam', 'sgd', received 'adm' (did you mean 'adam'?)",
    )


def test_a_value_out_of_range_is_told_with_its_place() -> None:
    assert problems_of({"count": 1, "inner": {"rate": 2.0}}) == (
        "inner.rate must be > 0 and <= 1, received 2.0",
    )


@pytest.mark.parametrize(
    ("plain", "problem"),
    [
        ({"count": True}, "count must be a whole number, received True (true or false)"),
        ({"count": 1.5}, "count must be a whole number, received 1.5 (a number)"),
        ({"count": None}, "count must be a whole number, received None (null)"),
        ({"count": 1, "name": 3}, "name must be text, received 3 (a whole number)"),
        ({"count": 1, "sizes": 3}, "sizes must be a list, received 3"),
        ({"count": 1, "pair": ["a"]}, "pair must have 2 entries, received 1"),
        ({"count": 1, "inner": 3}, "inner must be an object, received 3"),
        ([], "Outer must be an object, received []"),
    ],
)
def test_a_value_of_the_wrong_type_is_told(plain: object, problem: str) -> None:
    assert problems_of(plain) == (problem,)


def test_a_whole_number_serves_as_a_number() -> None:
    rate = from_plain(Inner, {"rate": 1}).rate
    assert rate == 1.0
    assert isinstance(rate, float)


def test_text_that_is_no_json_is_told_with_its_source_and_line() -> None:
    with pytest.raises(ConfigError, match=r"received recipe\.json: .* line 1 column 2"):
        from_json(Outer, "{count}", source="recipe.json")


def test_a_configuration_checks_itself_when_it_is_built() -> None:
    with pytest.raises(ConfigError) as caught:
        Inner(rate=-1.0)
    assert str(caught.value) == (
        "expected a valid Inner\n"
        "received 1 problem:\n  - rate must be > 0 and <= 1, received -1.0\n"
        "do this  mend what is listed; the other values are fine"
    )


@pytest.mark.parametrize(
    ("value", "allowed"), [(0.0, False), (0.5, True), (1.0, False), (None, True)]
)
def test_open_ends_are_outside_and_none_is_always_inside(
    value: float | None, allowed: bool
) -> None:
    problem = in_range("p", value, 0, 1, open_low=True, open_high=True)
    assert (problem is None) == allowed


def test_nan_lies_in_no_range() -> None:
    assert in_range("p", float("nan"), 0, 1) == "p must be >= 0 and <= 1, received nan"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "4", 4),
        (float, "0.5", 0.5),
        (bool, "true", True),
        (bool, "False", False),
        (str, "4", "4"),
        (Literal["adam", "sgd"], "sgd", "sgd"),
        (int | None, "none", None),
        (tuple[int, ...], "3,4,6", (3, 4, 6)),
        (tuple[int, ...], "(3, 4)", (3, 4)),
        (tuple[float, ...], "", ()),
    ],
)
def test_a_word_of_the_command_line_is_read_as_its_type(
    kind: object, text: str, value: object
) -> None:
    problems: list[str] = []
    found = read_text(kind, text, place="it", problems=problems)
    assert (found, type(found), problems) == (value, type(value), [])


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (int, "four", "it must be a whole number, received 'four' (text)"),
        (bool, "1", "it must be true or false, received 1 (a whole number)"),
        (tuple[int, ...], "3,x", "it[1] must be a whole number, received 'x' (text)"),
    ],
)
def test_a_word_of_another_type_is_told(kind: object, text: str, problem: str) -> None:
    problems: list[str] = []
    read_text(kind, text, place="it", problems=problems)
    assert problems == [problem]
