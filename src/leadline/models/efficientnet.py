"""EfficientNet: one small network, and one number that says how much deeper, wider and sharper.

    depth 1.2^phi, width 1.1^phi, image 1.15^phi; each step of phi doubles the operations

Tan and Le 2019 (arXiv:1905.11946). B0 was found by search: inverted bottlenecks with squeeze and
excitation, kernels of 3 and 5. B1 to B7 are the same network scaled, for phi from 0.5 to 6. The
names of all parameters are torchvision's, so its weights load unchanged.

The surprising choice: the published B1 to B7 are not quite what the formula gives (B7 is 3.1 times
as deep and not 2.99), so `PUBLISHED` has them as they are, and `compound` has the formula.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.channels import round_channels
from leadline.nn.conv_block import conv_block
from leadline.nn.depthwise import depthwise
from leadline.nn.norms import set_batch_norm
from leadline.nn.repeats import repeat_problems, repeats
from leadline.nn.residual import ResidualAdd, ResidualBlock
from leadline.nn.squeeze_excite import SqueezeExcite
from leadline.nn.stochastic_depth import linear_rates

STEM = 32  # channels of B0
STAGES = (  # expansion, kernel, stride of the first block, channels of B0: table 1
    (1, 3, 1, 16),
    (6, 3, 2, 24),
    (6, 5, 2, 40),
    (6, 3, 2, 80),
    (6, 5, 1, 112),
    (6, 5, 2, 192),
    (6, 3, 1, 320),
)
COUNTS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage of B0
HEAD = 4  # channels behind the last block, in units of those before
SQUEEZE = 4  # the excitation narrows to a quarter of what enters the block


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How large a network of this family is: blocks, percent of B0's channels, pixels a side."""

    depth: int
    width: int
    image_size: int
    dropout: float


def compound(phi: float) -> Scaling:
    """The network whose training costs 2^phi times that of B0, by the formula of the paper.

    >>> compound(0.0)
    Scaling(depth=16, width=100, image_size=224, dropout=0.2)
    >>> compound(1.0)
    Scaling(depth=23, width=110, image_size=258, dropout=0.25)
    """
    factor = 1.2**phi
    depth = sum(-(-round(count * factor, 9) // 1) for count in COUNTS)
    return Scaling(
        depth=int(depth),
        width=round(100 * 1.1**phi),
        image_size=round(224 * 1.15**phi),
        dropout=min(0.5, 0.2 + 0.05 * phi),
    )


PUBLISHED = (  # B0 to B7 as they were published
    Scaling(depth=16, width=100, image_size=224, dropout=0.2),
    Scaling(depth=23, width=100, image_size=240, dropout=0.2),
    Scaling(depth=23, width=110, image_size=260, dropout=0.3),
    Scaling(depth=26, width=120, image_size=300, dropout=0.3),
    Scaling(depth=32, width=140, image_size=380, dropout=0.4),
    Scaling(depth=39, width=160, image_size=456, dropout=0.4),
    Scaling(depth=45, width=180, image_size=528, dropout=0.5),
    Scaling(depth=55, width=200, image_size=600, dropout=0.5),
)


@dataclass(frozen=True, kw_only=True)
class EfficientNetBlueprint(Blueprint):
    """A Blueprint with the epsilon and the memory of batch norm, which B5 to B7 have otherwise."""

    norm_eps: float = 1e-5
    norm_momentum: float = 0.1


DEFAULTS = EfficientNetBlueprint(
    depth=16,
    width=100,
    norm="batch",
    activation="silu",
    init="he",
    residual=True,
    dropout=0.2,
    drop_path_rate=0.2,
)


class InvertedBottleneck(ResidualBlock):
    """1x1 -> depthwise -> squeeze and excitation -> 1x1; maps (B C H W) to (B D h w)."""

    def __init__(
        self,
        blueprint: EfficientNetBlueprint,
        *,
        inputs: int,
        outputs: int,
        expansion: int,
        kernel: int,
        stride: int,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        kinds: dict[str, Any] = {"norm": blueprint.norm, "activation": blueprint.activation}
        inner = round_channels(inputs * expansion)
        layers: list[nn.Module] = []
        if inner != inputs:
            layers.append(conv_block(inputs, inner, 1, **kinds))
        layers += [
            depthwise(inner, kernel, stride=stride, **kinds),
            SqueezeExcite(
                inner, squeezed=max(1, inputs // SQUEEZE), activation=blueprint.activation
            ),
            conv_block(inner, outputs, 1, norm=blueprint.norm, activation=None),
        ]
        self.block = nn.Sequential(*layers)
        residual = blueprint.residual and stride == 1 and inputs == outputs
        self.join = ResidualAdd(
            residual=residual,
            drop_path_rate=drop_path_rate if residual else 0.0,
            scaled=residual and blueprint.fixup,
        )

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        rows = (layer for layer in self.block if isinstance(layer, nn.Sequential))
        return (tuple(module for row in rows for module in row),)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        joined: Tensor = self.join(self.block(maps), shortcut=maps)
        return joined


class EfficientNet(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("classifier.1",)

    def __init__(self, blueprint: EfficientNetBlueprint, images: Images) -> None:
        scale = blueprint.width / 100
        before = round_channels(STAGES[-1][3] * scale)
        last = HEAD * before
        super().__init__(images, num_features=last)
        kinds: dict[str, Any] = {"norm": blueprint.norm, "activation": blueprint.activation}
        inputs = round_channels(STEM * scale)
        layers: list[nn.Module] = [conv_block(images.in_chans, inputs, 3, stride=2, **kinds)]
        counts = repeats(COUNTS, blueprint.depth)
        assert counts is not None, "problems() has asked"
        rates = iter(_rates(blueprint.drop_path_rate, blocks=sum(counts)))
        for count, (expansion, kernel, stride, channels) in zip(counts, STAGES, strict=True):
            outputs = round_channels(channels * scale)
            stage = []
            for position in range(count):
                stage.append(
                    InvertedBottleneck(
                        blueprint,
                        inputs=inputs,
                        outputs=outputs,
                        expansion=expansion,
                        kernel=kernel,
                        stride=stride if position == 0 else 1,
                        drop_path_rate=next(rates),
                    )
                )
                inputs = outputs
            layers.append(nn.Sequential(*stage))
        layers.append(conv_block(inputs, last, 1, **kinds))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Dropout(blueprint.dropout), nn.Linear(last, images.num_classes)
        )
        set_batch_norm(self, eps=blueprint.norm_eps, momentum=blueprint.norm_momentum)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps: Tensor = self.features(images)
        return maps

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        logits: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return logits


def _rates(rate: float, *, blocks: int) -> tuple[float, ...]:
    """Stochastic depth of block l of L: rate x l / L with l from 0, as in the published ones."""
    return (0.0, *linear_rates(rate * (blocks - 1) / blocks, blocks=max(1, blocks - 1)))


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map: five halvings, each rounding up."""
    return -(-image_size // 32)


def problems(blueprint: Blueprint) -> list[str]:
    """What an EfficientNet cannot be asked for."""
    return repeat_problems(COUNTS, blueprint.depth)


def _defaults(number: int, scaling: Scaling) -> EfficientNetBlueprint:
    size = {"depth": scaling.depth, "width": scaling.width}
    slow = {"norm_eps": 1e-3, "norm_momentum": 0.01} if number >= 5 else {}
    chosen: dict[str, Any] = {**size, **slow, "dropout": scaling.dropout}
    return dataclasses.replace(DEFAULTS, **chosen)


MODELS = {
    f"efficientnet_b{number}": Family(
        caption=f"EfficientNet-B{number}: depth = inverted bottlenecks (16 in B0), "
        "width = percent of B0's channels",
        build=EfficientNet,
        defaults=_defaults(number, scaling),
        image_size=scaling.image_size,
        final_size=final_size,
        fixed=frozenset({"preactivation"}),
        problems=problems,
    )
    for number, scaling in enumerate(PUBLISHED)
}
