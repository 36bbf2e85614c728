"""Inception v3: branches whose large kernels are split into rows and columns; for 299 x 299 pixels.

    stem    3x3/2 -> 3x3 -> 3x3 -> pool -> 1x1 -> 3x3 -> pool; the map is then an eighth
    5b-5d   1x1 | 1x1 -> 5x5 | 1x1 -> 3x3 -> 3x3 | average -> 1x1
    6a      halves the map: 3x3/2 | 1x1 -> 3x3 -> 3x3/2 | max-pool
    6b-6e   1x1 | 1x1 -> 1x7 -> 7x1 | 1x1 -> 7x1 -> 1x7 -> 7x1 -> 1x7 | average -> 1x1
    7a      halves it again;  7b, 7c   1x1 | 1x1 -> (1x3, 3x1) | 1x1 -> 3x3 -> (1x3, 3x1) | average
    head    global average -> dropout -> linear; in training one auxiliary head behind 6e

A 7x7 kernel as 1x7 and 7x1 costs two sevenths (Szegedy et al. 2015, arXiv:1512.00567). The names of
all parameters are torchvision's, so its weights load unchanged.

The surprising choice: the stem pads almost nothing, so that the auxiliary head needs images of 299
pixels; without it (`aux_logits=False`) those of 75 do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.auxiliary import WithAuxiliary
from leadline.nn.branches import Branches
from leadline.nn.conv_block import NAMED, Size, conv_block
from leadline.nn.norms import set_batch_norm


@dataclass(frozen=True, kw_only=True)
class InceptionBlueprint(Blueprint):
    """A Blueprint with Inception's own choice."""

    aux_logits: bool = True


DEFAULTS = InceptionBlueprint(
    depth=48, width=32, norm="batch", activation="relu", init="he", residual=False, dropout=0.5
)
BATCH_NORM_EPSILON = 1e-3

POOL = "pool"  # the branch whose first layer has no weights

MODULES: dict[str, tuple[str, int]] = {  # its kind, and the number that differs within a kind
    "Mixed_5b": ("A", 32),
    "Mixed_5c": ("A", 64),
    "Mixed_5d": ("A", 64),
    "Mixed_6a": ("B", 0),
    "Mixed_6b": ("C", 128),
    "Mixed_6c": ("C", 160),
    "Mixed_6d": ("C", 160),
    "Mixed_6e": ("C", 192),
    "Mixed_7a": ("D", 0),
    "Mixed_7b": ("E", 0),
    "Mixed_7c": ("E", 0),
}
BEFORE_AUXILIARY = "Mixed_6e"


def branches(kind: str, number: int) -> tuple[tuple[tuple[str, int, Size, int], ...], ...]:
    """The paths of a module: each layer's name, channels (for width 32), kernel and stride.

    A stride of 2 comes without padding. The pooling branch is not among them.
    """
    row, column = (1, 7), (7, 1)
    if kind == "A":
        return (
            (("branch1x1", 64, 1, 1),),
            (("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)),
            (
                ("branch3x3dbl_1", 64, 1, 1),
                ("branch3x3dbl_2", 96, 3, 1),
                ("branch3x3dbl_3", 96, 3, 1),
            ),
        )
    if kind == "B":
        return (
            (("branch3x3", 384, 3, 2),),
            (
                ("branch3x3dbl_1", 64, 1, 1),
                ("branch3x3dbl_2", 96, 3, 1),
                ("branch3x3dbl_3", 96, 3, 2),
            ),
        )
    if kind == "C":
        return (
            (("branch1x1", 192, 1, 1),),
            (
                ("branch7x7_1", number, 1, 1),
                ("branch7x7_2", number, row, 1),
                ("branch7x7_3", 192, column, 1),
            ),
            (
                ("branch7x7dbl_1", number, 1, 1),
                ("branch7x7dbl_2", number, column, 1),
                ("branch7x7dbl_3", number, row, 1),
                ("branch7x7dbl_4", number, column, 1),
                ("branch7x7dbl_5", 192, row, 1),
            ),
        )
    if kind == "D":
        return (
            (("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)),
            (
                ("branch7x7x3_1", 192, 1, 1),
                ("branch7x7x3_2", 192, row, 1),
                ("branch7x7x3_3", 192, column, 1),
                ("branch7x7x3_4", 192, 3, 2),
            ),
        )
    first, double = ("branch3x3_1", 384, 1, 1), ("branch3x3dbl_1", 448, 1, 1)
    second = ("branch3x3dbl_2", 384, 3, 1)
    return (
        (("branch1x1", 320, 1, 1),),
        (first, ("branch3x3_2a", 384, (1, 3), 1)),
        (first, ("branch3x3_2b", 384, (3, 1), 1)),
        (double, second, ("branch3x3dbl_3a", 384, (1, 3), 1)),
        (double, second, ("branch3x3dbl_3b", 384, (3, 1), 1)),
    )


class InceptionV3(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("fc", "AuxLogits.fc")

    def __init__(self, blueprint: InceptionBlueprint, images: Images) -> None:
        kinds: dict[str, Any] = {
            "norm": blueprint.norm,
            "activation": blueprint.activation,
            "names": NAMED,
        }
        w = {count: _scaled(count, blueprint) for count in (32, 64, 80, 192)}
        modules = {}
        inputs = w[192]
        read_by_auxiliary = inputs
        for name, (kind, number) in MODULES.items():
            modules[name], inputs = mixed(kind, number, blueprint, inputs=inputs, kinds=kinds)
            if name == BEFORE_AUXILIARY:
                read_by_auxiliary = inputs
        super().__init__(images, num_features=inputs)
        self.Conv2d_1a_3x3 = conv_block(images.in_chans, w[32], 3, stride=2, padding=0, **kinds)
        self.Conv2d_2a_3x3 = conv_block(w[32], w[32], 3, padding=0, **kinds)
        self.Conv2d_2b_3x3 = conv_block(w[32], w[64], 3, **kinds)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = conv_block(w[64], w[80], 1, **kinds)
        self.Conv2d_4a_3x3 = conv_block(w[80], w[192], 3, padding=0, **kinds)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        for name, module in modules.items():
            self.add_module(name, module)
            if name == BEFORE_AUXILIARY and blueprint.aux_logits:
                self.AuxLogits = AuxiliaryHead(
                    blueprint, images, inputs=read_by_auxiliary, kinds=kinds
                )
        self.auxiliary = blueprint.aux_logits
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(blueprint.dropout)
        self.fc = nn.Linear(inputs, images.num_classes)
        set_batch_norm(self, eps=BATCH_NORM_EPSILON)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        return self._pass(images)[0]

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        pooled = self.dropout(self.avgpool(features))  # B D 1 1
        logits: Tensor = self.fc(pooled.flatten(1))
        return logits

    def forward(self, images: Tensor) -> Tensor | WithAuxiliary:
        """Logits (B K); in training those of the auxiliary head beside them."""
        if not (self.training and self.auxiliary):
            return super().forward(images)
        self.check(images)
        maps, auxiliary = self._pass(images)
        return WithAuxiliary(logits=self.forward_head(maps), auxiliary=auxiliary)

    def _pass(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The last map, and in training the auxiliary logits."""
        auxiliary: tuple[Tensor, ...] = ()
        maps = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        maps = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(maps)))
        maps = self.maxpool2(maps)
        for name in MODULES:
            maps = getattr(self, name)(maps)
            if name == BEFORE_AUXILIARY and self.training and self.auxiliary:
                auxiliary = (self.AuxLogits(maps),)
        return maps, auxiliary


class AuxiliaryHead(nn.Module):
    """A classifier on the map of 6e: average 5x5/3 -> 1x1 -> 5x5 -> global average -> linear."""

    def __init__(
        self, blueprint: Blueprint, images: Images, *, inputs: int, kinds: dict[str, Any]
    ) -> None:
        super().__init__()
        first, second = _scaled(128, blueprint), _scaled(768, blueprint)
        self.avgpool = nn.AvgPool2d(5, stride=3)
        self.conv0 = conv_block(inputs, first, 1, **kinds)
        self.conv1 = conv_block(first, second, 5, padding=0, **kinds)
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(second, images.num_classes)

    def forward(self, maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        maps = self.conv1(self.conv0(self.avgpool(maps)))
        logits: Tensor = self.fc(self.global_avgpool(maps).flatten(1))
        return logits


def mixed(
    kind: str, number: int, blueprint: Blueprint, *, inputs: int, kinds: dict[str, Any]
) -> tuple[Branches, int]:
    """A module of branches, and how many channels it puts out."""
    layers: dict[str, nn.Module] = {}
    paths: list[tuple[str, ...]] = []
    total = 0
    for path in branches(kind, number):
        channels = inputs
        for name, count, kernel, stride in path:
            outputs = _scaled(count, blueprint)
            if name not in layers:
                padding = 0 if stride == 2 else None
                layers[name] = conv_block(
                    channels, outputs, kernel, stride=stride, padding=padding, **kinds
                )
            channels = outputs
        paths.append(tuple(name for name, *_ in path))
        total += channels
    if kind in ("B", "D"):
        layers[POOL] = nn.MaxPool2d(3, stride=2)
        return Branches(layers, paths=(*paths, (POOL,))), total + inputs
    behind = _scaled(number if kind == "A" else 192, blueprint)
    layers[POOL] = nn.AvgPool2d(3, stride=1, padding=1)
    layers["branch_pool"] = conv_block(inputs, behind, 1, **kinds)
    return Branches(layers, paths=(*paths, (POOL, "branch_pool"))), total + behind


def _scaled(channels: int, blueprint: Blueprint) -> int:
    return max(1, round(channels * blueprint.width / DEFAULTS.width))


def final_size(blueprint: InceptionBlueprint, image_size: int) -> int:
    """The side of the last map, or of the auxiliary head's where that is smaller.

    >>> final_size(DEFAULTS, 299), final_size(DEFAULTS, 298)
    (1, 0)
    """
    side = (image_size - 3) // 2 + 1
    side = (side - 2 - 3) // 2 + 1  # two convolutions, the second padded, and the pool
    side = (side - 2 - 3) // 2 + 1
    read_by_auxiliary = (side - 3) // 2 + 1
    last = (read_by_auxiliary - 3) // 2 + 1
    if not blueprint.aux_logits:
        return last
    return min(last, (read_by_auxiliary - 5) // 3 + 1 - 4)


MODELS = {
    "inception_v3": Family(
        caption="Inception v3: depth = 48 layers, width = channels of the first convolution",
        build=InceptionV3,
        defaults=DEFAULTS,
        image_size=299,
        final_size=final_size,
        smaller="aux_logits=False",
        fixed=frozenset({"depth", "residual", "preactivation"}),
    )
}
