"""Tests of folders of pictures: what size, which colour, which split, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leadline.core.errors import DataError
from leadline.data.examples import Dataset, Examples, FileExamples
from leadline.data.folder import load_folder, read_image
from leadline.data.options import DataOptions


def picture(
    path: Path, *, size: tuple[int, int] = (8, 8), mode: str = "RGB", seed: int = 0
) -> None:
    """Save noise of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def fill(root: Path, *, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> None:
    for number, name in enumerate(classes):
        for index in range(count):
            picture(root / name / f"{index:03d}.png", seed=100 * number + index)


def load(root: Path, **options: object) -> Dataset:
    return load_folder(root, options=DataOptions(data=str(root), **options))  # type: ignore[arg-type]  # test values


def labels(examples: Examples) -> Iterator[str]:
    for index in range(len(examples)):
        yield examples.label(index)


def test_a_plain_folder_is_split_stratified(tmp_path: Path) -> None:
    fill(tmp_path, count=20)
    data = load(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert (data.shape, data.num_classes) == ((3, 8, 8), 2)
    for part, count in ((data.train, 14), (data.val, 2), (data.test, 4)):
        assert torch.bincount(part.targets).tolist() == [count, count]
    every = [*labels(data.train), *labels(data.val), *labels(data.test)]
    assert len(set(every)) == 40
    assert data.notes == (
        "found 40 RGB pictures 8x8 in 2 classes, used at 8x8 (their own size), in memory",
        "split: train 28, validation 4 (stratified, 0.1 of the rest), "
        "test 8 (stratified, 0.2 of all)",
    )


def test_pictures_targets_and_names_belong_together(tmp_path: Path) -> None:
    fill(tmp_path, classes=("a", "b", "c"))
    data = load(tmp_path)
    for part in (data.train, data.val, data.test):
        for index in range(len(part)):
            path = Path(part.label(index))
            assert path.parent.name == data.class_names[int(part.targets[index])]
            expected = np.asarray(Image.open(path)).transpose(2, 0, 1)
            np.testing.assert_array_equal(part.take(torch.tensor([index]))[0].numpy(), expected)


def test_parts_that_are_there_are_used(tmp_path: Path) -> None:
    fill(tmp_path / "train", count=6)
    fill(tmp_path / "val", count=2)
    fill(tmp_path / "test", count=3)
    data = load(tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 4, 6)
    assert all("/test/" in name for name in labels(data.test))
    assert data.notes[-1] == "split: train 12, validation 4 (as given), test 6 (as given)"


def test_a_missing_part_is_split_off_training(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test", count=3)
    data = load(tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 6)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(20, 20)], 20),
        ([(30, 20)], 20),
        ([(400, 300)], 224),
        ([(40, 50), (30, 35), (33, 90)], 32),
        ([(100, 120), (150, 110), (90, 140)], 96),
        ([(900, 800), (700, 900), (640, 480)], 224),
    ],
)
def test_the_size_is_chosen_from_the_pictures(
    tmp_path: Path, sizes: list[tuple[int, int]], expected: int
) -> None:
    for index in range(6):
        for name in ("cat", "dog"):
            picture(tmp_path / name / f"{index}.png", size=sizes[index % len(sizes)])
    data = load(tmp_path)
    assert data.shape == (3, expected, expected)
    if any(width != height for width, height in sizes):
        assert any("are not square: the central square" in note for note in data.notes)


def test_the_size_asked_for_is_used(tmp_path: Path) -> None:
    fill(tmp_path)
    data = load(tmp_path, image_size=12)
    assert data.shape == (3, 12, 12)
    assert "12x12 (the size asked for)" in data.notes[0]


def test_grey_stays_grey_unless_one_picture_has_colour(tmp_path: Path) -> None:
    for index in range(300):
        picture(tmp_path / "cat" / f"{index:03d}.png", mode="L", size=(4, 4))
        picture(tmp_path / "dog" / f"{index:03d}.png", mode="L", size=(4, 4))
    assert load(tmp_path).shape == (1, 4, 4)
    picture(tmp_path / "dog" / "151.png", mode="RGB", size=(4, 4))  # not in the sample
    data = load(tmp_path)
    assert data.shape == (3, 4, 4)
    assert data.notes[0].startswith("found 600 RGB (599 of them grey) pictures 4x4")


def test_unreadable_pictures_are_named_counted_and_left_out(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "cat" / "003.png").write_bytes(b"text")
    whole = (tmp_path / "dog" / "004.png").read_bytes()
    (tmp_path / "dog" / "004.png").write_bytes(whole[: len(whole) // 2])
    data = load(tmp_path)
    assert len(data.train) + len(data.val) + len(data.test) == 18
    note = next(note for note in data.notes if note.startswith("skipped"))
    assert note.startswith(f"skipped 2 unreadable pictures: {tmp_path}/cat/003.png (not a PNG")
    assert f"{tmp_path}/dog/004.png" in note


def test_many_unreadable_pictures_are_not_all_named(tmp_path: Path) -> None:
    fill(tmp_path, count=12)
    for index in range(8):
        (tmp_path / "cat" / f"{index:03d}.png").write_bytes(b"")
    note = next(note for note in load(tmp_path).notes if note.startswith("skipped"))
    assert note.startswith("skipped 8 unreadable pictures: ")
    assert note.endswith("004.png (an empty file) and 3 more")


def test_a_folder_with_nothing_readable_is_refused(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"2 files, none of them readable: skipped 2 unreadable"):
        load(tmp_path)


def test_a_class_with_nothing_readable_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "emu").mkdir()
    (tmp_path / "emu" / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="none of class 'emu' in train"):
        load(tmp_path)


def test_one_class_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, classes=("cat",))
    with pytest.raises(DataError, match=r"at least two classes.*\nreceived one in .*'cat'"):
        load(tmp_path)


def test_parts_with_different_classes_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train", classes=("cat", "dog", "emu"), count=2)
    fill(tmp_path / "test", classes=("cat", "cow", "dog"), count=2)
    with pytest.raises(DataError, match="received only in test: cow; not in test: emu"):
        load(tmp_path)


def test_one_pixel_is_taken_and_said(tmp_path: Path) -> None:
    fill(tmp_path)
    picture(tmp_path / "cat" / "dot.png", size=(1, 1))
    data = load(tmp_path)
    assert f"1 tiny, of fewer than 4 pixels a side: picture: {tmp_path}/cat/dot.png" in data.notes


def test_what_does_not_fit_into_memory_is_read_from_the_files(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "cat" / "005.png").write_bytes(b"x")
    options = DataOptions(data=str(tmp_path))
    held, read = (load_folder(tmp_path, options=options, memory=m) for m in (1 << 30, 100))
    assert isinstance(read.train, FileExamples)
    assert "too big for memory" in read.notes[0]
    assert read.notes[1] == held.notes[1]
    for part in ("train", "val", "test"):
        first, second = getattr(held, part), getattr(read, part)
        assert list(labels(first)) == list(labels(second))
        assert torch.equal(first.targets, second.targets)
        every = torch.arange(len(first))
        assert torch.equal(first.take(every), second.take(every))
    assert (held.mean, held.std) == (read.mean, read.std)


def test_a_single_file_is_read_as_the_folder_was(tmp_path: Path) -> None:
    fill(tmp_path)
    data = load(tmp_path)
    image = read_image(Path(data.train.label(0)), channels=3, size=8)
    assert torch.equal(image, data.train.take(torch.tensor([0]))[0])
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "none.png", channels=3, size=8)
