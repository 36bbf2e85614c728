"""Tests of the Profile."""

from __future__ import annotations

import dataclasses
import json

import pytest

from leadline.core.errors import ConfigError, UnknownNameError
from leadline.core.profile import Profile

NAN, INFINITY = float("nan"), float("inf")


def profile(**values: tuple[float, ...]) -> Profile:
    return Profile(
        name="gradient norm",
        unit="1",
        reading="even over depth is healthy",
        layers=("a", "b", "c"),
        values=values,
    )


def test_the_worst_layer_is_the_largest_or_the_lowest_as_asked() -> None:
    measured = profile(norm=(1.0, 3.0, 2.0))
    assert measured.worst("norm") == ("b",)
    assert measured.worst("norm", count=2) == ("b", "c")
    assert measured.worst("norm", lowest=True, count=2) == ("a", "c")
    assert measured.worst("norm", count=9) == ("b", "c", "a")


def test_nan_is_worse_than_any_number_both_ways() -> None:
    measured = profile(norm=(INFINITY, NAN, -INFINITY))
    assert measured.worst("norm", count=3) == ("b", "a", "c")
    assert measured.worst("norm", lowest=True, count=3) == ("b", "c", "a")


def test_of_equals_the_one_nearer_to_the_input_is_named() -> None:
    assert profile(norm=(1.0, 1.0, 1.0)).worst("norm", lowest=True) == ("a",)


def test_a_column_and_a_layer_are_found_by_name() -> None:
    measured = profile(norm=(1.0, 2.0, 3.0), share=(0.1, 0.2, 0.3))
    assert measured.column("share") == (0.1, 0.2, 0.3)
    assert measured.at("b") == {"norm": 2.0, "share": 0.2}


def test_an_unknown_column_or_layer_gets_did_you_mean() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'norm'"):
        profile(norm=(1.0, 2.0, 3.0)).column("nrom")
    with pytest.raises(UnknownNameError, match="known layer: a, b, c"):
        profile(norm=(1.0, 2.0, 3.0)).at("z")


def test_a_column_of_another_length_is_refused_with_all_other_problems() -> None:
    with pytest.raises(ConfigError) as caught:
        Profile(name="n", unit="1", reading=" ", layers=("a", "a"), values={"v": (1.0,)})
    assert caught.value.problems == (
        "reading must say how to read the values",
        "layers must be named differently",
        "values['v'] must have 2 numbers, one per layer, received 1",
    )


def test_the_plain_form_is_strict_json() -> None:
    plain = profile(norm=(1.0, NAN, -INFINITY)).to_plain()
    assert plain["values"] == {"norm": [1.0, "nan", "-inf"]}
    assert plain["layers"] == ["a", "b", "c"]
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain) == [field.name for field in dataclasses.fields(Profile)]
