"""AlexNet: five convolutions, three overlapping poolings, three dense layers with dropout.

    conv 11x11/4 (w) -> pool -> conv 5x5 (3w) -> pool -> conv 3x3 (6w) -> conv 3x3 (4w)
    -> conv 3x3 (4w) -> pool -> average to 6x6 -> 2 x [dropout -> dense (64w)] -> linear

Krizhevsky et al. 2012 won ImageNet with it, and the present began: depth, ReLU, dropout, GPUs. The
form here is the single tower of Krizhevsky 2014 ('One weird trick', arXiv:1404.5997), without the
local response normalisation of 2012. The parameters are torchvision's: its weights fit unchanged.

The surprising choice: the dense layers hold 58 of the 61 million parameters, so `width` scales them
too, 64 units for each channel of the first convolution.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.activations import make_activation
from leadline.nn.norms import make_map_norm

DEFAULTS = Blueprint(
    depth=8,
    width=64,
    norm="none",
    activation="relu",
    init="he",
    residual=False,
    dropout=0.5,
)
CONVOLUTIONS = (  # channels in units of the width, kernel, stride, padding, pooled behind
    (1, 11, 4, 2, True),
    (3, 5, 1, 2, True),
    (6, 3, 1, 1, False),
    (4, 3, 1, 1, False),
    (4, 3, 1, 1, True),
)
POOLED = 6  # pixels a side of the map that the dense layers read
DENSE = 64  # units of a dense layer, in units of the width


class AlexNet(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("classifier.6",)

    def __init__(self, blueprint: Blueprint, images: Images) -> None:
        dense = DENSE * blueprint.width
        super().__init__(images, num_features=dense)
        layers: list[nn.Module] = []
        inputs = images.in_chans
        for multiple, kernel, stride, padding, pooled in CONVOLUTIONS:
            outputs = multiple * blueprint.width
            layers.append(nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding))
            if blueprint.norm != "none":
                layers.append(make_map_norm(blueprint.norm, outputs))
            layers.append(make_activation(blueprint.activation))
            if pooled:
                layers.append(nn.MaxPool2d(3, stride=2))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(POOLED)
        self.classifier = nn.Sequential(
            nn.Dropout(blueprint.dropout),
            nn.Linear(inputs * POOLED**2, dense),
            make_activation(blueprint.activation),
            nn.Dropout(blueprint.dropout),
            nn.Linear(dense, dense),
            make_activation(blueprint.activation),
            nn.Linear(dense, images.num_classes),
        )

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps: Tensor = self.features(images)
        return maps

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        logits: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return logits


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map; below 1 where the image is too small.

    >>> final_size(DEFAULTS, 224), final_size(DEFAULTS, 63), final_size(DEFAULTS, 62)
    (6, 1, 0)
    """
    side = image_size
    for _, kernel, stride, padding, pooled in CONVOLUTIONS:
        side = (side + 2 * padding - kernel) // stride + 1
        side = (side - 3) // 2 + 1 if pooled else side
    return side


MODELS = {
    "alexnet": Family(
        caption="AlexNet: depth = 8 layers, width = channels of the first convolution",
        build=AlexNet,
        defaults=DEFAULTS,
        image_size=224,
        final_size=final_size,
        fixed=frozenset({"depth", "residual", "preactivation"}),
    )
}
