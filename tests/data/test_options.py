"""Tests of the data options: wrong values are refused together."""

from __future__ import annotations

import pytest

from leadline.core.config import from_json, to_json
from leadline.core.errors import ConfigError
from leadline.data.options import DataOptions


def test_options_survive_json() -> None:
    options = DataOptions(data="digits", image_size=32, val_fraction=0.25)
    assert from_json(DataOptions, to_json(options)) == options


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        DataOptions(data="", image_size=0, val_fraction=0.0, test_fraction=1.5)
    assert caught.value.problems == (
        "data must be a name or a path, received ''",
        "image_size must be >= 1 and <= 4096, received 0",
        "val_fraction must be > 0 and < 1, received 0.0",
        "test_fraction must be > 0 and < 1, received 1.5",
    )


def test_fractions_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"leave something to train on.*0\.5 \+ 0\.6 = 1\.1"):
        DataOptions(data="digits", val_fraction=0.5, test_fraction=0.6)
