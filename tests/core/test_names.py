"""Tests of names looked up in a list."""

from __future__ import annotations

import pytest

from leadline.core.errors import UnknownNameError
from leadline.core.names import did_you_mean, look_up


def test_a_known_name_gives_its_entry() -> None:
    assert look_up("b", {"a": 1, "b": 2}, kind="letter") == 2


def test_an_unknown_name_is_told_with_the_list_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        look_up("rleu", {"relu": 1, "gelu": 2}, kind="activation")
    assert str(caught.value) == (
        "expected the name of a known activation: gelu, relu\n"
        "received 'rleu' (did you mean 'relu'?)\n"
        "do this  use one of the names above for the activation"
    )


def test_the_hint_ignores_case_and_keeps_the_spelling_of_the_list() -> None:
    assert did_you_mean("cifar10", ["CIFAR10", "mnist"]) == " (did you mean 'CIFAR10'?)"


def test_a_name_like_none_of_the_list_gets_no_hint() -> None:
    assert did_you_mean("zebra", ["relu", "gelu"]) == ""
    assert did_you_mean("zebra", []) == ""
