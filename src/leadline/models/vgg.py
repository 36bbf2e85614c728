"""VGG: depth from nothing but 3x3 convolutions; five stages, each halved by a pooling.

    stage   n x [conv 3x3 -> (norm) -> activation] -> max-pool 2; w, 2w, 4w, 8w and 8w channels
    head    average to 7x7 -> 2 x [dense (64w) -> activation -> dropout] -> linear

Two 3x3 convolutions see as much as one of 5x5 and bend twice, for less (Simonyan and Zisserman
2014, arXiv:1409.1556). Without a residual path 19 layers are about as deep as it goes. The
parameters are torchvision's, without a norm and with one, so its weights load unchanged.

The surprising choice: convolutions keep their bias beside a norm too, as in torchvision, though it
does nothing there.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, cast

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images, depth_problems
from leadline.models.image_model import ImageModel
from leadline.nn.activations import make_activation
from leadline.nn.norms import NormName, make_map_norm

COUNTS = {  # convolutions in each stage: configurations A, B, D and E of table 1
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
STAGES = (1, 2, 4, 8, 8)  # channels of each stage, in units of the width
POOLED = 7  # pixels a side of the map that the dense layers read
DENSE = 64  # units of a dense layer, in units of the width
DEFAULTS = Blueprint(
    depth=16, width=64, norm="none", activation="relu", init="he", residual=False, dropout=0.5
)


class VGG(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("classifier.6",)

    def __init__(self, blueprint: Blueprint, images: Images) -> None:
        dense = DENSE * blueprint.width
        super().__init__(images, num_features=dense)
        layers: list[nn.Module] = []
        inputs = images.in_chans
        for count, multiple in zip(COUNTS[blueprint.depth], STAGES, strict=True):
            outputs = multiple * blueprint.width
            for _ in range(count):
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
                if blueprint.norm != "none":
                    layers.append(make_map_norm(blueprint.norm, outputs))
                layers.append(make_activation(blueprint.activation))
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(POOLED)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * POOLED**2, dense),
            make_activation(blueprint.activation),
            nn.Dropout(blueprint.dropout),
            nn.Linear(dense, dense),
            make_activation(blueprint.activation),
            nn.Dropout(blueprint.dropout),
            nn.Linear(dense, images.num_classes),
        )

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps: Tensor = self.features(images)
        return maps

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        logits: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return logits


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map: five halvings, each rounding down."""
    return image_size // 32


def problems(blueprint: Blueprint) -> list[str]:
    """What a VGG cannot be asked for."""
    return depth_problems("a VGG", blueprint.depth, COUNTS)


MODELS = {
    f"vgg{depth}{ending}": Family(
        caption=f"VGG-{depth}{', with batch norm' * (norm == 'batch')}: depth = layers "
        f"({', '.join(map(str, COUNTS))}), width = channels of the first stage",
        build=VGG,
        defaults=dataclasses.replace(DEFAULTS, depth=depth, norm=cast(NormName, norm)),
        image_size=224,
        final_size=final_size,
        fixed=frozenset({"residual", "preactivation"}),
        problems=problems,
    )
    for ending, norm in (("", "none"), ("_bn", "batch"))
    for depth in COUNTS
}
