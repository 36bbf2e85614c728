"""Tests of what counts as a class, a part and a picture below a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from leadline.core.errors import DataError
from leadline.data.listing import list_folder, list_parts


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_pictures_are_sorted_by_class_and_name(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.JPG", "cat/z.png", "cat/a.jpeg", "cat/deeper/m.webp", "dog/a.bmp")
    listing = list_folder(tmp_path, root=tmp_path)
    names = [Path(path).relative_to(tmp_path).as_posix() for path in listing.paths]
    assert names == ["cat/a.jpeg", "cat/deeper/m.webp", "cat/z.png", "dog/a.bmp", "dog/b.JPG"]
    assert listing.classes == ("cat", "cat", "cat", "dog", "dog")
    assert listing.notes == ()


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png", "cat/.hidden.png", "cat/notes.txt", "cat/b.gif", "cat/c.gif")
    touch(tmp_path, ".git/x.png", "loose.png", "README")
    (tmp_path / "empty").mkdir()
    listing = list_folder(tmp_path, root=tmp_path)
    assert len(listing.paths) == 1
    assert listing.notes == (
        "passed over 1 empty sub-folders: empty",
        "passed over 1 pictures outside the class sub-folders",
        "passed over 3 other files: 2 .gif, 1 .txt",
    )


def test_links_do_not_lead_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "all/cat/a.png")
    (tmp_path / "all" / "cat" / "loop").symlink_to(tmp_path / "all")
    (tmp_path / "all" / "dog").symlink_to(tmp_path / "all" / "cat")
    listing = list_folder(tmp_path / "all", root=tmp_path / "all")
    assert listing.classes == ("cat", "dog")


def test_parts_are_found_by_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.png", "valid/cat/a.png", "test/cat/a.png")
    parts = list_parts(tmp_path)
    assert {part: path.name for part, path in parts.items()} == {
        "train": "train",
        "val": "valid",
        "test": "test",
    }


def test_train_beside_other_things_is_a_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.png", "bus/a.png")
    assert list_parts(tmp_path) == {"train": tmp_path}


def test_parts_are_found_whatever_their_case_and_beside_folders_without_pictures(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "Train/cat/a.png", "Test/cat/a.png", "__MACOSX/x.txt", "labels/a.csv")
    assert set(list_parts(tmp_path)) == {"train", "test"}


def test_parts_beside_classes_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.png", "test/cat/a.png", "dog/a.png")
    with pytest.raises(DataError, match=r"both: test, train and dog"):
        list_parts(tmp_path)


def test_two_validation_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.png", "val/cat/a.png", "validation/cat/a.png")
    with pytest.raises(DataError, match=r"one folder for val [^\n]*\n.*'val' and 'validation"):
        list_parts(tmp_path)


def test_a_file_where_a_folder_is_expected_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "pictures.zip")
    with pytest.raises(DataError, match=r"a folder of pictures at .*\n.*a file\n.*unpack"):
        list_parts(tmp_path / "pictures.zip")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="received no picture, 0 sub-folders"):
        list_folder(tmp_path, root=tmp_path)


def test_pictures_without_classes_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    with pytest.raises(
        DataError, match=r"2 pictures without a class.*\n.*one sub-folder per class"
    ):
        list_folder(tmp_path, root=tmp_path)


def test_a_folder_of_other_files_says_what_it_found(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.tiff", "a/y.tiff", "b/z.txt")
    with pytest.raises(
        DataError, match=r"2 sub-folders without one, other files: 2 \.tiff, 1 \.txt"
    ):
        list_folder(tmp_path, root=tmp_path)
