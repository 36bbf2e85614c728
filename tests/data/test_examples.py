"""Tests of examples in memory and on the disk."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leadline.core.errors import DataError
from leadline.data.examples import ArrayExamples, FileExamples


def in_memory(count: int = 6) -> ArrayExamples:
    return ArrayExamples(torch.arange(count * 4).view(count, 1, 2, 2).float(), torch.arange(count))


def files(folder: Path, count: int = 6) -> FileExamples:
    paths = []
    for index in range(count):
        path = folder / f"{index}.png"
        Image.fromarray(np.full((2, 2), 10 * index, dtype=np.uint8)).save(path)
        paths.append(str(path))
    return FileExamples(paths, torch.arange(count) % 2, colour="L", size=2)


def test_pictures_come_in_the_order_asked_for(tmp_path: Path) -> None:
    wanted = torch.tensor([4, 0, 4])
    assert in_memory().take(wanted)[:, 0, 0, 0].tolist() == [16, 0, 16]
    assert files(tmp_path).take(wanted)[:, 0, 0, 0].tolist() == [40, 0, 40]


def test_a_part_of_a_part_still_knows_its_names(tmp_path: Path) -> None:
    indices, again = torch.tensor([5, 3, 1]), torch.tensor([2, 0])
    part = in_memory().subset(indices).subset(again)
    assert [part.label(i) for i in range(len(part))] == ["index 1", "index 5"]
    assert part.targets.tolist() == [1, 5]
    on_disk = files(tmp_path).subset(indices).subset(again)
    assert [on_disk.label(i) for i in range(2)] == [str(tmp_path / f"{i}.png") for i in (1, 5)]
    assert on_disk.take(torch.tensor([0, 1]))[:, 0, 0, 0].tolist() == [10, 50]


def test_a_part_does_not_share_its_pixels() -> None:
    examples = in_memory()
    examples.subset(torch.tensor([0])).images.fill_(-1)
    assert float(examples.images.min()) == 0


def test_moving_to_where_the_pixels_are_copies_nothing() -> None:
    examples = in_memory()
    assert examples.to("cpu") is examples
    assert examples.to("meta").images.device.type == "meta"


def test_a_file_that_broke_is_named_once_and_replaced_by_one_of_its_class(tmp_path: Path) -> None:
    examples = files(tmp_path)
    (tmp_path / "2.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"2\.png is unreadable.*another picture of its class"):
        taken = examples.take(torch.tensor([1, 2]))
    assert taken[:, 0, 0, 0].tolist() == [10, 40]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert examples.take(torch.tensor([2]))[:, 0, 0, 0].tolist() == [40]
    assert list(examples.unreadable) == [2]


def test_a_class_whose_files_all_broke_stops_with_its_name(tmp_path: Path) -> None:
    examples = files(tmp_path)
    for index in (0, 2, 4):
        (tmp_path / f"{index}.png").write_bytes(b"broken")
    with (
        pytest.warns(UserWarning, match="unreadable"),
        pytest.raises(DataError, match=r"4\.png: .*and so are the 3 of its class"),
    ):
        examples.take(torch.tensor([4]))
