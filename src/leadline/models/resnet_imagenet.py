"""ResNet for large images, as for ImageNet: a stem that quarters the map, then four stages.

A 7x7 convolution of stride 2 and a max-pool of stride 2, four stages with w, 2w, 4w and 8w planes
(basic blocks up to depth 34, bottlenecks from 50 on), a global average and a linear head (He et
al. 2015, table 1). Where the shape changes the shortcut is a 1x1 convolution with a norm ('option
B'). The names of all parameters are torchvision's, so its state dicts load unchanged.

Wide ResNets, ResNeXts and those with squeeze and excitation are the same network with other blocks.
The surprising choice: `width` counts planes, of which a bottleneck puts out four times as many.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The block of a depth and how many of it each of the four stages has."""

    block: type[BasicBlock] | type[Bottleneck]
    counts: tuple[int, int, int, int]


PLANS = {  # He et al. 2015, table 1
    18: Plan(block=BasicBlock, counts=(2, 2, 2, 2)),
    34: Plan(block=BasicBlock, counts=(3, 4, 6, 3)),
    50: Plan(block=Bottleneck, counts=(3, 4, 6, 3)),
    101: Plan(block=Bottleneck, counts=(3, 4, 23, 3)),
    152: Plan(block=Bottleneck, counts=(3, 8, 36, 3)),
}
DEFAULTS = ResNetBlueprint(
    depth=50, width=64, norm="batch", activation="relu", init="he", residual=True
)


class ResNetImageNet(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("fc",)

    def __init__(self, blueprint: ResNetBlueprint, images: Images) -> None:
        width, before = blueprint.width, blueprint.preactivation
        plan = PLANS[blueprint.depth]
        channels = 8 * width * plan.block.expansion
        super().__init__(images, num_features=channels)
        self.conv1 = nn.Conv2d(images.in_chans, width, 7, stride=2, padding=3, bias=blueprint.bias)
        self.bn1 = nn.Identity() if before else make_map_norm(blueprint.norm, width)
        self.act1 = nn.Identity() if before else make_activation(blueprint.activation)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = make_stages(
            blueprint,
            block=plan.block,
            inputs=width,
            counts=plan.counts,
            rates=linear_rates(blueprint.drop_path_rate, blocks=sum(plan.counts)),
            shortcut=project,
        )
        self.norm = make_map_norm(blueprint.norm, channels) if before else nn.Identity()
        self.last_act = make_activation(blueprint.activation) if before else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(blueprint.dropout)
        self.fc = nn.Linear(channels, images.num_classes)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps = self.act1(self.bn1(self.conv1(images)))  # B w H/2 W/2
        maps = self.layer1(self.maxpool(maps))  # from here B D H/4 W/4
        maps = self.layer2(maps)
        maps = self.layer3(maps)
        maps = self.layer4(maps)  # B D H/32 W/32
        last: Tensor = self.last_act(self.norm(maps))
        return last

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        pooled = self.avgpool(features).flatten(1)  # B D
        logits: Tensor = self.fc(self.dropout(pooled))
        return logits


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map: five strides of 2, each rounding up."""
    return -(-image_size // 32)


def problems(blueprint: ResNetBlueprint) -> list[str]:
    """What this form cannot be asked for."""
    if blueprint.depth in PLANS:
        return block_problems(blueprint, PLANS[blueprint.depth].block)
    depths = ", ".join(map(str, PLANS))
    return [
        f"depth: the ImageNet form of ResNet has {depths} layers, received {blueprint.depth}; "
        "for other depths take the CIFAR form, such as resnet20"
    ]


VARIANTS: dict[
    str, tuple[str, dict[str, Any]]
] = {  # the caption's beginning, and what differs from ResNet-50
    **{f"resnet{depth}": (f"ResNet-{depth}", {"depth": depth}) for depth in PLANS},
    "wide_resnet50_2": ("Wide ResNet-50", {"width_per_group": 128}),
    "wide_resnet101_2": ("Wide ResNet-101", {"depth": 101, "width_per_group": 128}),
    "resnext50_32x4d": ("ResNeXt-50", {"groups": 32, "width_per_group": 4}),
    "resnext101_32x8d": ("ResNeXt-101", {"depth": 101, "groups": 32, "width_per_group": 8}),
    "resnext101_64x4d": ("ResNeXt-101", {"depth": 101, "groups": 64, "width_per_group": 4}),
    "seresnet18": ("ResNet-18 with squeeze and excitation", {"depth": 18, "squeeze": 16}),
    "seresnet50": ("ResNet-50 with squeeze and excitation", {"squeeze": 16}),
    "seresnext50_32x4d": (
        "ResNeXt-50 with squeeze and excitation",
        {"groups": 32, "width_per_group": 4, "squeeze": 16},
    ),
}

MODELS = {
    name: Family(
        caption=f"{caption}, ImageNet form for large images: depth = layers "
        f"({', '.join(map(str, PLANS))}), width = planes of the first stage",
        build=ResNetImageNet,
        defaults=dataclasses.replace(DEFAULTS, **choices),
        image_size=224,
        final_size=final_size,
        problems=problems,
    )
    for name, (caption, choices) in VARIANTS.items()
}
