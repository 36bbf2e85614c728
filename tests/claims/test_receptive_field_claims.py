"""Claims of the literature about receptive fields, each with its number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.core.profile import Profile
from leadline.measure.receptive_fields.effective_receptive_field import effective_receptive_field
from leadline.measure.receptive_fields.receptive_field import receptive_field

torchvision = pytest.importorskip("torchvision", reason="the oracle torchvision is not installed")
timm = pytest.importorskip("timm", reason="the oracle timm is not installed")


def measured(build: Callable[[], Any], size: int = 224) -> Profile:
    """On the meta device, where nothing is computed: only the shapes matter."""
    with torch.device("meta"):
        model, image = build(), torch.empty(1, 3, size, size)
    return receptive_field(model, image)


def at_the_stride_of_the_paper(model: Any) -> Any:
    """torchvision strides in a block's 3x3 convolution ("v1.5"), the paper in its first 1x1."""
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return model


# The table of Araujo et al. 2019 and of the library with it (google-research/receptive_field):
# size, stride and padding of the last convolutional features.
TABLE: dict[str, tuple[Callable[[], Any], str, tuple[int, int, int]]] = {
    # torchvision pads the first convolution by 2, which TF-Slim's alexnet_v2 does not: 64 + 2
    "AlexNet": (torchvision.models.alexnet, "features.12", (195, 32, 66)),
    "VGG-16": (torchvision.models.vgg16, "features.30", (212, 32, 90)),
    "ResNet-50": (
        lambda: at_the_stride_of_the_paper(torchvision.models.resnet50()),
        "layer4.2/add",
        (483, 32, 241),
    ),
    "MobileNet v1": (lambda: timm.create_model("mobilenetv1_100"), "conv_head", (315, 32, 157)),
    "Inception v3": (
        lambda: torchvision.models.inception_v3(init_weights=False),
        "Mixed_7c/cat (call 3)",
        (1311, 32, 618),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_araujo_2019(name: str) -> None:
    build, layer, (size, stride, padding) = TABLE[name]
    row = measured(build, 299 if "Inception" in name else 224).at(layer)
    for axis in ("height", "width"):
        assert row[f"size_{axis}"] == size
        assert row[f"jump_{axis}"] == stride
        assert row[f"start_{axis}"] == -padding


def test_torchvisions_resnet_50_strides_later_and_sees_427() -> None:
    row = measured(torchvision.models.resnet50).at("layer4.2/add")
    assert (row["size_height"], row["jump_height"], row["seen_height"]) == (427, 32, 224)


def test_a_vision_transformer_sees_everything_from_its_first_attention_on() -> None:
    profile = measured(torchvision.models.vit_b_16)
    assert profile.at("conv_proj")["size_height"] == 16
    assert profile.at("encoder.layers.encoder_layer_0.ln_1")["size_height"] == 16
    assert profile.at("encoder.layers.encoder_layer_0.ln_2")["size_height"] == 224


def test_swins_windows_see_4_by_7_pixels_then_those_of_their_neighbours() -> None:
    """Patches of 4, windows of 7 patches; shifted by 3, a window overlaps two of the first."""
    model = torchvision.models.swin_t().features[:2]
    profile = receptive_field(model, torch.randn(1, 3, 112, 112))
    assert profile.at("0.0")["size_height"] == 4
    assert profile.at("1.0.norm2")["size_height"] == 28
    assert profile.at("1.1.norm2")["size_height"] == 56


def chain(depth: int, *, weights: str = "uniform", **options: int) -> nn.Module:
    """Convolutions of 3 over one channel (uniform) or eight (random), without nonlinearity."""
    channels = 1 if weights == "uniform" else 8
    layers = [
        nn.Conv2d(1 if i == 0 else channels, channels, 3, bias=False, **options)
        for i in range(depth)
    ]
    for layer in layers:
        if weights == "uniform":
            nn.init.constant_(layer.weight, 1 / 9)
        else:
            nn.init.normal_(layer.weight, std=(1 / layer.weight[0].numel()) ** 0.5)
    return nn.Sequential(*layers)


DEPTHS = (5, 10, 20, 40)
SIDE = 2 * max(DEPTHS) + 3  # one unit of the deepest sees all but the border


def slope(xs: tuple[int, ...], ys: list[float]) -> float:
    """The exponent b of y = a x^b, by least squares on logarithms."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (xs, ys))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@pytest.mark.parametrize(("weights", "seed"), [("uniform", 0), ("random", 0), ("random", 1)])
def test_the_effective_field_grows_like_the_root_of_depth_the_theoretical_like_depth(
    weights: str, seed: int
) -> None:
    """Luo et al. 2016, sections 2 and 3.2: O(sqrt n) against O(n), their ratio O(1/sqrt n)."""
    torch.manual_seed(seed)
    images = torch.randn(8, 1, SIDE, SIDE)
    radius: list[float] = []
    size: list[float] = []
    theory: list[float] = []
    for depth in DEPTHS:
        model = chain(depth, weights=weights)
        field = effective_receptive_field(model, images, layer=str(depth - 1))
        radius.append(field.radius[0])
        size.append(field.size)
        theory.append(receptive_field(model, images).at(str(depth - 1))["size_height"] - 1)
    assert slope(DEPTHS, theory) == pytest.approx(1)
    # one random network for each depth: over five seeds 0.50 to 0.54, and 0.45 to 0.51 for the size
    margin = 0.02 if weights == "uniform" else 0.1
    assert slope(DEPTHS, radius) == pytest.approx(0.5, abs=margin)
    assert slope(DEPTHS, size) == pytest.approx(0.5, abs=0.05 + margin)
    ratio = [r / t for r, t in zip(radius, theory, strict=True)]
    assert slope(DEPTHS, ratio) == pytest.approx(-0.5, abs=margin)


def test_the_radius_of_uniform_weights_is_that_of_a_sum_of_uniform_steps() -> None:
    """Luo et al. 2016, section 2.3: the variance of n kernels of k is n (k^2 - 1) / 12."""
    for depth in DEPTHS:
        field = effective_receptive_field(chain(depth), torch.zeros(1, 1, SIDE, SIDE))
        assert field.radius[1] == pytest.approx(2 * math.sqrt(depth * 8 / 12), rel=1e-4)


@pytest.mark.parametrize("weights", ["uniform", "random"])
def test_the_effective_field_is_a_gaussian(weights: str) -> None:
    """Luo et al. 2016, section 2.3; as there, averaged over networks where weights are random."""
    torch.manual_seed(0)
    side, networks = 33, 1 if weights == "uniform" else 40
    images = torch.randn(8, 1, side, side)
    fields = [
        effective_receptive_field(chain(12, weights=weights), images) for _ in range(networks)
    ]
    power = torch.stack([field.map.square() / field.map.square().sum() for field in fields])
    mean = power.mean(0)
    index = torch.arange(side, dtype=torch.float64)
    along = mean.sum(1)
    centre = (along * index).sum() / along.sum()
    variance = (along * (index - centre).square()).sum() / along.sum()
    gaussian = torch.exp(-(index - centre).square() / (2 * variance))
    both = torch.stack([torch.outer(gaussian, gaussian).flatten(), mean.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.99


def test_stride_and_dilation_enlarge_the_effective_field() -> None:
    """Luo et al. 2016, section 3.2: subsampling and dilation help, since they multiply."""
    images = torch.zeros(1, 1, 127, 127)
    plain = effective_receptive_field(chain(5), images).radius[0]
    dilated = effective_receptive_field(chain(5, dilation=3), images).radius[0]
    assert dilated == pytest.approx(3 * plain)
    strided = nn.Sequential(chain(2, stride=2), chain(3))
    strided_radius = effective_receptive_field(strided, images).radius[0]
    # variance 2/3 (1 + 2^2 + 3 * 4^2) = 53 of 2/3 against 5 of it
    assert strided_radius == pytest.approx(2 * math.sqrt(53 * 8 / 12), rel=1e-3)


def test_skip_connections_make_the_effective_field_smaller() -> None:
    """Luo et al. 2016, section 4.2: the identity puts weight on the middle."""

    class Skipped(nn.Module):
        def __init__(self, layers: nn.Module) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers.children():
                x = x + nn.functional.pad(layer(x), (1, 1, 1, 1))
            return x

    images = torch.zeros(1, 1, 63, 63)
    plain = effective_receptive_field(chain(10), images).radius[0]
    skipped = effective_receptive_field(Skipped(chain(10)), images).radius[0]
    # half of the steps stay where they are: half the variance
    assert skipped == pytest.approx(plain / math.sqrt(2), rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_training_enlarges_the_effective_field(seed: int) -> None:
    """Luo et al. 2016, section 4.1, on a task that needs it: the sum over the image's border."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1)]
    for _ in range(4):
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 3, padding=1)]
    model = nn.Sequential(*layers, nn.Conv2d(8, 1, 1))
    images = torch.randn(512, 1, 11, 11)
    border = torch.ones(11, 11)
    border[2:-2, 2:-2] = 0
    targets = (images[:, 0] * border).sum((1, 2)) / border.sum().sqrt()
    before = effective_receptive_field(model, images[:64], layer="9")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        rows = torch.randperm(512)[:64]
        (model(images[rows])[:, 0, 5, 5] - targets[rows]).square().mean().backward()
        optimizer.step()
    after = effective_receptive_field(model, images[:64], layer="9")
    assert after.radius[0] > 1.15 * before.radius[0]  # measured: 1.35 and 1.26
