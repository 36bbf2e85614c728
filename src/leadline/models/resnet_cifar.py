"""ResNet for small images, as for CIFAR-10: three stages of basic blocks, 6n + 2 layers deep.

A 3x3 convolution to `width` channels, then 3 x n basic blocks with w, 2w and 4w channels on maps
of the full, half and quarter size, a global average and a linear head (He et al. 2015, section
4.2). Where the shape changes the shortcut has no weights ('option A'): every second row and column
is taken, and channels of zeros are added. State dicts of akamaster/pytorch_resnet_cifar10 fit.

The surprising choice: the zero channels are added on both sides of the others, as in the trained
weights that this form is held to; the paper does not say where.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.models.resnet_block import BasicBlock, make_stages
from leadline.nn.activations import make_activation
from leadline.nn.norms import make_map_norm
from leadline.nn.stochastic_depth import linear_rates

DEPTHS = (20, 32, 44, 56, 110, 1202)  # He et al. 2015, table 6
DEFAULTS = Blueprint(depth=20, width=16, norm="batch", activation="relu", init="he", residual=True)


class SubsampleAndPad(nn.Module):
    """Option A: keep every `stride`-th row and column, add channels of zeros on both sides.

    >>> import torch
    >>> SubsampleAndPad(extra_channels=2, stride=2)(torch.ones(1, 2, 4, 4)).sum(dim=(2, 3))
    tensor([[0., 4., 4., 0.]])
    """

    def __init__(self, *, extra_channels: int, stride: int) -> None:
        super().__init__()
        self.front = extra_channels // 2
        self.back = extra_channels - self.front
        self.stride = stride

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        kept = maps[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(kept, (0, 0, 0, 0, self.front, self.back))

    def extra_repr(self) -> str:
        return f"front={self.front}, back={self.back}, stride={self.stride}"


class ResNetCifar(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("linear",)

    def __init__(self, blueprint: Blueprint, images: Images) -> None:
        super().__init__(images, num_features=4 * blueprint.width)
        width, before = blueprint.width, blueprint.preactivation
        per_stage = (blueprint.depth - 2) // 6
        self.conv1 = nn.Conv2d(images.in_chans, width, 3, padding=1, bias=blueprint.bias)
        self.bn1 = nn.Identity() if before else make_map_norm(blueprint.norm, width)
        self.act1 = nn.Identity() if before else make_activation(blueprint.activation)
        self.layer1, self.layer2, self.layer3 = make_stages(
            blueprint,
            block=BasicBlock,
            inputs=width,
            counts=(per_stage,) * 3,
            rates=linear_rates(blueprint.drop_path_rate, blocks=3 * per_stage),
            shortcut=_option_a,
        )
        self.norm = make_map_norm(blueprint.norm, 4 * width) if before else nn.Identity()
        self.last_act = make_activation(blueprint.activation) if before else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(blueprint.dropout)
        self.linear = nn.Linear(4 * width, images.num_classes)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps = self.act1(self.bn1(self.conv1(images)))  # B w H W
        maps = self.layer1(maps)
        maps = self.layer2(maps)  # B 2w H/2 W/2
        maps = self.layer3(maps)  # B 4w H/4 W/4
        last: Tensor = self.last_act(self.norm(maps))
        return last

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        pooled = self.avgpool(features).flatten(1)  # B 4w
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits


def _option_a(blueprint: Blueprint, inputs: int, outputs: int, stride: int) -> nn.Module:
    return SubsampleAndPad(extra_channels=outputs - inputs, stride=stride)


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map: two strides of 2, each rounding up."""
    return -(-image_size // 4)


def problems(blueprint: Blueprint) -> list[str]:
    """What this form cannot be asked for."""
    depth = blueprint.depth
    if depth < 8 or (depth - 2) % 6:
        below = max(8, 2 + 6 * ((depth - 2) // 6))
        return [
            f"depth: the CIFAR form of ResNet has 6n + 2 layers, n >= 1, received {depth}; "
            f"near it are {below} and {below + 6}"
        ]
    return []


MODELS = {
    f"resnet{depth}": Family(
        caption=f"ResNet-{depth}, CIFAR form for small images: depth = layers (6n + 2), "
        "width = channels of the first stage",
        build=ResNetCifar,
        defaults=dataclasses.replace(DEFAULTS, depth=depth),
        image_size=32,
        final_size=final_size,
        problems=problems,
    )
    for depth in DEPTHS
}
