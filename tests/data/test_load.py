"""Tests of the named data sets, on small files in their published formats."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from leadline.core.errors import CorruptFileError, DataError, UnknownNameError
from leadline.data import load as load_module
from leadline.data.cifar import TEST_FILE, TRAIN_FILES, read_cifar10
from leadline.data.examples import Dataset
from leadline.data.load import IDX_PARTS, list_datasets, load_dataset
from leadline.data.options import DataOptions


def load(data: str, **options: float) -> Dataset:
    return load_dataset(DataOptions(data=data, **options))  # type: ignore[arg-type]  # test values


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A LEADLINE_DATA folder."""
    monkeypatch.setenv("LEADLINE_DATA", str(tmp_path))
    return tmp_path


def idx_arrays(own: Path, name: str) -> dict[str, np.ndarray]:
    luck = np.random.default_rng(0)
    arrays = {
        "train_images": luck.integers(0, 256, (100, 6, 6), dtype=np.uint8),
        "train_labels": (np.arange(100) % 10).astype(np.uint8),
        "test_images": luck.integers(0, 256, (20, 6, 6), dtype=np.uint8),
        "test_labels": (np.arange(20) % 10).astype(np.uint8),
    }
    for part, array in arrays.items():
        write_idx(own / name / IDX_PARTS[part], array)
    return arrays


def test_digits_are_scikit_learns_scaled_to_bytes() -> None:
    data = load("digits")
    found = load_digits()
    seen = 0
    for part in (data.train, data.val, data.test):
        pictures = part.take(torch.arange(len(part)))
        for index in range(len(part)):
            number = int(part.label(index).split()[1])
            assert int(part.targets[index]) == found.target[number]
            expected = np.round(found.images[number] * 255 / 16)
            np.testing.assert_array_equal(pictures[index, 0].numpy(), expected)
            seen += 1
    assert seen == 1797


def test_the_fractions_say_how_much_is_held_out_of_the_digits() -> None:
    data = load("digits", val_fraction=0.3, test_fraction=0.5)
    assert len(data.test) == pytest.approx(0.5 * 1797, abs=10)
    assert len(data.val) == pytest.approx(0.3 * 0.5 * 1797, abs=10)


def test_the_seed_chooses_what_is_held_out_where_the_source_does_not_say() -> None:
    one, other = (load_dataset(DataOptions(data="digits"), seed=seed) for seed in (0, 1))
    held_out = [{data.test.label(i) for i in range(len(data.test))} for data in (one, other)]
    assert len(held_out[0]) == len(held_out[1]) == 359
    assert len(held_out[0] & held_out[1]) == pytest.approx(359 * 0.2, abs=30)


def test_the_fingerprint_tells_one_split_from_another() -> None:
    prints = {load_dataset(DataOptions(data="digits"), seed=seed).fingerprint for seed in (0, 0, 1)}
    assert len(prints) == 2


def test_the_same_options_give_the_same_split() -> None:
    first, second = load("digits"), load("digits")
    assert [first.val.label(i) for i in range(20)] == [second.val.label(i) for i in range(20)]
    assert (first.mean, first.std) == (second.mean, second.std)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_sets_keep_their_published_test_set(own: Path, name: str) -> None:
    arrays = idx_arrays(own, name)
    data = load(name, val_fraction=0.2)
    assert (len(data.train), len(data.val), len(data.test)) == (80, 20, 20)
    np.testing.assert_array_equal(
        data.test.take(torch.arange(20))[:, 0].numpy(), arrays["test_images"]
    )
    assert data.test.targets.tolist() == arrays["test_labels"].tolist()
    assert data.class_names[1] == ("1" if name == "mnist" else "trouser")


def test_idx_files_that_do_not_fit_together_are_refused(own: Path) -> None:
    idx_arrays(own, "mnist")
    write_idx(own / "mnist" / IDX_PARTS["train_labels"], np.zeros(99, dtype=np.uint8))
    with pytest.raises(CorruptFileError, match=r"\[100, 6, 6\] pictures and \[99\] labels"):
        load("mnist")


def test_cifar10_is_read_from_its_archive(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    luck = np.random.default_rng(0)
    (own / "cifar10").mkdir()
    with tarfile.open(own / "cifar10" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in (*TRAIN_FILES, TEST_FILE):
            table = luck.integers(0, 256, (20, 3073), dtype=np.uint8)
            table[:, 0] = np.arange(20) % 10
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = table.size
            archive.addfile(member, io.BytesIO(table.tobytes()))
    monkeypatch.setattr(load_module, "read_cifar10", partial(read_cifar10, records=20))
    data = load("cifar10")
    assert (len(data.train), len(data.val), len(data.test)) == (90, 10, 20)
    assert data.shape == (3, 32, 32)
    assert data.class_names[9] == "truck"


def test_pictures_of_known_sets_can_be_resized() -> None:
    data = load("digits", image_size=16)
    assert data.shape == (1, 16, 16)
    number = int(data.train.label(0).split()[1])
    pixels = np.round(load_digits().images[number] * 255 / 16).astype(np.uint8)
    oracle = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR)
    found = data.train.take(torch.tensor([0]))[0, 0].numpy().astype(int)
    assert np.abs(found - np.asarray(oracle).astype(int)).max() <= 1


def test_a_path_is_read_as_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", (4, 4), (index, 0, 9)).save(tmp_path / "pets" / name / f"{index}.png")
    assert load(str(tmp_path / "pets")).class_names == ("cat", "dog")
    monkeypatch.chdir(tmp_path)
    assert load("pets").class_names == ("cat", "dog")
    assert load("./pets").class_names == ("cat", "dog")


def test_an_unknown_name_says_what_there_is_and_that_paths_are_welcome() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load("fashionmnist")
    assert str(caught.value) == (
        "expected the name of a known data set (cifar10, digits, fashion_mnist, mnist) "
        "or the path of a folder of images\n"
        "received 'fashionmnist' (did you mean 'fashion_mnist'?)\n"
        "do this  use one of the names, or a path to a folder with one sub-folder per class"
    )


def test_a_missing_path_says_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"no 'picture' in .* \(did you mean 'pictures'\?\)"):
        load(str(tmp_path / "picture" / "cats"))


def test_a_file_is_refused_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"a folder of pictures at .*data\.csv\nreceived a file"):
        load(str(tmp_path / "data.csv"))


def test_every_listed_name_has_a_source() -> None:
    assert list_datasets() == ("cifar10", "digits", "fashion_mnist", "mnist")
