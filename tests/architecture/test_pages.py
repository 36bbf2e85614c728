"""Tests that every folder has its page, that the index lists them, and that no link is broken."""

from __future__ import annotations

import re
from pathlib import Path

LINK = re.compile(r"!?\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def pages(root: Path) -> list[Path]:
    return [*root.glob("*.md"), *(root / "docs").glob("*.md")]


def test_every_folder_of_the_library_has_a_page(root: Path) -> None:
    folders = {path.parent.name for path in (root / "src" / "leadline").glob("*/__init__.py")}
    assert not folders - {page.stem for page in (root / "docs").glob("*.md")}


def test_the_index_lists_every_page(root: Path) -> None:
    index = (root / "docs" / "README.md").read_text(encoding="utf-8")
    listed = set(LINK.findall(index))
    assert not {page.name for page in (root / "docs").glob("*.md")} - listed - {"README.md"}


def test_every_link_leads_somewhere(root: Path) -> None:
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in pages(root)
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken
