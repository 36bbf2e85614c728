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

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.activations import make_activation
from leadline.nn.norms import make_map_norm
from leadline.nn.residual import ResidualAdd, ResidualBlock
from leadline.nn.stochastic_depth import linear_rates

DEFAULTS = Blueprint(
    depth=2, width=64, norm="batch", activation="gelu", init="default", residual=False
)
RESIDUAL_FROM = 3  # convolutions per stage, as in airbench96
STAGES = (1, 2, 4)  # channels of each stage, in units of the width
SMALLEST_POOLED = 5  # pixels a side: smaller maps keep their size


class ConvNet(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes.

    The maps keep the memory layout of the images: channels_last in, channels_last throughout.
    """

    def __init__(self, blueprint: Blueprint, images: Images) -> None:
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
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.dropout = nn.Dropout(blueprint.dropout)
        self.head = nn.Linear(channels, images.num_classes)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps: Tensor = self.stages(self.stem(images))
        return maps

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        pooled = self.pool(features).flatten(1)  # B D
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


class Refinement(ResidualBlock):
    """The convolutions of a stage after its first, with or without a shortcut around them."""

    def __init__(self, blueprint: Blueprint, *, channels: int, drop_path_rate: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(blueprint.depth - 1):
            layers += [
                make_activation(blueprint.activation),
                nn.Conv2d(channels, channels, 3, padding=1, bias=blueprint.bias),
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


def _downward(blueprint: Blueprint, *, inputs: int, outputs: int, pooled: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=blueprint.bias),
        # ceil_mode keeps the last row and column of an odd map, and a map of one pixel
        nn.MaxPool2d(2, ceil_mode=True) if pooled else nn.Identity(),
        make_map_norm(blueprint.norm, outputs),
        make_activation(blueprint.activation),
    )


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map."""
    return stage_sizes(image_size)[-1]


def problems(blueprint: Blueprint) -> list[str]:
    """What a ConvNet cannot be asked for."""
    if blueprint.residual and blueprint.depth < 2:
        return [
            f"residual: depth {blueprint.depth} has one convolution per stage, and the path "
            "leads around those after the first: use depth 2 or more"
        ]
    return []


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
