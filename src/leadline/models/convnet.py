"""A small, fast convolutional net for small images: three stages, halved maps, a global maximum.

    stem    conv 3x3 to w/2 channels -> activation
    stage   conv 3x3 -> max-pool 2 -> norm -> activation, then (depth - 1) x [conv -> norm ->
            activation]; w, 2w and 4w channels. From depth 3 a residual path leads around the
            convolutions after the first.
    head    global maximum -> dropout -> linear

After Page's DAWNBench ResNet (2018) and Jordan's airbench (2024): pooling before the norm and the
activation quarters their cost, and few wide layers keep matrix units busy.

The surprising choices: the stem has no norm, since there the map is largest and a norm would cost
most; and maps of at most 4 pixels a side are not pooled further, so that an 8 x 8 digit keeps a
map of 4 x 4 to look at. The number of poolings is fixed by the image size the net is built for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.activations import make_activation
from leadline.nn.norms import make_map_norm
from leadline.nn.pooling import GlobalPool, HalvingName, WholeName, make_halving
from leadline.nn.residual import ResidualAdd, ResidualBlock
from leadline.nn.stochastic_depth import linear_rates


@dataclass(frozen=True, kw_only=True)
class ConvNetBlueprint(Blueprint):
    """A Blueprint with the choices of this net.

    `pool` halves a map ('stride' lets the convolution before it do so), `whole` makes the last map
    one vector, `dilation` is that of the convolutions after the first of each stage.
    """

    pool: HalvingName | Literal["stride"] = "max"
    whole: WholeName = "max"
    dilation: int = 1


DEFAULTS = ConvNetBlueprint(
    depth=2, width=64, norm="batch", activation="gelu", init="default", residual=False
)
RESIDUAL_FROM = 3  # convolutions per stage, as in airbench96
STAGES = (1, 2, 4)  # channels of each stage, in units of the width
SMALLEST_POOLED = 5  # pixels a side: smaller maps keep their size


class ConvNet(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes.

    The maps keep the memory layout of the images: channels_last in, channels_last throughout.
    """

    def __init__(self, blueprint: ConvNetBlueprint, images: Images) -> None:
        super().__init__(images, num_features=STAGES[-1] * blueprint.width)
        channels = max(1, blueprint.width // 2)
        self.stem = nn.Sequential(
            nn.Conv2d(images.in_chans, channels, 3, padding=1),
            make_activation(blueprint.activation),
        )
        rates = linear_rates(blueprint.drop_path_rate, blocks=len(STAGES))
        sizes = stage_sizes(images.image_size)
        stages: list[nn.Module] = []
        for i, multiple in enumerate(STAGES):
            inputs, channels = channels, multiple * blueprint.width
            pooled = sizes[i + 1] < sizes[i]
            stages.append(_downward(blueprint, inputs=inputs, outputs=channels, pooled=pooled))
            if blueprint.depth > 1:
                stages.append(Refinement(blueprint, channels=channels, drop_path_rate=rates[i]))
        self.stages = nn.Sequential(*stages)
        self.pool = GlobalPool(blueprint.whole)
        self.dropout = nn.Dropout(blueprint.dropout)
        self.head = nn.Linear(channels, images.num_classes)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps: Tensor = self.stages(self.stem(images))
        return maps

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        logits: Tensor = self.head(self.dropout(self.pool(features)))
        return logits


class Refinement(ResidualBlock):
    """The convolutions of a stage after its first, with or without a shortcut around them."""

    def __init__(
        self, blueprint: ConvNetBlueprint, *, channels: int, drop_path_rate: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(blueprint.depth - 1):
            layers += [
                make_activation(blueprint.activation),
                nn.Conv2d(
                    channels,
                    channels,
                    3,
                    padding=blueprint.dilation,
                    dilation=blueprint.dilation,
                    bias=blueprint.bias,
                ),
                make_map_norm(blueprint.norm, channels),
            ]
        self.layers = nn.Sequential(*layers[1:])  # the stage's first convolution has activated
        self.join = ResidualAdd(
            residual=blueprint.residual,
            drop_path_rate=drop_path_rate,
            scaled=blueprint.fixup,
        )
        self.activation = make_activation(blueprint.activation)

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (tuple(self.layers),)

    def forward(self, maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        result: Tensor = self.activation(self.join(self.layers(maps), shortcut=maps))
        return result


def stage_sizes(image_size: int) -> tuple[int, ...]:
    """The side of the map before and after each stage, for a square image.

    >>> stage_sizes(28), stage_sizes(8)
    ((28, 14, 7, 4), (8, 4, 4, 4))
    """
    sizes = [image_size]
    for _ in STAGES:
        side = sizes[-1]
        sizes.append((side + 1) // 2 if side >= SMALLEST_POOLED else side)
    return tuple(sizes)


def _downward(
    blueprint: ConvNetBlueprint, *, inputs: int, outputs: int, pooled: bool
) -> nn.Sequential:
    strided = pooled and blueprint.pool == "stride"
    halving = make_halving(blueprint.pool) if pooled and not strided else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2 if strided else 1, padding=1, bias=blueprint.bias),
        halving,
        make_map_norm(blueprint.norm, outputs),
        make_activation(blueprint.activation),
    )


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map."""
    return stage_sizes(image_size)[-1]


def problems(blueprint: ConvNetBlueprint) -> list[str]:
    """What a ConvNet cannot be asked for."""
    found = []
    if blueprint.residual and blueprint.depth < 2:
        found.append(
            f"residual: depth {blueprint.depth} has one convolution per stage, and the path "
            "leads around those after the first: use depth 2 or more"
        )
    if blueprint.dilation < 1:
        found.append(f"options: dilation must be >= 1, received {blueprint.dilation}")
    return found


MODELS = {
    "convnet": Family(
        caption="small, fast convolutional net for small images: depth = convolutions in each of "
        "3 stages, width = channels of the first stage",
        build=ConvNet,
        defaults=DEFAULTS,
        image_size=32,
        final_size=final_size,
        fixed=frozenset({"preactivation"}),
        residual_from=RESIDUAL_FROM,
        problems=problems,
    ),
}
