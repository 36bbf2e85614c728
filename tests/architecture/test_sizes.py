"""Tests that a file is a paragraph: at most 400 lines, a function at most 60."""

from __future__ import annotations

import ast
from typing import Any

FILE_LINES = 400
FUNCTION_LINES = 60


def test_no_file_is_longer_than_its_limit(sources: Any) -> None:
    lengths = {source.name: len(source.text.splitlines()) for source in sources}
    assert not {name: lines for name, lines in lengths.items() if lines > FILE_LINES}


def test_no_function_is_longer_than_its_limit(sources: Any) -> None:
    too_long = {
        f"{source.name}:{node.lineno} {node.name}": lines
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    }
    assert not too_long
