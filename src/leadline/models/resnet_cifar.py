"""ResNet for small images, as for CIFAR-10: three stages of blocks, to 1001 layers and beyond.

A 3x3 convolution to `width` channels, then 3 x n basic blocks with w, 2w and 4w channels on maps
of the full, half and quarter size, a global average and a linear head (He et al. 2015, section
4.2). Where the shape changes the shortcut has no weights ('option A'): every second row and column
is taken, and channels of zeros are added. State dicts of akamaster/pytorch_resnet_cifar10 fit.

With pre-activation and bottlenecks, 9n + 2 layers, it trains at 1001 layers (He et al. 2016,
arXiv:1603.05027); its shortcuts are then projections where the shape changes ('option B').

The surprising choice: the zero channels are added on both sides of the others, as in the trained
weights that this form is held to; the paper does not say where.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.models.resnet_block import (
    BasicBlock,
    Bottleneck,
    ResNetBlueprint,
    block_problems,
    make_stages,
    project,
)
from leadline.nn.activations import make_activation
from leadline.nn.norms import make_map_norm
from leadline.nn.stochastic_depth import linear_rates

DEPTHS = (20, 32, 44, 56, 110, 1202)  # He et al. 2015, table 6
PREACTIVATED = (164, 1001)  # He et al. 2016, table 4

BlockName = Literal["basic", "bottleneck"]
ShortcutName = Literal["pad", "project"]
BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
}


@dataclass(frozen=True, kw_only=True)
class ResNetCifarBlueprint(ResNetBlueprint):
    """A ResNet's Blueprint with the choices of this form: its block, and its shortcuts."""

    block: BlockName = "basic"
    shortcut: ShortcutName = "pad"


DEFAULTS = ResNetCifarBlueprint(
    depth=20, width=16, norm="batch", activation="relu", init="he", residual=True
)


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

    def __init__(self, blueprint: ResNetCifarBlueprint, images: Images) -> None:
        width, before = blueprint.width, blueprint.preactivation
        block = BLOCKS[blueprint.block]
        channels = 4 * width * block.expansion
        super().__init__(images, num_features=channels)
        per_stage = (blueprint.depth - 2) // _layers_per_row(blueprint)
        self.conv1 = nn.Conv2d(images.in_chans, width, 3, padding=1, bias=blueprint.bias)
        self.bn1 = nn.Identity() if before else make_map_norm(blueprint.norm, width)
        self.act1 = nn.Identity() if before else make_activation(blueprint.activation)
        self.layer1, self.layer2, self.layer3 = make_stages(
            blueprint,
            block=block,
            inputs=width,
            counts=(per_stage,) * 3,
            rates=linear_rates(blueprint.drop_path_rate, blocks=3 * per_stage),
            shortcut=_pad if blueprint.shortcut == "pad" else project,
        )
        self.norm = make_map_norm(blueprint.norm, channels) if before else nn.Identity()
        self.last_act = make_activation(blueprint.activation) if before else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(blueprint.dropout)
        self.linear = nn.Linear(channels, images.num_classes)

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


def _pad(blueprint: Blueprint, inputs: int, outputs: int, stride: int) -> nn.Module:
    return SubsampleAndPad(extra_channels=outputs - inputs, stride=stride)


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map: two strides of 2, each rounding up."""
    return -(-image_size // 4)


def problems(blueprint: ResNetCifarBlueprint) -> list[str]:
    """What this form cannot be asked for."""
    depth, row = blueprint.depth, _layers_per_row(blueprint)
    found = block_problems(blueprint, BLOCKS[blueprint.block])
    if depth < row + 2 or (depth - 2) % row:
        below = max(row + 2, 2 + row * ((depth - 2) // row))
        found.append(
            f"depth: the CIFAR form of ResNet has {row}n + 2 layers, n >= 1, received {depth}; "
            f"near it are {below} and {below + row}"
        )
    return found


def _layers_per_row(blueprint: ResNetCifarBlueprint) -> int:
    """Layers that one more block in each of the three stages adds."""
    return 6 if blueprint.block == "basic" else 9


def _family(name: str, formula: str, defaults: ResNetCifarBlueprint) -> Family:
    return Family(
        caption=f"{name}, CIFAR form for small images: depth = layers ({formula}), "
        "width = channels of the first stage",
        build=ResNetCifar,
        defaults=defaults,
        image_size=32,
        final_size=final_size,
        problems=problems,
    )


MODELS = {
    **{
        f"resnet{depth}": _family(
            f"ResNet-{depth}", "6n + 2", dataclasses.replace(DEFAULTS, depth=depth)
        )
        for depth in DEPTHS
    },
    **{
        f"preresnet{depth}": _family(
            f"pre-activation ResNet-{depth}",
            "9n + 2",
            dataclasses.replace(
                DEFAULTS, depth=depth, block="bottleneck", shortcut="project", preactivation=True
            ),
        )
        for depth in PREACTIVATED
    },
}
