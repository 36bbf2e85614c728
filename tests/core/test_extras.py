"""Tests that a missing extra is said with the command that installs it."""

from __future__ import annotations

import pytest

from leadline.core.errors import ConfigError
from leadline.core.extras import import_extra


def test_what_is_installed_is_imported() -> None:
    assert import_extra("json", extra="tables").loads("[1]") == [1]


def test_what_is_missing_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ConfigError, match=r"No module named 'no_such'[\s\S]*leadline\[audio\]"):
        import_extra("no_such", extra="audio")
