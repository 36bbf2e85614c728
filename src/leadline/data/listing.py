"""Which picture files lie below a folder, in which class and which part.

Names are sorted, so that the order never depends on the file system. Hidden files and folders
are passed over. Pictures may lie deeper below their class's folder; links to folders are followed
for classes but not below them, where they could lead in circles.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

from leadline.core.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """Picture files with the class of each, sorted, and what was passed over."""

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def list_parts(folder: Path) -> dict[str, Path]:
    """The folders of the parts `train`, `val`, `test` that are there; or all of it as `train`."""
    if not folder.is_dir():
        raise DataError(
            expected=f"a folder of pictures at {folder}",
            received="a file" if folder.exists() else "nothing there",
            remedy="give the folder that holds one sub-folder per class (unpack an archive first)",
        )
    names = [entry.name for entry in _entries(folder) if entry.is_dir()]
    known = [name for name in names if name.lower() in PARTS]
    if not any(name.lower() == "train" for name in known):
        return {"train": folder}
    other: Counter[str] = Counter()
    strange = [name for name in names if name not in known and _pictures(str(folder / name), other)]
    if strange:
        if len(known) == 1:  # a class that happens to be called train
            return {"train": folder}
        raise DataError(
            expected=f"either train/ val/ test/ or one sub-folder per class in {folder}",
            received=f"both: {', '.join(known)} and {', '.join(strange[:5])}",
            remedy="move what is not train, val or test out of it",
        )
    parts: dict[str, Path] = {}
    for name in known:
        part = PARTS[name.lower()]
        if part in parts:
            raise DataError(
                expected=f"one folder for {part} in {folder}",
                received=f"{parts[part].name!r} and {name!r}",
                remedy="remove or merge one of them",
            )
        parts[part] = folder / name
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}


def list_folder(folder: Path, *, root: Path) -> Listing:
    """The pictures in the sub-folders of `folder`, each a class; `root` is what the user gave."""
    paths: list[str] = []
    classes: list[str] = []
    empty: list[str] = []
    other: Counter[str] = Counter()
    entries = _entries(folder)
    for entry in entries:
        if not entry.is_dir():
            continue
        found = _pictures(entry.path, other)
        paths += found
        classes += [entry.name] * len(found)
        if not found:
            empty.append(entry.name)
    loose = sum(entry.name.lower().endswith(ENDINGS) for entry in entries if entry.is_file())
    if not paths:
        here = f"{loose} pictures without a class" if loose else "no picture"
        raise DataError(
            expected=f"pictures ({', '.join(ENDINGS)}) in a sub-folder for each class of {folder}",
            received=f"{here}, {len(empty)} sub-folders without one"
            + (f", other files: {_endings(other)}" if other else ""),
            remedy="sort the pictures into one sub-folder per class",
        )
    place = "" if folder == root else f" in {folder.name}"
    notes = []
    if empty:
        notes.append(f"passed over {len(empty)} empty sub-folders{place}: {', '.join(empty[:5])}")
    if loose:
        notes.append(f"passed over {loose} pictures outside the class sub-folders{place}")
    if other:
        notes.append(f"passed over {sum(other.values())} other files{place}: {_endings(other)}")
    return Listing(paths=tuple(paths), classes=tuple(classes), notes=tuple(notes))


def _pictures(folder: str, other: Counter[str]) -> list[str]:
    found: list[str] = []
    for entry in _entries(Path(folder)):
        if entry.is_dir(follow_symlinks=False):
            found += _pictures(entry.path, other)
        elif entry.name.lower().endswith(ENDINGS):
            found.append(entry.path)
        else:
            other[os.path.splitext(entry.name)[1].lower() or "no ending"] += 1
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        raise DataError(
            expected=f"a folder that can be read at {folder}",
            received=f"{error.strerror or error}",
            remedy="check its permissions",
        ) from error


def _endings(other: Counter[str]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in other.most_common(3))
