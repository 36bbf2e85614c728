"""Picture files to pixels: any size and mode in, one square uint8 array out.

A file is opened once. Its pixels are turned upright (EXIF), brought to grey or RGB, resized so
that the shorter side fits, and cropped to the central square, with Pillow's antialiased bilinear
filter. Big JPEGs are decoded at a fraction of their size where that is enough (`draft`).

Threads rather than processes: Pillow lets go of Python's lock while it decodes, so threads scale
for photographs; for 32-pixel pictures opening dominates, and there two processes measured no
faster than two threads, with a start-up cost and rules for the user's script on top.

The surprising choices: transparent pixels become white, not whatever colour hides below them;
16-bit greys keep their upper byte; and *anything* a decoder raises means 'unreadable', because
decoders meet hostile bytes with all kinds of exceptions.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from leadline.core.devices import available_cores

Colour = Literal["L", "RGB"]
T = TypeVar("T")

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
GREY_MODES = frozenset({"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I"})
MOST_THREADS = 16  # beyond this the disk and the interpreter lock are what is waited for
CHUNK = 128  # files a thread takes at a time: small enough to balance, large enough to be cheap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself: its size in pixels, upright, and whether it is grey."""

    width: int
    height: int
    grey: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded:
    """Pixels `[N, C, S, S]` uint8, a header per file, and why files could not be read.

    Where `headers[i]` is None, `problems[i]` says why and `images[i]` is zero.
    """

    images: Tensor
    headers: tuple[Header | None, ...]
    problems: dict[int, str]


def read_headers(paths: Sequence[str], *, threads: int | None = None) -> Decoded:
    """Open every file, decode none: headers and problems, and no pixels (`[0, 1, 1, 1]`)."""

    def read(index: int) -> Header | str:
        return _attempt(lambda: _header(_open(paths[index])))

    results = list(_over_chunks(len(paths), read, threads))
    return _decoded(torch.empty(0, 1, 1, 1, dtype=torch.uint8), results)


def decode_images(
    paths: Sequence[str], *, colour: Colour, size: int, threads: int | None = None
) -> Decoded:
    """Decode files to `size` x `size` pixels, grey (`L`, C = 1) or `RGB` (C = 3).

    The result is the same for any number of threads: each file has its own place.
    """
    channels = 1 if colour == "L" else 3
    images = torch.zeros(len(paths), channels, size, size, dtype=torch.uint8)
    places = images.numpy()

    def read(index: int) -> Header | str:
        def place() -> Header:
            image = _open(paths[index])
            header = _header(image)
            places[index] = _pixels(image, header, colour=colour, size=size)
            return header

        return _attempt(place)

    return _decoded(images, list(_over_chunks(len(paths), read, threads)))


def _decoded(images: Tensor, results: list[Header | str]) -> Decoded:
    return Decoded(
        images=images,
        headers=tuple(entry if isinstance(entry, Header) else None for entry in results),
        problems={i: entry for i, entry in enumerate(results) if isinstance(entry, str)},
    )


def _over_chunks(count: int, work: Callable[[int], T], threads: int | None) -> Iterator[T]:
    """`work(i)` for every i, in order, by threads that take up to CHUNK of them at a time."""

    workers = min(threads or min(available_cores(), MOST_THREADS), max(1, count))
    size = max(1, min(CHUNK, count // (4 * workers)))

    def chunk(start: int) -> list[T]:
        return [work(index) for index in range(start, min(start + size, count))]

    with ThreadPoolExecutor(workers) as pool:
        for part in pool.map(chunk, range(0, count, size)):
            yield from part


def _attempt(work: Callable[[], Header]) -> Header | str:
    try:
        return work()
    except Exception as error:  # any exception of a decoder on hostile bytes means unreadable
        if isinstance(error, UnidentifiedImageError):
            return "not a PNG, JPEG, WebP or BMP picture"
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            return "so many pixels that it may be a decompression bomb"
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return str(error).split("\n")[0] or type(error).__name__


def _open(path: str) -> Image.Image:
    with open(path, "rb") as stream:
        content = stream.read()
    if not content:
        raise ValueError("an empty file")
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _header(image: Image.Image) -> Header:
    width, height = image.size
    if "exif" in image.info and image.getexif().get(0x0112, 1) >= 5:  # Orientation: on its side
        width, height = height, width
    grey = image.mode in GREY_MODES
    if image.mode == "P":
        palette = image.getpalette("RGB") or []
        grey = palette[0::3] == palette[1::3] == palette[2::3]
    return Header(width=width, height=height, grey=grey)


def _pixels(image: Image.Image, header: Header, *, colour: Colour, size: int) -> NDArray[np.uint8]:
    """The upright, converted, resized, centre-cropped picture as `[C, S, S]`."""
    shorter = min(header.width, header.height)
    if image.format == "JPEG" and shorter >= 2 * size:
        scale = size / shorter
        wanted = (math.ceil(image.width * scale), math.ceil(image.height * scale))
        image.draft(image.mode, wanted)
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode != colour:
        image = _convert(image, colour)
    width, height = image.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        image = image.resize(
            (size, size),
            Image.Resampling.BILINEAR,
            box=(left, top, left + side, top + side),
            reducing_gap=3.0,
        )
    array = np.asarray(image)
    return array[None] if colour == "L" else array.transpose(2, 0, 1)


def _convert(image: Image.Image, colour: Colour) -> Image.Image:
    """Any mode to grey or RGB: 16 bits keep their upper byte, transparency shows white."""
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray((deep >> 8).astype(np.uint8))
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        picture = image.convert("RGBA")
        image = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        image.alpha_composite(picture)
    return image.convert(colour)
