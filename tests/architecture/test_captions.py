"""Tests that every file begins with its caption, and that README's tree agrees with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"<!-- tree -->\n(.*?)<!-- /tree -->", re.DOTALL)
LINE = re.compile(r"^[\s│├└─]*(?P<folder>\w+)/ +(?P<caption>\S.*)$")


def captions(sources: Any) -> dict[str, str]:
    """The caption of every package, without its full stop."""
    suffix = "/__init__.py"
    return {
        source.name.removesuffix(suffix): source.caption.rstrip(".")
        for source in sources
        if source.name.endswith(suffix)
    }


def drawn(readme: str) -> dict[str, str]:
    """The folders of the library in the README's tree, with the captions that stand there."""
    block = BLOCK.search(readme)
    assert block, "README.md has no block between <!-- tree --> and <!-- /tree -->"
    below = block[1].partition("src/leadline/")[2]
    assert below, "the tree in README.md has no line for src/leadline/"
    lines = [LINE.match(line) for line in below.splitlines()]
    return {line["folder"]: line["caption"].rstrip(".") for line in lines if line}


def test_every_file_begins_with_a_caption_that_is_one_sentence(sources: Any) -> None:
    offences = [
        f"{source.name}: {source.caption!r}"
        for source in sources
        if not re.fullmatch(r"[^\W\d_].{8,97}\.", source.caption)
    ]
    assert not offences


def test_no_two_files_have_the_same_caption(sources: Any) -> None:
    every = [source.caption for source in sources if not source.name.endswith("__main__.py")]
    assert not {caption for caption in every if every.count(caption) > 1}


def test_the_readme_draws_every_folder_with_its_caption(root: Path, sources: Any) -> None:
    folders = {name: text for name, text in captions(sources).items() if "/" not in name}
    lines = "\n".join(f"  {name + '/':<12} {text}" for name, text in folders.items())
    tree = drawn((root / "README.md").read_text(encoding="utf-8"))
    agreeing = {name: tree.get(name) for name in folders}
    assert agreeing == folders, f"the tree in README.md should read\n{lines}"


def test_the_readme_draws_no_folder_that_is_not_there(root: Path, sources: Any) -> None:
    tree = drawn((root / "README.md").read_text(encoding="utf-8"))
    there = {folder.name for folder in root.iterdir()} | set(captions(sources))
    there |= {folder.name for folder in (root / "tests").iterdir()}
    assert not set(tree) - there
