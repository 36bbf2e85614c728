"""Bad input the whole way through the command line: a message, an exit code, nothing left behind.

Read-only folders are not made with permission bits, which do not bind the superuser: the runs are
sent below a regular file instead, where nobody can write.
"""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from leadline.core.config import to_plain
from leadline.core.errors import DataError, NonFiniteError
from leadline.data.arrays import from_arrays
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.training.build import build_setup
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.recipe import Budget, Recipe
from leadline.training.run import Run

QUICK = ("--epochs", "1", "--width", "4", "--precision", "float32", "--minutes", "None")


def make_folder(root: Path, *classes: str, count: int = 12, size: int = 8) -> Path:
    """Noise in colour, `count` pictures in a sub-folder for each class."""
    chance = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = chance.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02d}.png")
    return root


def assert_refused(said: Any, code: int, *parts: str) -> None:
    """Said in three labelled parts on stderr, and nothing was made."""
    assert said.code == code, said
    labels = [line[:9] for line in said.err.splitlines() if not line.startswith("  - ")]
    assert labels[0].startswith("error: ")
    assert labels[1:] == ["expected ", "received ", "do this  "], said.err
    for part in parts:
        assert part in said.err
    assert "Traceback" not in said.err
    runs = Path("runs")
    assert not runs.exists() or not list(runs.iterdir()), "a folder was left behind"


# ---------------------------------------------------------------------------- folders of pictures


def test_a_path_that_is_not_there(leadline: Any, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    said = leadline("train", tmp_path / "pictuers" / "cats", *QUICK)
    assert_refused(said, 1, f"no 'pictuers' in {tmp_path} (did you mean 'pictures'?)")


def test_an_empty_folder(leadline: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = leadline("train", tmp_path / "empty", *QUICK)
    assert_refused(said, 1, "received no picture", "one sub-folder per class")


def test_one_class(leadline: Any, tmp_path: Path) -> None:
    said = leadline("train", make_folder(tmp_path / "one", "cat"), *QUICK)
    assert_refused(said, 1, "at least two classes", "'cat'")


def test_an_unreadable_picture_is_named_and_counted_and_the_training_goes_on(
    leadline: Any, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "data", "cat", "dog")
    (folder / "cat" / "03.png").write_bytes((folder / "cat" / "03.png").read_bytes()[:50])
    (folder / "dog" / "05.png").write_text("a text")
    said = leadline("train", folder, *QUICK)
    assert said.code == 0 and said.err == ""
    assert "skipped 2 unreadable pictures: " in said.out
    for name in ("cat/03.png", "dog/05.png"):
        assert f"{folder / name} (" in said.out
    (row,) = (row for row in Run.open("runs/data-001").history() if row["event"] == "end")
    assert row["step"] > 0


def test_pictures_none_of_which_can_be_read(leadline: Any, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", "cat", "dog")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"nothing")
    said = leadline("train", folder, *QUICK)
    assert_refused(said, 1, "24 files, none of them readable", "cat/00.png", "and 19 more")


def test_pictures_of_one_pixel_are_trained_on(leadline: Any, tmp_path: Path) -> None:
    said = leadline("train", make_folder(tmp_path / "data", "cat", "dog", size=1), *QUICK)
    assert said.code == 0 and said.err == ""
    assert "1 × 1 pixels" in said.out


def test_a_channel_that_never_changes_is_said_and_trained_on(leadline: Any, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", "cat", "dog")
    for path in folder.rglob("*.png"):
        pixels = np.array(Image.open(path))
        pixels[..., 2] = 7
        Image.fromarray(pixels).save(path)
    said = leadline("train", folder, *QUICK)
    assert said.code == 0 and said.err == ""
    assert "channel 2 has the same value in every training picture" in said.out
    assert np.isfinite(Run.open("runs/data-001").metrics["loss"])


def test_parts_with_different_classes(leadline: Any, tmp_path: Path) -> None:
    make_folder(tmp_path / "data" / "train", "cat", "dog")
    make_folder(tmp_path / "data" / "test", "cat", "cow")
    said = leadline("train", tmp_path / "data", *QUICK)
    assert_refused(said, 1, "only in test: cow; not in test: dog")


def test_a_batch_larger_than_the_data(leadline: Any, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", "cat", "dog")
    said = leadline("train", folder, *QUICK, "--batch-size", "1000")
    assert_refused(said, 2, "training examples", "received batch_size 1,000", "--batch-size ")


def test_what_does_not_fit_the_pictures_is_refused_before_a_folder_is_made(
    leadline: Any, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "data", "cat", "dog")
    said = leadline("train", folder, *QUICK, "--crop", "8")
    assert_refused(said, 2, "crop must be < 8, the side of a picture: 8")
    said = leadline("train", folder, *QUICK, "--model", "resnet20", "--depth", "21")
    assert_refused(said, 2, "depth")


# -------------------------------------------------------------------------- names, files, places


def test_an_unknown_name(leadline: Any) -> None:
    said = leadline("train", "fashon_mnist", *QUICK)
    assert_refused(said, 2, "'fashon_mnist' (did you mean 'fashion_mnist'?)")


def test_a_recipe_with_unknown_and_missing_keys_and_wrong_types(
    leadline: Any, tmp_path: Path
) -> None:
    plain = to_plain(Recipe(data=DataOptions(data="digits")))
    del plain["data"]["data"]
    plain["mdoel"] = plain.pop("model")
    plain["optimizer"]["lr"] = "fast"
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(plain))
    said = leadline("train", path)
    parts = ("unknown key mdoel (did you mean 'model'?)", "missing key data.data")
    assert_refused(said, 2, *parts, "optimizer.lr must be a number, received 'fast' (text)")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"[1, 2]", b'{"data": 3}'])
def test_a_recipe_that_is_no_recipe(content: bytes, leadline: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    assert_refused(leadline("train", path), 2, str(path))


def test_a_place_where_nothing_can_be_written(leadline: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    said = leadline("train", "digits", *QUICK, "--runs", tmp_path / "file" / "runs")
    assert_refused(said, 1, f"a folder that can be written at {tmp_path}/file/runs", "choose")


def test_a_run_that_cannot_be_locked(leadline: Any, tmp_path: Path) -> None:
    run = Run.create(Recipe(data=DataOptions(data="digits")), root=tmp_path / "made")
    (run.folder / ".lock").mkdir()
    said = leadline("train", "--resume", run.folder)
    assert_refused(said, 1, f"expected to write into {run.folder}", "Is a directory")


def test_the_folder_of_a_run_in_the_place_of_data(leadline: Any, tmp_path: Path) -> None:
    run = Run.create(Recipe(data=DataOptions(data="digits")), root=tmp_path / "made")
    said = leadline("train", run.folder)
    assert_refused(said, 2, "which is the folder of a run", f"--resume {run.folder}")


def test_a_gpu_that_is_not_there(leadline: Any) -> None:
    if torch.cuda.is_available():
        said = leadline("train", "digits", *QUICK, "--device", "cuda:99")
    else:
        said = leadline("train", "digits", *QUICK, "--device", "cuda")
    assert_refused(said, 2, "on this machine", "leave the device out")


# ------------------------------------------------------------------------------ numbers, not files


def recipe(**changes: Any) -> Recipe:
    model = Architecture(model="mlp", width=4)
    budget = Budget(epochs=1, batch_size=8)
    return Recipe(data=DataOptions(data="arrays"), model=model, budget=budget, **changes)


def test_labels_out_of_range() -> None:
    images = np.zeros((30, 4, 4), dtype=np.uint8)
    with pytest.raises(DataError, match=r"class numbers from 0 to 1.*\n.*7 at index 4"):
        from_arrays(images, [0, 1, 0, 1, 7] * 6, class_names=("cat", "dog"))
    with pytest.raises(DataError, match=r"class numbers.*\n.*-1 at index 1"):
        from_arrays(images, [0, -1, 1] * 10)


def test_nan_in_the_input_is_found_before_the_training() -> None:
    images = np.zeros((30, 4, 4), dtype=np.float32)
    images[7, 0, 0] = np.nan
    with pytest.raises(DataError, match="1 NaN and 0 infinite values in 1 of 30 inputs"):
        from_arrays(images, [0, 1, 2] * 10)


def test_nan_that_comes_later_stops_before_the_weights_change() -> None:
    images = np.random.default_rng(0).random((60, 4, 4)).astype(np.float32)
    dataset = from_arrays(images, [0, 1, 2] * 20)
    dataset.train.images[5] = torch.nan  # type: ignore[attr-defined]  # these are in memory
    setup = build_setup(recipe(), dataset, device="cpu")
    with pytest.raises(NonFiniteError, match="the input itself is not finite"):
        for _ in steps(setup, Execution()):
            pass


def test_a_rate_far_too_high_stops_with_the_step_and_the_layer_and_leaves_no_model(
    leadline: Any,
) -> None:
    said = leadline("train", "digits", *QUICK, "--lr", "1e30", "--json")
    assert said.code == 1
    object_ = json.loads(said.out.splitlines()[-1])
    assert object_["error"] == "NonFiniteError"
    assert "loss nan at step 2 (epoch 1): it began in the output of layer '" in said.err
    assert "lower lr, clip the gradient with --clip-grad 1" in said.err
    assert "Traceback" not in said.err
    run = Run.open("runs/digits-001")
    assert [row["step"] for row in run.history() if row["event"] == "step"] == [1]
    names = {path.name for path in run.folder.rglob("*")}
    assert names == {".lock", "recipe.json", "journal.jsonl", "checkpoints"}
    again = leadline("predict", run.folder, "image.png")
    assert again.code == 1 and "its training did not end" in again.err


# ------------------------------------------------------------------------------- files as models


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.safetensors"])
@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_a_pickle_offered_as_a_model_is_refused_and_not_read(
    name: str, kind: str, leadline: Any, tmp_path: Path
) -> None:
    path = tmp_path / name
    if kind == "torch":
        torch.save({"weight": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Bomb()}))
    said = leadline("predict", path, "image.png")
    assert_refused(said, 1, "UnsafeFileError", "can run any code", "import_checkpoint")
    assert not Path("bomb").exists()


class Bomb:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("bomb"),))


def lying(path: Path, **offsets: Any) -> None:
    """A safetensors file whose header promises what is not there."""
    save_file({"weight": torch.ones(4)}, path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["weight"].update(offsets)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_a_safetensors_header_that_lies(leadline: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for lie in ({"data_offsets": [0, 10**12]}, {"shape": [10**9]}, {"data_offsets": [-1, 15]}):
        lying(path, **lie)
        said = leadline("predict", path, "image.png")
        assert_refused(said, 1, "CorruptFileError", f"a safetensors file at {path}")
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    assert_refused(leadline("predict", path, "image.png"), 1, "header too large")


@pytest.mark.parametrize("content", [b"some text, long enough to be taken for a header", b""])
def test_a_text_named_like_a_model(content: bytes, leadline: Any, tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_bytes(content)
    said = leadline("predict", path, "image.png")
    assert_refused(said, 1, "CorruptFileError", f"{len(content)} bytes that are none")


def test_a_model_that_leadline_did_not_write(leadline: Any, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(4)}, path)
    said = leadline("predict", path, "image.png")
    assert_refused(said, 1, "without a Leadline description", "model.safetensors of a run folder")
