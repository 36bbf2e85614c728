"""ConvNeXt: a residual convolutional network with everything that vision transformers taught.

    block    depthwise 7x7 -> norm -> linear to 4C -> act -> linear to C -> layer scale, added
    network  conv 4x4/4 -> norm -> 4 stages of blocks with C, 2C, 4C and 8C channels, between them
             norm -> conv 2x2/2; global average -> norm -> linear

Liu et al. 2022 (arXiv:2201.03545). Few norms and activations, one large kernel where attention had
been, patches instead of a stem. The names of all parameters are torchvision's, so its weights load
unchanged.

The surprising choice: without the residual path the layer scale begins at 1, since a millionth of
the branch alone would be silence.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.activations import make_activation
from leadline.nn.layer_scale import layer_scale
from leadline.nn.norms import LAST_AXIS_NORMS, make_feature_norm, make_map_norm
from leadline.nn.permute import TO_FIRST, TO_LAST, Permute
from leadline.nn.residual import ResidualAdd, ResidualBlock
from leadline.nn.stochastic_depth import linear_rates

KERNEL = 7  # of the depthwise convolution
EXPANSION = 4  # of the two linear layers
PATCH = 4  # pixels a side that the stem makes one
UNITS = (1, 1, 3, 1)  # blocks of each stage, in units of a sixth of the depth
TINY = 18  # blocks from which on only the third stage grows


@dataclass(frozen=True, kw_only=True)
class ConvNeXtBlueprint(Blueprint):
    """A Blueprint with ConvNeXt's own choice: what the layer scale begins as."""

    layer_scale: float = 1e-6


DEFAULTS = ConvNeXtBlueprint(
    depth=18,
    width=96,
    norm="layer",
    activation="gelu",
    init="trunc_normal",
    residual=True,
    drop_path_rate=0.1,
)


class ConvNeXtBlock(ResidualBlock):
    """Maps (B C H W) to the same shape."""

    def __init__(
        self, blueprint: ConvNeXtBlueprint, *, channels: int, drop_path_rate: float
    ) -> None:
        super().__init__()
        filtered = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        inner = EXPANSION * channels
        normed: tuple[nn.Module, nn.Module]
        if blueprint.norm in LAST_AXIS_NORMS:
            normed = (Permute(TO_LAST), make_feature_norm(blueprint.norm, channels))
        else:
            normed = (make_map_norm(blueprint.norm, channels), Permute(TO_LAST))
        self.block = nn.Sequential(
            filtered,
            *normed,
            nn.Linear(channels, inner),
            make_activation(blueprint.activation),
            nn.Linear(inner, channels),
            Permute(TO_FIRST),
        )
        start = blueprint.layer_scale if blueprint.residual else 1.0
        self.layer_scale = layer_scale(channels, start=start, trailing=2)
        self.join = ResidualAdd(
            residual=blueprint.residual, drop_path_rate=drop_path_rate, scaled=blueprint.fixup
        )

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (tuple(self.block),)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        joined: Tensor = self.join(self.layer_scale * self.block(maps), shortcut=maps)
        return joined


class ConvNeXt(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("classifier.2",)

    def __init__(self, blueprint: ConvNeXtBlueprint, images: Images) -> None:
        widths = [blueprint.width * 2**stage for stage in range(len(UNITS))]
        super().__init__(images, num_features=widths[-1])
        counts = stage_counts(blueprint.depth)
        rates = iter((0.0, *linear_rates(blueprint.drop_path_rate, blocks=blueprint.depth - 1)))
        layers: list[nn.Module] = [
            nn.Sequential(
                nn.Conv2d(images.in_chans, widths[0], PATCH, stride=PATCH),
                make_map_norm(blueprint.norm, widths[0]),
            )
        ]
        for stage, (count, channels) in enumerate(zip(counts, widths, strict=True)):
            if stage:
                layers.append(
                    nn.Sequential(
                        make_map_norm(blueprint.norm, widths[stage - 1]),
                        nn.Conv2d(widths[stage - 1], channels, 2, stride=2),
                    )
                )
            blocks = (
                ConvNeXtBlock(blueprint, channels=channels, drop_path_rate=next(rates))
                for _ in range(count)
            )
            layers.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(blueprint.dropout)
        self.classifier = nn.Sequential(
            make_map_norm(blueprint.norm, widths[-1]),
            nn.Flatten(1),
            nn.Linear(widths[-1], images.num_classes),
        )

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps: Tensor = self.features(images)
        return maps

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        logits: Tensor = self.classifier(self.dropout(self.avgpool(features)))
        return logits


def stage_counts(depth: int) -> tuple[int, ...]:
    """The blocks of each stage: n, n, 3n and n up to 18, then more in the third.

    >>> stage_counts(12), stage_counts(36)
    ((2, 2, 6, 2), (3, 3, 27, 3))
    """
    first, second, third, fourth = (units * min(depth, TINY) // sum(UNITS) for units in UNITS)
    return first, second, third + max(0, depth - TINY), fourth


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map: a quarter, then three halvings, all rounding down."""
    return image_size // PATCH // 8


def problems(blueprint: Blueprint) -> list[str]:
    """What a ConvNeXt cannot be asked for."""
    found = []
    if blueprint.depth < TINY and blueprint.depth % sum(UNITS):
        below = max(6, blueprint.depth // 6 * 6)
        found.append(
            f"depth: up to {TINY} blocks the stages have n, n, 3n and n, received "
            f"{blueprint.depth}; near it are {below} and {below + 6}"
        )
    if blueprint.norm == "instance":
        found.append(
            "norm: 'instance' would make nothing of the head's one pixel: use 'layer' or 'group'"
        )
    return found


SIZES = {  # blocks, width, stochastic depth
    "tiny": (18, 96, 0.1),
    "small": (36, 96, 0.4),
    "base": (36, 128, 0.5),
    "large": (36, 192, 0.5),
}

MODELS = {
    f"convnext_{size}": Family(
        caption=f"ConvNeXt-{size.capitalize()}: depth = blocks (6, 12, 18 or more), "
        "width = channels of the first stage",
        build=ConvNeXt,
        defaults=dataclasses.replace(DEFAULTS, depth=depth, width=width, drop_path_rate=rate),
        image_size=224,
        final_size=final_size,
        fixed=frozenset({"preactivation"}),
        problems=problems,
    )
    for size, (depth, width, rate) in SIZES.items()
}
