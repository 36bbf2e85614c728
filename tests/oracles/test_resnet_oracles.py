"""ResNets held to their originals: trained CIFAR weights, and torchvision's with random ones.

The CIFAR form against logits that the trained ResNet-20 and -56 gave elsewhere, stored beside the
weights; the ImageNet form against torchvision, which runs here.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
import lzma
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original import assert_same, torchvision_model
from PIL import Image
from torch import Tensor

from leadline.models.create import create_model
from leadline.models.weights import import_checkpoint, load_weights

DATA = Path(
    os.environ.get("LEADLINE_DATA") or Path(__file__).parents[3] / "shared" / "data"
).expanduser()
IMAGES = DATA / "cifar10_jpeg" / "cifar10_jpeg_test.npz.xz"
CHECKPOINTS = DATA / "resnet_checkpoints_dev"
DECODED = (
    "5a6aa8185204d80b65d3dfb540696dadd5f10d185ded226a96665d3e0fc6259f"  # sha256, 10,000 images
)
EVERY = 20  # the images are sorted by class: 500 of the 10,000, 50 of each class

needs_data = pytest.mark.skipif(
    not (IMAGES.is_file() and CHECKPOINTS.is_dir()),
    reason=f"missing: {IMAGES} or {CHECKPOINTS} (set LEADLINE_DATA to their parent)",
)


@functools.cache
def decoded() -> np.ndarray[Any, np.dtype[np.uint8]]:
    with lzma.open(IMAGES) as stream:
        stored = np.load(io.BytesIO(stream.read()))
    jpeg, offset = stored["jpeg"].tobytes(), stored["offset"]
    pictures = (
        Image.open(io.BytesIO(jpeg[begin:end])) for begin, end in itertools.pairwise(offset)
    )
    return np.stack([np.asarray(picture) for picture in pictures])


def preprocessed(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std


@needs_data
def test_the_jpeg_images_decode_here_as_where_the_logits_were_made() -> None:
    digest = hashlib.sha256(np.ascontiguousarray(decoded()).tobytes()).hexdigest()
    assert digest == DECODED, "this JPEG decoder differs; the logits cannot be compared"


@needs_data
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_trained_cifar_weights_load_unchanged_and_give_the_stored_logits(name: str) -> None:
    (checkpoint,) = CHECKPOINTS.glob(f"{name}-*.th")
    (stored,) = CHECKPOINTS.glob(f"{name}-*.npy")
    reference = json.loads((CHECKPOINTS / "REFERENCE.json").read_text())["models"][name]
    model = create_model(name, num_classes=10, in_chans=3, image_size=32)
    load_weights(model, import_checkpoint(checkpoint))
    model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(x) for x in preprocessed(decoded()[::EVERY]).split(250)])
    expected = torch.from_numpy(np.load(stored)[::EVERY])
    assert (logits - expected).abs().max().item() < 1e-4
    assert sum(parameter.numel() for parameter in model.parameters()) == reference["params"]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_torchvision_weights_load_unchanged_and_give_its_logits_and_gradients(name: str) -> None:
    original = torchvision_model(name, num_classes=7)
    model = create_model(name, num_classes=7, image_size=64)
    assert_same(model, original, torch.randn(3, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ],
)
def test_parameters_are_as_many_as_torchvision_publishes(name: str, count: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=1000, in_chans=3, image_size=224)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
