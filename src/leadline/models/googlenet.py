"""GoogLeNet (Inception v1): nine modules of four parallel branches, 22 layers, few parameters.

    module  1x1 | 1x1 -> 3x3 | 1x1 -> 3x3 | pool -> 1x1, side by side
    stem    7x7/2 -> pool -> 1x1 -> 3x3 -> pool; then 2, 5 and 2 modules with pools between
    head    global average -> dropout -> linear; in training two auxiliary heads at modules 3 and 6

Szegedy et al. 2014 (arXiv:1409.4842). Cheap 1x1 convolutions first lower the number of channels,
so that the wide kernels cost little: a ninth of AlexNet's parameters. The form is torchvision's,
with batch norm, and its weights load unchanged.

The surprising choice: the third branch has a 3x3 kernel where the paper has 5x5, since the
published weights have it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.activations import make_activation
from leadline.nn.auxiliary import WithAuxiliary
from leadline.nn.branches import Branches
from leadline.nn.conv_block import NAMED, conv_block
from leadline.nn.norms import set_batch_norm


@dataclass(frozen=True, kw_only=True)
class GoogLeNetBlueprint(Blueprint):
    """A Blueprint with GoogLeNet's own choice."""

    aux_logits: bool = True


DEFAULTS = GoogLeNetBlueprint(
    depth=22,
    width=64,
    norm="batch",
    activation="relu",
    init="he",
    residual=False,
    dropout=0.2,
)
STEM = (64, 64, 192)  # channels, for a width of 64
MODULES = {  # 1x1; 1x1 before 3x3, 3x3; the same again; behind the pool; for a width of 64
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
POOLED = {"inception3b": "maxpool3", "inception4e": "maxpool4"}
AUXILIARY = {"inception4a": "aux1", "inception4d": "aux2"}
AUXILIARY_DROPOUT = 0.7  # Szegedy et al. 2014, section 5
AUXILIARY_SIDE = 4  # pixels of the averaged map that an auxiliary head reads
BATCH_NORM_EPSILON = 1e-3


class GoogLeNet(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("fc", "aux1.fc2", "aux2.fc2")

    def __init__(self, blueprint: GoogLeNetBlueprint, images: Images) -> None:
        stem = [_scaled(channels, blueprint) for channels in STEM]
        outputs = {name: _outputs(name, blueprint) for name in MODULES}
        super().__init__(images, num_features=outputs["inception5b"])
        kinds: dict[str, Any] = {"norm": blueprint.norm, "activation": blueprint.activation}
        kinds["names"] = NAMED
        self.conv1 = conv_block(images.in_chans, stem[0], 7, stride=2, **kinds)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = conv_block(stem[0], stem[1], 1, **kinds)
        self.conv3 = conv_block(stem[1], stem[2], 3, **kinds)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        inputs = stem[2]
        for name, channels in MODULES.items():
            widths = tuple(_scaled(count, blueprint) for count in channels)
            self.add_module(name, inception(inputs, widths, kinds))
            inputs = outputs[name]
            if name in POOLED:
                kernel = 3 if POOLED[name] == "maxpool3" else 2
                self.add_module(POOLED[name], nn.MaxPool2d(kernel, stride=2, ceil_mode=True))
        if blueprint.aux_logits:
            for name, head in AUXILIARY.items():
                made = AuxiliaryHead(blueprint, images, inputs=outputs[name], kinds=kinds)
                self.add_module(head, made)
        self.auxiliary = blueprint.aux_logits
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(blueprint.dropout)
        self.fc = nn.Linear(inputs, images.num_classes)
        set_batch_norm(self, eps=BATCH_NORM_EPSILON)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        return self._pass(images)[0]

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        pooled = self.avgpool(features).flatten(1)  # B D
        logits: Tensor = self.fc(self.dropout(pooled))
        return logits

    def forward(self, images: Tensor) -> Tensor | WithAuxiliary:
        """Logits (B K); in training those of the auxiliary heads beside them."""
        if not (self.training and self.auxiliary):
            return super().forward(images)
        self.check(images)
        maps, auxiliary = self._pass(images)
        return WithAuxiliary(logits=self.forward_head(maps), auxiliary=auxiliary)

    def _pass(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The last map, and in training the auxiliary logits."""
        auxiliary = []
        maps = self.maxpool1(self.conv1(images))  # B w H/4 W/4
        maps = self.maxpool2(self.conv3(self.conv2(maps)))
        for name in MODULES:
            maps = getattr(self, name)(maps)
            if name in AUXILIARY and self.training and self.auxiliary:
                auxiliary.append(getattr(self, AUXILIARY[name])(maps))
            if name in POOLED:
                maps = getattr(self, POOLED[name])(maps)
        return maps, tuple(auxiliary)


class AuxiliaryHead(nn.Module):
    """A classifier on an earlier map: average to 4x4 -> 1x1 -> dense -> dropout -> linear."""

    def __init__(
        self,
        blueprint: GoogLeNetBlueprint,
        images: Images,
        *,
        inputs: int,
        kinds: dict[str, Any],
    ) -> None:
        super().__init__()
        channels, units = _scaled(128, blueprint), _scaled(1024, blueprint)
        self.avgpool = nn.AdaptiveAvgPool2d(AUXILIARY_SIDE)
        self.conv = conv_block(inputs, channels, 1, **kinds)
        self.fc1 = nn.Linear(channels * AUXILIARY_SIDE**2, units)
        self.act1 = make_activation(blueprint.activation)
        self.dropout = nn.Dropout(AUXILIARY_DROPOUT if blueprint.dropout else 0.0)
        self.fc2 = nn.Linear(units, images.num_classes)

    def forward(self, maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        units = self.act1(self.fc1(self.conv(self.avgpool(maps)).flatten(1)))
        logits: Tensor = self.fc2(self.dropout(units))
        return logits


def inception(inputs: int, channels: tuple[int, ...], kinds: dict[str, Any]) -> Branches:
    """One module: four branches side by side; `channels` as in MODULES."""
    one, before_first, first, before_second, second, behind_pool = channels
    layers = {
        "branch1": conv_block(inputs, one, 1, **kinds),
        "branch2": nn.Sequential(
            conv_block(inputs, before_first, 1, **kinds),
            conv_block(before_first, first, 3, **kinds),
        ),
        "branch3": nn.Sequential(
            conv_block(inputs, before_second, 1, **kinds),
            conv_block(before_second, second, 3, **kinds),
        ),
        "branch4": nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            conv_block(inputs, behind_pool, 1, **kinds),
        ),
    }
    return Branches(layers, paths=tuple((name,) for name in layers))


def _scaled(channels: int, blueprint: Blueprint) -> int:
    return max(1, round(channels * blueprint.width / DEFAULTS.width))


def _outputs(name: str, blueprint: Blueprint) -> int:
    one, _, first, _, second, behind_pool = MODULES[name]
    return sum(_scaled(channels, blueprint) for channels in (one, first, second, behind_pool))


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map; below 1 where the image is too small.

    >>> final_size(DEFAULTS, 224), final_size(DEFAULTS, 15), final_size(DEFAULTS, 14)
    (7, 1, 0)
    """
    side = -(-image_size // 2)
    for kernel in (3, 3, 3, 2):
        side = -(-(side - kernel) // 2) + 1
    return side


MODELS = {
    "googlenet": Family(
        caption="GoogLeNet (Inception v1): depth = 22 layers, width = channels of the first "
        "convolution",
        build=GoogLeNet,
        defaults=DEFAULTS,
        image_size=224,
        final_size=final_size,
        fixed=frozenset({"depth", "residual", "preactivation"}),
    )
}
