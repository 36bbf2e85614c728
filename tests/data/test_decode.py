"""Tests of decoding: every mode, orientation and size, against pixels computed by hand."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leadline.data.decode import Colour, decode_images, read_headers


def save(path: Path, image: Image.Image, **options: object) -> str:
    image.save(path, **options)  # type: ignore[arg-type]  # Pillow's options differ by format
    return str(path)


def one(path: str, *, colour: Colour = "RGB", size: int = 4) -> np.ndarray:
    decoded = decode_images([path], colour=colour, size=size)
    assert not decoded.problems
    return decoded.images[0].numpy()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("ending", ["png", "bmp", "webp"])
def test_lossless_rgb_comes_back_exactly(tmp_path: Path, ending: str) -> None:
    pixels = noise(4, 4, 3)
    options = {"lossless": True} if ending == "webp" else {}
    path = save(tmp_path / f"a.{ending}", Image.fromarray(pixels), **options)
    np.testing.assert_array_equal(one(path), pixels.transpose(2, 0, 1))


def test_grey_becomes_rgb_with_three_equal_channels(tmp_path: Path) -> None:
    pixels = noise(4, 4)
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    assert read_headers([path]).headers[0].grey  # type: ignore[union-attr]  # it was read
    np.testing.assert_array_equal(one(path), np.stack([pixels] * 3))
    np.testing.assert_array_equal(one(path, colour="L"), pixels[None])


def test_sixteen_bits_keep_their_upper_byte(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (4, 4), dtype=np.uint16)
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    header = read_headers([path]).headers[0]
    assert header is not None
    assert header.grey
    np.testing.assert_array_equal(one(path, colour="L"), (pixels >> 8).astype(np.uint8)[None])


def test_transparency_shows_white(tmp_path: Path) -> None:
    pixels = noise(4, 4, 4)
    pixels[..., 3] = np.array([0, 255, 0, 255])
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    expected = np.where(pixels[..., 3:] == 255, pixels[..., :3], 255)
    np.testing.assert_array_equal(one(path), expected.transpose(2, 0, 1))
    grey = noise(4, 4, 2)
    grey[..., 1] = np.array([0, 255, 0, 255])
    path = save(tmp_path / "b.png", Image.fromarray(grey))
    np.testing.assert_array_equal(
        one(path, colour="L")[0], np.where(grey[..., 1] == 255, grey[..., 0], 255)
    )


def test_a_palette_is_looked_up_and_knows_whether_it_is_grey(tmp_path: Path) -> None:
    indices = noise(4, 4) % 2
    for name, palette, grey in (
        ("colour.png", [10, 20, 30, 200, 100, 50], False),
        ("grey.png", [10, 10, 10, 200, 200, 200], True),
    ):
        image = Image.fromarray(indices)
        image.putpalette(palette)
        path = save(tmp_path / name, image)
        header = read_headers([path]).headers[0]
        assert header is not None
        assert header.grey is grey
        expected = np.array(palette, dtype=np.uint8).reshape(2, 3)[indices]
        np.testing.assert_array_equal(one(path), expected.transpose(2, 0, 1))
    image = Image.fromarray(indices)
    image.putpalette([10, 20, 30, 200, 100, 50])
    path = save(tmp_path / "clear.png", image, transparency=0)
    expected = np.array([[255, 255, 255], [200, 100, 50]], dtype=np.uint8)[indices]
    np.testing.assert_array_equal(one(path), expected.transpose(2, 0, 1))


def test_black_and_white_and_cmyk_are_converted(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(noise(4, 4) > 127))
    assert set(np.unique(one(path, colour="L"))) <= {0, 255}
    path = save(tmp_path / "b.jpg", Image.new("CMYK", (4, 4), (0, 255, 255, 0)))
    red, green, blue = one(path)
    assert red.min() > 200
    assert max(green.max(), blue.max()) < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = noise(4, 6, 3)
    stored = {  # how a camera held that way stores the upright picture (EXIF 2.3, tag 0x0112)
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    header = read_headers([path]).headers[0]
    assert header is not None
    assert (header.width, header.height) == (6, 4)
    np.testing.assert_array_equal(one(path), upright[:, 1:5].transpose(2, 0, 1))


def test_the_central_square_is_averaged_down(tmp_path: Path) -> None:
    blocks = noise(4, 4, 3)
    large = blocks.repeat(8, axis=0).repeat(8, axis=1)
    framed = np.zeros((32, 64, 3), dtype=np.uint8)
    framed[:, 16:48] = large
    path = save(tmp_path / "a.png", Image.fromarray(framed))
    found = one(path).transpose(1, 2, 0).astype(int)
    whole = Image.fromarray(framed).resize((8, 4), Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[:, 2:6].astype(int)
    assert np.abs(found - expected).max() <= 3  # Pillow halves large pictures first


def test_a_big_jpeg_read_at_a_fraction_looks_the_same(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:240, 0:320]
    smooth = np.stack([rows, columns * 0.75, 255 - rows], axis=2).astype(np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(smooth), quality=95)
    found = one(path, size=24).transpose(1, 2, 0).astype(int)
    square = Image.fromarray(smooth[:, 40:280]).resize((24, 24), Image.Resampling.BILINEAR)
    assert np.abs(found - np.asarray(square).astype(int)).max() <= 4


def test_one_pixel_becomes_a_plain_square(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (1, 1), (10, 20, 30)))
    found = one(path, size=8)
    assert np.array_equal(found, np.broadcast_to(np.array([[[10]], [[20]], [[30]]]), (3, 8, 8)))


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    paths = [
        save(tmp_path / f"{i}.jpg", Image.fromarray(noise(20 + i % 7, 20, 3, seed=i)))
        for i in range(40)
    ]
    (tmp_path / "13.jpg").write_bytes(b"broken")
    results = [decode_images(paths, colour="RGB", size=16, threads=n) for n in (1, 2, 5)]
    for other in results[1:]:
        assert torch.equal(results[0].images, other.images)
        assert results[0].headers == other.headers
        assert results[0].problems == other.problems == {13: results[0].problems[13]}


def bomb() -> bytes:
    """A PNG whose header claims 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(stream, "JPEG")
    contents = {
        "empty.png": (b"", "an empty file"),
        "text.jpg": (b"hello", "not a PNG, JPEG, WebP or BMP picture"),
        "cut.jpg": (stream.getvalue()[:1500], "truncated"),
        "bomb.png": (bomb(), "a decompression bomb"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in contents] + [str(tmp_path / "missing.png")]
    decoded = decode_images(paths, colour="RGB", size=8)
    for index, (_, reason) in enumerate(contents.values()):
        assert reason in decoded.problems[index]
        assert decoded.headers[index] is None
    assert decoded.problems[4] == "No such file or directory"
    assert not decoded.images.any()
