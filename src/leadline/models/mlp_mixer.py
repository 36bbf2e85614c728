"""MLP-Mixer: a vision transformer whose attention is a dense layer over the places.

    block   x = x + mix_tokens(norm(x)^T)^T;  x = x + mix_channels(norm(x))

Tolstikhin et al. 2021 (arXiv:2105.01601): neither convolution nor attention, only dense layers, now
over places and now over channels. The parameters have timm's names, so its weights load unchanged.

The surprising choice, the original's: there is a weight for each pair of places, so images have the
size that it was built for.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import ModelError
from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.feed_forward import FeedForward
from leadline.nn.norms import make_feature_norm
from leadline.nn.patches import PatchEmbedding, as_tokens
from leadline.nn.residual import ResidualAdd, ResidualBlock
from leadline.nn.stochastic_depth import linear_rates

NORMS = ("layer", "rms", "none")


@dataclass(frozen=True, kw_only=True)
class MixerBlueprint(Blueprint):
    """A Blueprint with the Mixer's choices; both ratios are in units of the width."""

    patch_size: int = 16
    token_ratio: float = 0.5
    mlp_ratio: float = 4.0
    block_dropout: float = 0.0


DEFAULTS = MixerBlueprint(
    depth=8, width=512, norm="layer", activation="gelu", init="xavier", residual=True
)


class MixerBlock(ResidualBlock):
    """Tokens (B N D) to the same shape."""

    def __init__(self, blueprint: MixerBlueprint, *, tokens: int, drop_path_rate: float) -> None:
        super().__init__()
        features = blueprint.width
        self.norm1 = make_feature_norm(blueprint.norm, features)
        self.mlp_tokens = FeedForward(
            tokens,
            hidden=max(1, int(features * blueprint.token_ratio)),
            activation=blueprint.activation,
            dropout=blueprint.block_dropout,
        )
        self.norm2 = make_feature_norm(blueprint.norm, features)
        self.mlp_channels = FeedForward(
            features,
            hidden=max(1, int(features * blueprint.mlp_ratio)),
            activation=blueprint.activation,
            dropout=blueprint.block_dropout,
        )
        self.join, self.join2 = (
            ResidualAdd(
                residual=blueprint.residual,
                drop_path_rate=drop_path_rate,
                scaled=blueprint.fixup,
            )
            for _ in range(2)
        )

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return tuple(
            (norm, mixing.fc1, mixing.act, mixing.fc2)
            for norm, mixing in (
                (self.norm1, self.mlp_tokens),
                (self.norm2, self.mlp_channels),
            )
        )

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        mixed = self.mlp_tokens(self.norm1(tokens).transpose(1, 2)).transpose(1, 2)
        tokens = self.join(mixed, shortcut=tokens)
        result: Tensor = self.join2(self.mlp_channels(self.norm2(tokens)), shortcut=tokens)
        return result


class MLPMixer(ImageModel):
    """Images of one fixed size to logits; B batch, C channels, H = W side, N tokens, D features."""

    heads: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(self, blueprint: MixerBlueprint, images: Images) -> None:
        features = blueprint.width
        super().__init__(images, num_features=features)
        self.image_size = images.image_size
        side = -(-images.image_size // blueprint.patch_size)
        self.stem = PatchEmbedding(images.in_chans, features, patch_size=blueprint.patch_size)
        rates = linear_rates(blueprint.drop_path_rate, blocks=blueprint.depth)
        self.blocks = nn.Sequential(
            *(MixerBlock(blueprint, tokens=side * side, drop_path_rate=rate) for rate in rates)
        )
        self.norm = make_feature_norm(blueprint.norm, features)
        self.head_drop = nn.Dropout(blueprint.dropout)
        self.head = nn.Linear(features, images.num_classes)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        side = self.image_size
        if images.shape[2:] != (side, side):
            raise ModelError(
                expected=f"images of {side} x {side} pixels: a Mixer has a weight for each place",
                received=f"shape {tuple(images.shape)}",
                remedy="resize the images, or build the model with their size as image_size",
            )
        tokens: Tensor = self.norm(self.blocks(as_tokens(self.stem(images))))
        return tokens

    def forward_head(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        logits: Tensor = self.head(self.head_drop(features.mean(dim=1)))
        return logits


def problems(blueprint: MixerBlueprint) -> list[str]:
    """What a Mixer cannot be asked for."""
    found = []
    if blueprint.patch_size < 1:
        found.append(f"options: patch_size must be >= 1, received {blueprint.patch_size}")
    if blueprint.norm not in NORMS:
        found.append(f"norm: tokens have {', '.join(NORMS)}, received {blueprint.norm!r}")
    return found


SIZES = {"s": (8, 512), "b": (12, 768), "l": (24, 1024)}  # Tolstikhin et al. 2021, table 1

MODELS = {
    f"mixer_{size}_16": Family(
        caption=f"MLP-Mixer-{size.upper()}/16: depth = blocks, width = features",
        build=MLPMixer,
        defaults=dataclasses.replace(DEFAULTS, depth=depth, width=width),
        image_size=224,
        fixed=frozenset({"preactivation"}),
        problems=problems,
    )
    for size, (depth, width) in SIZES.items()
}
