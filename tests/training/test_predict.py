"""Prediction reads image files as the training read them, and names what it cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leadline.core.errors import RunError
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.training.predict import open_model, predict_files
from leadline.training.recipe import Recipe
from leadline.training.run import Run
from leadline.training.trained import Description, TrainedModel, save_model


def make_trained(channels: int = 3) -> TrainedModel:
    torch.manual_seed(0)
    architecture = Architecture(model="convnet", width=4)
    description = Description(
        architecture=architecture,
        shape=(channels, 8, 8),
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
        class_names=("cat", "dog", "sea cow"),
    )
    model = create_model(architecture, num_classes=3, in_chans=channels, image_size=8)
    return TrainedModel(model=model.eval(), description=description)


def make_image(path: Path, seed: int = 0, side: int = 8) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_the_classes_are_the_models_likeliest_first(tmp_path: Path) -> None:
    pixels = make_image(tmp_path / "a.png")
    trained = make_trained()
    (found,) = predict_files(trained, [tmp_path / "a.png"], top=2)
    shares = trained.probabilities(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
    names = trained.description.class_names
    ranked = sorted(zip(names, shares.tolist(), strict=True), key=lambda pair: -pair[1])
    assert found.path == tmp_path / "a.png" and found.error is None
    assert [name for name, _ in found.classes] == [name for name, _ in ranked[:2]]
    assert [p for _, p in found.classes] == pytest.approx([p for _, p in ranked[:2]])


def test_more_classes_than_there_are_is_all_of_them(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    (found,) = predict_files(make_trained(), [tmp_path / "a.png"], top=99)
    assert len(found.classes) == 3
    assert sum(share for _, share in found.classes) == pytest.approx(1.0)


def test_another_size_and_mode_is_brought_to_the_models(tmp_path: Path) -> None:
    make_image(tmp_path / "large.jpg", side=50)
    Image.new("L", (5, 9), 128).save(tmp_path / "grey.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(tmp_path / "clear.png")
    for channels in (1, 3):
        found = predict_files(make_trained(channels), [tmp_path])
        assert [p.error for p in found] == [None] * 3


def test_folders_are_searched_in_order_and_other_files_in_them_passed_over(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deeper/c.png"):
        make_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    found = predict_files(make_trained(), [tmp_path / "b.png", tmp_path])
    names = [p.path.relative_to(tmp_path).as_posix() for p in found]
    assert names == ["b.png", "a.JPG", "b.png", "deeper/c.png"]


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    paths = [tmp_path / "gone.png", tmp_path / "notes.txt", tmp_path / "empty"]
    found = predict_files(make_trained(), paths)
    assert [p.path for p in found] == paths
    assert [p.error for p in found] == [
        "No such file or directory",
        "not a PNG, JPEG, WebP or BMP picture",
        "no picture (.png, .jpg, .jpeg, .webp, .bmp) in it",
    ]


def test_a_model_opens_by_its_file_and_by_its_run(tmp_path: Path) -> None:
    trained = make_trained()
    run = Run.create(Recipe(data=DataOptions(data="digits")), root=tmp_path)
    with pytest.raises(RunError, match="its training did not end"):
        open_model(run.folder)
    save_model(run.model_file, trained.model, trained.description)
    assert open_model(run.folder).description == trained.description
    assert open_model(run.model_file).description == trained.description
    with pytest.raises(RunError, match="no such folder"):
        open_model(tmp_path / "nowhere")
