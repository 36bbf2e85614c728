"""A trained model as one file: what it says about itself comes back, and lies are refused."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from leadline.core.errors import CorruptFileError, DataError, ModelError
from leadline.data.load import load_dataset
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.training.trained import Description, TrainedModel, load_model, save_model

DESCRIPTION = Description(
    architecture=Architecture(model="convnet", width=4),
    shape=(3, 8, 8),
    mean=(0.5, 0.25, 0.0),
    std=(0.5, 0.25, 1.0),
    class_names=("cat", "dog", "sea cow"),
)


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return create_model(DESCRIPTION.architecture, num_classes=3, in_chans=3, image_size=8).eval()


def saved(folder: Path) -> Path:
    path = folder / "model.safetensors"
    save_model(path, make_model(), DESCRIPTION)
    return path


def altered(path: Path, **changes: Any) -> Path:
    """The file with another description: what a hand or a bug might write there."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["leadline"])
    header["__metadata__"]["leadline"] = json.dumps({**description, **changes})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


def test_a_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    trained = load_model(saved(tmp_path))
    assert trained.description == DESCRIPTION
    assert not trained.model.training
    images = torch.randn(5, 3, 8, 8)
    assert torch.equal(trained.model(images), make_model()(images))


def test_probabilities_are_those_of_the_normalised_images(tmp_path: Path) -> None:
    trained = load_model(saved(tmp_path))
    images = torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (DESCRIPTION.mean, DESCRIPTION.std))
    with torch.no_grad():
        expected = make_model()((images / 255 - mean) / std).softmax(dim=1)
    assert torch.allclose(trained.probabilities(images), expected, atol=1e-6)
    assert torch.allclose(trained.probabilities(images / 255), expected, atol=1e-6)
    assert trained.probabilities(images).sum(dim=1).allclose(torch.ones(300))


def test_what_cannot_be_an_image_of_this_model_is_refused(tmp_path: Path) -> None:
    trained = load_model(saved(tmp_path))
    for shape in [(1, 1, 8, 8), (1, 3, 8, 9), (3, 8, 8)]:
        with pytest.raises(DataError, match=r"images of shape \[B, 3, 8, 8\]"):
            trained.probabilities(torch.zeros(shape))


def test_asking_leaves_no_gradient_and_the_model_in_eval_mode() -> None:
    model = make_model().train()
    trained = TrainedModel(model=model, description=DESCRIPTION)
    assert not trained.probabilities(torch.zeros(1, 3, 8, 8)).requires_grad
    assert not model.training


def test_the_description_comes_from_the_data() -> None:
    dataset = load_dataset(DataOptions(data="digits"))
    description = Description.of(Architecture(), dataset)
    assert description.shape == (1, 8, 8)
    assert description.class_names == tuple("0123456789")
    assert (description.mean, description.std) == (dataset.mean, dataset.std)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mean": [0.5]}, "mean must have 3 entries, one a channel, received 1"),
        ({"std": [0.5, 0.0, 1.0]}, r"std\[1\] must be > 0, received 0.0"),
        ({"mean": [0.5, 0.1, float("nan")]}, r"mean\[2\] must be > -inf, received nan"),
        ({"shape": [3, 8, 100000]}, r"shape must be square, received \(3, 8, 100000\)"),
        ({"shape": [3, 10**7, 10**7]}, r"shape\[1\] must be >= 1 and <= 4096"),
        ({"class_names": ["cat"]}, r"len\(class_names\) must be >= 2"),
        ({"shape": "large"}, "shape must be a list, received 'large'"),
        ({"weight": 1}, "unknown key weight"),
        ({"architecture": {"model": "convnet", "width": 10**6}}, "where the file holds"),
        ({"architecture": {"model": "convnot"}}, r"'convnot' \(did you mean 'convnet'\?\)"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken_for_it(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CorruptFileError, match=f"description in the header.*\nreceived .*{said}"):
        load_model(altered(saved(tmp_path), **changes))


def test_a_header_that_fits_other_weights_is_refused_tensor_by_tensor(tmp_path: Path) -> None:
    path = altered(saved(tmp_path), shape=[1, 8, 8], mean=[0.5], std=[0.5])
    with pytest.raises(ModelError, match=r"stem.* \(2, 3, 3, 3\) for \(2, 1, 3, 3\)"):
        load_model(path)


def test_weights_without_a_description_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(CorruptFileError, match="without a Leadline description"):
        load_model(path)


def test_a_description_names_all_its_problems_at_once() -> None:
    with pytest.raises(ValueError, match="received 3 problems"):
        dataclasses.replace(DESCRIPTION, mean=(), std=(1.0, -1.0, 1.0), shape=(3, 8, 9))
