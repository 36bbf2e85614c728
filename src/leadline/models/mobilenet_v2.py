"""MobileNetV2: inverted bottlenecks of depthwise convolutions, for machines that count steps.

    block    1x1 to 6C -> norm -> act -> depthwise 3x3 -> norm -> act -> 1x1 to D -> norm; the input
             is added where stride and shape allow
    network  conv 3x3/2 (32) -> blocks of 16, 24, 32, 64, 96, 160, 320 channels -> 1x1 to 1280
             -> global average -> dropout -> linear

Sandler et al. 2018 (arXiv:1801.04381). What is narrow carries the signal and is never bent by an
activation, which would lose what it zeroes. The names of all parameters are torchvision's, so its
weights load unchanged.

The surprising choice: `width` is in percent of the paper's channels, as in timm's mobilenetv2_140;
channels are then rounded to multiples of eight.
"""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.channels import round_channels
from leadline.nn.conv_block import conv_block
from leadline.nn.depthwise import depthwise
from leadline.nn.norms import make_map_norm
from leadline.nn.repeats import repeat_problems, repeats
from leadline.nn.residual import ResidualAdd, ResidualBlock
from leadline.nn.stochastic_depth import linear_rates

STEM = 32  # channels at width 100
LAST = 1280  # channels behind the last block; never fewer than at width 100
STAGES = (  # expansion, channels at width 100, stride of the first block: table 2
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 2),
    (6, 64, 2),
    (6, 96, 1),
    (6, 160, 2),
    (6, 320, 1),
)
COUNTS = (1, 2, 3, 4, 3, 3, 1)  # blocks of each stage
DEFAULTS = Blueprint(
    depth=sum(COUNTS),
    width=100,
    norm="batch",
    activation="relu6",
    init="he",
    residual=True,
    dropout=0.2,
)


class InvertedBottleneck(ResidualBlock):
    """Wide inside, narrow outside; maps (B C H W) to (B D h w)."""

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        inputs: int,
        outputs: int,
        expansion: int,
        stride: int,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        kinds: dict[str, Any] = {"norm": blueprint.norm, "activation": blueprint.activation}
        inner = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_block(inputs, inner, 1, **kinds))
        layers += [
            depthwise(inner, 3, stride=stride, **kinds),
            nn.Conv2d(inner, outputs, 1, bias=blueprint.bias),
            make_map_norm(blueprint.norm, outputs),
        ]
        self.conv = nn.Sequential(*layers)
        residual = blueprint.residual and stride == 1 and inputs == outputs
        self.join = ResidualAdd(
            residual=residual,
            drop_path_rate=drop_path_rate if residual else 0.0,
            scaled=residual and blueprint.fixup,
        )

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (tuple(self.conv),)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        joined: Tensor = self.join(self.conv(maps), shortcut=maps)
        return joined


class MobileNetV2(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("classifier.1",)

    def __init__(self, blueprint: Blueprint, images: Images) -> None:
        scale = blueprint.width / 100
        last = round_channels(LAST * max(1.0, scale))
        super().__init__(images, num_features=last)
        kinds: dict[str, Any] = {"norm": blueprint.norm, "activation": blueprint.activation}
        inputs = round_channels(STEM * scale)
        layers: list[nn.Module] = [conv_block(images.in_chans, inputs, 3, stride=2, **kinds)]
        counts = repeats(COUNTS, blueprint.depth)
        assert counts is not None, "problems() has asked"
        rates = iter(linear_rates(blueprint.drop_path_rate, blocks=sum(counts)))
        for count, (expansion, channels, stride) in zip(counts, STAGES, strict=True):
            outputs = round_channels(channels * scale)
            for position in range(count):
                layers.append(
                    InvertedBottleneck(
                        blueprint,
                        inputs=inputs,
                        outputs=outputs,
                        expansion=expansion,
                        stride=stride if position == 0 else 1,
                        drop_path_rate=next(rates),
                    )
                )
                inputs = outputs
        layers.append(conv_block(inputs, last, 1, **kinds))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Dropout(blueprint.dropout), nn.Linear(last, images.num_classes)
        )

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps: Tensor = self.features(images)
        return maps

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        logits: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return logits


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map: five halvings, each rounding up."""
    return -(-image_size // 32)


def problems(blueprint: Blueprint) -> list[str]:
    """What a MobileNetV2 cannot be asked for."""
    return repeat_problems(COUNTS, blueprint.depth)


MODELS = {
    "mobilenet_v2": Family(
        caption="MobileNetV2: depth = inverted bottlenecks (17 in the paper), "
        "width = percent of the paper's channels",
        build=MobileNetV2,
        defaults=DEFAULTS,
        image_size=224,
        final_size=final_size,
        fixed=frozenset({"preactivation"}),
        problems=problems,
    )
}
