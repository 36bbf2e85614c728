"""Tests that every name that is promised is there."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import leadline


def modules(sources: Any) -> list[str]:
    """Every module of the library but those that run the command line when imported."""
    names = [
        source.name.removesuffix(".py").removesuffix("__init__").strip("/").replace("/", ".")
        for source in sources
        if not source.name.endswith("__main__.py")
    ]
    return [f"leadline.{name}".rstrip(".") for name in names]


def test_every_module_can_be_imported_and_has_what_it_exports(sources: Any) -> None:
    missing = []
    for name in modules(sources):
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", [])
        assert len(set(exported)) == len(exported), f"{name}.__all__ repeats a name"
        missing += [f"{name}.{entry}" for entry in exported if not hasattr(module, entry)]
    assert not missing


def test_the_library_lists_what_it_exports() -> None:
    assert leadline.__all__ == sorted(leadline.__all__)
    assert set(leadline.__all__) <= set(dir(leadline))


def test_every_export_of_the_library_says_what_it_is() -> None:
    undocumented = [name for name in leadline.__all__ if not getattr(leadline, name).__doc__]
    assert not undocumented


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="leadline"):
        leadline.no_such_name  # noqa: B018  # looking it up is what is tested
