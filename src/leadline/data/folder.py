"""Any folder of pictures: a class per sub-folder, whatever their sizes and modes.

    FOLDER/cat/a.jpg            or      FOLDER/train/cat/a.jpg
    FOLDER/dog/b.png                    FOLDER/val/..., FOLDER/test/...

The size is taken from a sample: one size for all is kept, mixed sizes go to the usual one nearest
to the median of the shorter sides. The pictures stay grey when every one of them is grey. They
are decoded once, into memory, when they fit into a quarter of what is free, and otherwise from
the files whenever they are needed. Files that cannot be read are named, counted and left out.

The surprising choice: a folder called `train` means a split only when all other sub-folders are
`val`, `valid`, `validation` or `test`. Beside `bus` and `car`, `train` is a class.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from leadline.core.devices import available_memory
from leadline.core.errors import DataError
from leadline.data.assemble import assemble
from leadline.data.decode import Colour, Decoded, Header, decode_images, read_headers
from leadline.data.examples import ArrayExamples, Dataset, Examples, FileExamples
from leadline.data.listing import ENDINGS, Listing, list_folder, list_parts
from leadline.data.options import DataOptions

IMAGE_SUFFIXES = ENDINGS
USUAL_SIZES = (32, 64, 96, 128, 160, 224)  # pixels a side; the last is ImageNet's
SAMPLE = 256  # files whose headers are read to choose the size
SHARE_OF_MEMORY = 4  # decoded pictures may fill one part in so many of the free memory
NAMED = 5  # how many files a note names before it says 'and so many more'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """How the pictures will be decoded, and what the sample said about why."""

    size: int
    colour: Colour
    note: str


def load_folder(
    folder: Path,
    *,
    options: DataOptions,
    seed: int = 0,
    threads: int | None = None,
    memory: int | None = None,
) -> Dataset:
    """The pictures below `folder` as a Dataset; `memory` is how many bytes they may fill.

    Raises `DataError` for a file in the folder's place, an empty folder, pictures without class
    sub-folders, one class only, splits whose classes differ, or no readable picture.
    """
    parts = list_parts(folder)
    listings = {part: list_folder(path, root=folder) for part, path in parts.items()}
    names = _class_names(listings, folder)
    every = [path for listing in listings.values() for path in listing.paths]
    shape = _choose_shape(every, options.image_size, folder)
    room = memory if memory is not None else available_memory() // SHARE_OF_MEMORY
    channels = 1 if shape.colour == "L" else 3
    in_memory = len(every) * channels * shape.size**2 <= room
    decoded, shape = _read(every, shape, in_memory=in_memory, threads=threads)
    notes = [_found(decoded, names, shape, in_memory=in_memory)]
    notes += _complaints(decoded, every)
    notes += [note for listing in listings.values() for note in listing.notes]
    if len(decoded.problems) == len(every):
        raise DataError(
            expected=f"readable pictures in {folder}",
            received=f"{len(every)} files, none of them readable: {notes[1]}",
            remedy="check the files with a picture viewer; they may be damaged or misnamed",
        )
    numbers = {name: number for number, name in enumerate(names)}
    examples: dict[str, Examples] = {}
    start = 0
    for part, listing in listings.items():
        stop = start + len(listing.paths)
        targets = torch.tensor([numbers[name] for name in listing.classes])
        examples[part] = _part(
            decoded, every, range(start, stop), targets, shape=shape, threads=threads
        )
        start = stop
    _refuse_empty(examples, names, folder)
    return assemble(
        str(folder),
        examples["train"],
        val=examples.get("val"),
        test=examples.get("test"),
        class_names=names,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=seed,
        notes=notes,
    )


def read_image(path: Path, *, channels: int, size: int) -> UInt8[Tensor, "C S S"]:
    """One file decoded as a folder's files are: C = 1 (grey) or 3 channels, S pixels a side.

    Raises `DataError` for a file that cannot be read.
    """
    colour: Colour = "L" if channels == 1 else "RGB"
    decoded = decode_images([str(path)], colour=colour, size=size, threads=1)
    if decoded.problems:
        raise DataError(
            expected="a PNG, JPEG, WebP or BMP picture",
            received=f"{path}: {decoded.problems[0]}",
            remedy="check the file with a picture viewer",
        )
    return decoded.images[0]


def _class_names(listings: dict[str, Listing], folder: Path) -> tuple[str, ...]:
    train = listings["train"]
    names = tuple(sorted(set(train.classes)))
    for part, listing in listings.items():
        if part == "train":
            continue
        unknown = sorted(set(listing.classes) - set(names))
        missing = sorted(set(names) - set(listing.classes))
        if unknown or missing:
            said = [f"only in {part}: {', '.join(unknown[:NAMED])}"] if unknown else []
            said += [f"not in {part}: {', '.join(missing[:NAMED])}"] if missing else []
            raise DataError(
                expected=f"the same classes in every part of {folder}",
                received="; ".join(said),
                remedy="give each part a sub-folder with pictures for each class",
            )
    if len(names) < 2:
        raise DataError(
            expected="at least two classes, a sub-folder for each",
            received=f"one in {folder}: {names[0]!r}",
            remedy="add a sub-folder with pictures of something else",
        )
    return names


def _choose_shape(paths: Sequence[str], wanted: int | None, folder: Path) -> Shape:
    step = max(1, len(paths) // SAMPLE)
    sample = [header for header in read_headers(paths[::step]).headers if header is not None]
    if not sample:  # unlucky sample: look at everything before giving up
        sample = [header for header in read_headers(paths).headers if header is not None]
    colour: Colour = "L" if all(header.grey for header in sample) else "RGB"
    if wanted is not None or not sample:
        return Shape(size=wanted or USUAL_SIZES[0], colour=colour, note="the size asked for")
    shorter = sorted(min(header.width, header.height) for header in sample)
    if len({(header.width, header.height) for header in sample}) == 1:
        if shorter[0] <= USUAL_SIZES[-1]:
            return Shape(size=shorter[0], colour=colour, note="their own size")
        return Shape(size=USUAL_SIZES[-1], colour=colour, note="the largest usual size")
    median = statistics.median_low(shorter)
    size = min(USUAL_SIZES, key=lambda usual: abs(usual - median))
    note = f"the usual size nearest to {median}, the median of their shorter sides"
    return Shape(size=size, colour=colour, note=note)


def _read(
    paths: Sequence[str], shape: Shape, *, in_memory: bool, threads: int | None
) -> tuple[Decoded, Shape]:
    """Decode everything, or read every header; again in colour if not all were grey after all."""
    if in_memory:
        decoded = decode_images(paths, colour=shape.colour, size=shape.size, threads=threads)
    else:
        decoded = read_headers(paths, threads=threads)
    coloured = any(header is not None and not header.grey for header in decoded.headers)
    if coloured and shape.colour == "L":
        shape = dataclasses.replace(shape, colour="RGB")
        return _read(paths, shape, in_memory=in_memory, threads=threads)
    return decoded, shape


def _part(
    decoded: Decoded,
    paths: Sequence[str],
    places: range,
    targets: Tensor,
    *,
    shape: Shape,
    threads: int | None,
) -> Examples:
    """One part's examples, without those that could not be read."""
    good = [place for place in places if place not in decoded.problems]
    kept = targets[torch.tensor([place - places.start for place in good], dtype=torch.int64)]
    names = [paths[place] for place in good]
    if len(decoded.images) == 0:
        return FileExamples(names, kept, colour=shape.colour, size=shape.size, threads=threads)
    if len(good) == len(places):
        images = decoded.images[places.start : places.stop]
    else:
        images = decoded.images[torch.tensor(good, dtype=torch.int64)]
    return ArrayExamples(images, kept, labels=names)


def _refuse_empty(examples: dict[str, Examples], names: Sequence[str], folder: Path) -> None:
    for part, found in examples.items():
        counts = torch.bincount(found.targets, minlength=len(names))
        if bool((counts == 0).any()):
            name = names[int((counts == 0).nonzero()[0])]
            raise DataError(
                expected=f"a readable picture of every class in {folder}",
                received=f"none of class {name!r} in {part}",
                remedy="replace the unreadable files of this class, or remove the class",
            )


def _found(decoded: Decoded, names: Sequence[str], shape: Shape, *, in_memory: bool) -> str:
    headers = [header for header in decoded.headers if header is not None]
    sizes = Counter((header.width, header.height) for header in headers)
    if len(sizes) == 1:
        (width, height) = next(iter(sizes))
        size = f"{width}x{height}"
    else:
        size = f"in {len(sizes)} sizes"
    grey = sum(header.grey for header in headers)
    kind = "grey" if shape.colour == "L" else "RGB"
    if shape.colour == "RGB" and grey:
        kind = f"RGB ({grey:,} of them grey)"
    where = "in memory" if in_memory else "read from the files as needed: too big for memory"
    return (
        f"found {len(headers):,} {kind} pictures {size} in {len(names)} classes, "
        f"used at {shape.size}x{shape.size} ({shape.note}), {where}"
    )


def _complaints(decoded: Decoded, paths: Sequence[str]) -> list[str]:
    notes = []
    if decoded.problems:
        listing = [f"{paths[i]} ({why})" for i, why in decoded.problems.items()]
        notes.append(f"skipped {len(listing)} unreadable {_some('picture', listing)}")
    headers = [(i, header) for i, header in enumerate(decoded.headers) if header is not None]
    oblong = [header for _, header in headers if header.width != header.height]
    if oblong:
        notes.append(f"{len(oblong):,} pictures are not square: the central square of each is used")
    tiny = [paths[i] for i, header in headers if _is_tiny(header)]
    if tiny:
        notes.append(f"{len(tiny)} tiny, of fewer than 4 pixels a side: {_some('picture', tiny)}")
    return notes


def _is_tiny(header: Header) -> bool:
    return min(header.width, header.height) < 4


def _some(kind: str, entries: Sequence[str]) -> str:
    """The first few of `entries`, and how many more there are."""
    more = f" and {len(entries) - NAMED} more" if len(entries) > NAMED else ""
    plural = "" if len(entries) == 1 else "s"
    return f"{kind}{plural}: {', '.join(entries[:NAMED])}{more}"
