"""The environment, for a bug report: this library, this machine, the packages beside it."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import Any

import pytest

from leadline import __version__
from leadline.cli import env
from leadline.core.devices import Machine


def test_json_has_exactly_these_keys(leadline: Any) -> None:
    said = leadline("env", "--json")
    assert said.code == 0 and said.err == ""
    assert set(said.last) == {"leadline", "machine", "packages"}
    assert said.last["leadline"] == __version__
    assert set(said.last["machine"]) == {field.name for field in dataclasses.fields(Machine)}
    assert said.last["packages"]["torch"] == version("torch")


def test_a_person_reads_the_same_in_lines(leadline: Any) -> None:
    said = leadline("env")
    assert said.out.startswith(f"leadline {__version__}\nmachine\n  device ")
    assert f"  torch           {version('torch')}\n" in said.out
    assert " GiB\n" in said.out


def test_a_package_that_is_not_there_is_said_to_be_missing(
    leadline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env, "PACKAGES", ("torch", "no-such-package-anywhere"))
    packages = leadline("env", "--json").last["packages"]
    assert packages["no-such-package-anywhere"] == "not installed"
