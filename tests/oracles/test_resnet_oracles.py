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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original import assert_same, randomised, timm_model, torchvision_model
from PIL import Image
from torch import Tensor, nn

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


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet152", "wide_resnet50_2", "resnext50_32x4d"]
)
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
        ("wide_resnet50_2", 68_883_240),
        ("wide_resnet101_2", 126_886_696),
        ("resnext50_32x4d", 25_028_904),
        ("resnext101_32x8d", 88_791_336),
        ("resnext101_64x4d", 83_455_272),
    ],
)
def test_parameters_are_as_many_as_torchvision_publishes(name: str, count: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=1000, in_chans=3, image_size=224)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", ["seresnet18", "seresnet50", "seresnext50_32x4d"])
def test_timm_weights_load_unchanged_and_give_its_logits_and_gradients(name: str) -> None:
    original = timm_model(name, num_classes=7)
    model = create_model(name, num_classes=7, image_size=64)
    assert_same(model, original, torch.randn(3, 3, 64, 64))


class PlainPreactivated(nn.Module):
    """He et al. 2016 as its figure 4(e) and its published code have it, written out."""

    def __init__(self, *, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1, bias=False)
        inputs, rows = width, []
        for stage, planes in enumerate((width, 2 * width, 4 * width)):
            for position in range((depth - 2) // 9):
                stride = 2 if stage and not position else 1
                layers = nn.ModuleList()
                layers.append(nn.BatchNorm2d(inputs))
                layers.append(nn.Conv2d(inputs, planes, 1, bias=False))
                layers.append(nn.BatchNorm2d(planes))
                layers.append(nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False))
                layers.append(nn.BatchNorm2d(planes))
                layers.append(nn.Conv2d(planes, 4 * planes, 1, bias=False))
                if inputs != 4 * planes:
                    layers.append(nn.Conv2d(inputs, 4 * planes, 1, stride=stride, bias=False))
                inputs = 4 * planes
                rows.append(layers)
        self.rows = nn.ModuleList(rows)
        self.norm = nn.BatchNorm2d(inputs)
        self.last = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        for layers in self.rows:
            active = layers[0](maps).relu()
            branch = layers[3](layers[2](layers[1](active)).relu())
            branch = layers[5](layers[4](branch).relu())
            maps = branch + (layers[6](active) if len(layers) == 7 else maps)
        return self.last(self.norm(maps).relu().mean(dim=(2, 3)))


def by_order(ours: nn.Module, theirs: nn.Module) -> dict[str, str]:
    """Their names to ours: the layers stand in the same order, ours with each norm behind."""
    names = {"first": "conv1", "norm": "norm", "last": "linear"}
    kinds = ("bn1", "conv1", "bn2", "conv2", "bn3", "conv3", "downsample.0")
    blocks = [
        name
        for name, module in ours.named_modules()
        if name.startswith("layer") and name.count(".") == 1
    ]
    for row, block in enumerate(blocks):
        for index, kind in enumerate(kinds):
            names[f"rows.{row}.{index}"] = f"{block}.{kind}"
    return names


@pytest.mark.parametrize("depth", [11, 29])
def test_a_preactivated_resnet_is_that_of_he_et_al_2016(depth: int) -> None:
    torch.manual_seed(0)
    original = randomised(PlainPreactivated(depth=depth, width=4, num_classes=5))
    model = create_model("preresnet164", depth=depth, width=4, num_classes=5, image_size=16)
    names = by_order(model, original)

    def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        split = {key: key.rpartition(".") for key in state}
        return {f"{names[split[key][0]]}.{split[key][2]}": state[key] for key in state}

    assert_same(model, original, torch.randn(3, 3, 16, 16), translate=translate)


@pytest.mark.parametrize(("name", "millions"), [("preresnet164", 1.7), ("preresnet1001", 10.3)])
def test_preactivated_resnets_are_as_large_as_published(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=10, image_size=32)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6, 1) == millions
