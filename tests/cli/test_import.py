"""Tests of leadline import: what it writes, says and refuses, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from leadline.cli.main import run
from leadline.models.create import create_model
from leadline.training.trained import load_model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=4)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "resnet20.th")
    return tmp_path / "resnet20.th"


def test_a_model_is_written_that_predicts(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import", str(weights), "--as", "resnet20"]) == 0
    said = capsys.readouterr().out
    assert "resnet20: 269,332 parameters, 4 classes, 3 channels, 32 x 32 pixels" in said
    trained = load_model(weights.with_suffix(".safetensors"))
    assert trained.description.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert trained.description.mean == (0.485, 0.456, 0.406)
    assert trained.probabilities(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 4)


def test_names_of_classes_come_from_a_file(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n\ndog\n")
    out = tmp_path / "named.safetensors"
    words = ["import", str(weights), "--as", "resnet20", "--out", str(out)]
    assert run([*words, "--classes", str(tmp_path / "classes.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["num_classes"] == 4
    assert load_model(out).description.class_names == ("ant", "bee", "cat", "dog")
    (tmp_path / "classes.txt").write_text("ant\n")
    assert run([*words, "--classes", str(tmp_path / "classes.txt")]) == 2
    assert "received 1 lines" in capsys.readouterr().err


def test_without_a_name_it_says_which_it_could_be(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import", str(weights)]) == 0
    said = capsys.readouterr().out
    assert "looks like resnet20 (100% of the tensors alike)" in said
    assert f"leadline import {weights} --as resnet20" in said


def test_weights_of_another_model_are_refused_with_the_nearest(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import", str(weights), "--as", "resnet32"]) == 1
    assert "they look like those of resnet20" in capsys.readouterr().err
    assert not weights.with_suffix(".safetensors").exists()


def test_the_tables_of_names_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", "--keys", "--as", "vit_b_16"]) == 0
    said = capsys.readouterr().out
    assert "torchvision -> vit_b_16" in said
    assert "encoder.layers.encoder_layer_0.ln_1" in said
    assert run(["import", "--keys", "--as", "resnet20"]) == 0
    assert "no table is needed" in capsys.readouterr().out


def test_the_file_that_is_read_is_never_written_over(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", str(weights), "--as", "resnet20", "--out", str(weights)]
    assert run(words) == 1
    assert "not the one to read" in capsys.readouterr().err


def test_no_file_is_told_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", "--as", "resnet50"]) == 2
    assert "try: leadline import resnet50.pth --as resnet50" in capsys.readouterr().err
