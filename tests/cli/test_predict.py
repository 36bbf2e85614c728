"""A trained network asked about files, folders, and things that are neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from leadline.training.run import Run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three digits as PNG files, one of them deeper, and a text that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "deeper").mkdir()
    for number, name in enumerate(("a.png", "b.png", "deeper/c.png")):
        pixels = (load_digits().images[number] * 255 / 16).round().astype("uint8")
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_json_has_exactly_these_keys_and_agrees_with_the_run(
    leadline: Any, trained: Path, pictures: Path
) -> None:
    said = leadline("predict", trained, pictures / "a.png", "--top", "10", "--json")
    assert said.code == 0 and said.err == "" and len(said.out.splitlines()) == 1
    assert set(said.last) == {"predictions"}
    (row,) = said.last["predictions"]
    assert set(row) == {"image", "classes", "error"}
    assert row["image"] == str(pictures / "a.png") and row["error"] is None
    pixels = (load_digits().images[:1] * 255 / 16).round().astype("uint8")[:, None]
    shares = Run(trained).predict(pixels)[0].tolist()
    assert row["classes"] == pytest.approx({str(k): share for k, share in enumerate(shares)})
    assert list(row["classes"].values()) == sorted(row["classes"].values(), reverse=True)


def test_a_folder_gives_all_its_pictures_in_order_and_a_person_a_line_for_each(
    leadline: Any, trained: Path, pictures: Path
) -> None:
    said = leadline("predict", trained, pictures)
    assert said.code == 0
    lines = said.out.splitlines()
    names = ["a.png", "b.png", "deeper/c.png"]
    assert [line.partition(":")[0] for line in lines] == [str(pictures / n) for n in names]
    assert all(line.count("%") == 3 for line in lines), "three classes, unless told otherwise"


def test_the_model_file_serves_as_well_as_the_run(
    leadline: Any, trained: Path, pictures: Path
) -> None:
    by_run = leadline("predict", trained, pictures)
    by_file = leadline("predict", trained / "model.safetensors", pictures)
    assert by_run.out == by_file.out


def test_what_cannot_be_read_is_named_the_rest_is_predicted_and_the_code_is_1(
    leadline: Any, trained: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes((pictures / "a.png").read_bytes()[:60])
    (tmp_path / "empty").mkdir()
    words = [tmp_path / "broken.png", tmp_path / "gone.png", pictures / "notes.txt"]
    said = leadline("predict", trained, *words, tmp_path / "empty", pictures / "a.png", "--json")
    assert said.code == 1
    rows = said.last["predictions"]
    assert [bool(row["error"]) for row in rows] == [True, True, True, True, False]
    assert all(row["classes"] == {} for row in rows[:4])
    assert rows[1]["error"] == "No such file or directory"
    assert "no picture (.png, .jpg" in rows[3]["error"]
    plain = leadline("predict", trained, tmp_path / "gone.png").out
    assert plain == f"{tmp_path}/gone.png: No such file or directory\n"


def test_no_image_at_all_was_asked_wrongly(leadline: Any, trained: Path) -> None:
    said = leadline("predict", trained)
    assert said.code == 2
    assert "name at least one image or folder" in said.err
    assert leadline("predict", trained, "x.png", "--top", "0").code == 2


def test_a_run_that_is_not_there_is_named(leadline: Any) -> None:
    said = leadline("predict", "runs/none", "x.png")
    assert said.code == 1
    assert "received runs/none (no such folder)" in said.err
