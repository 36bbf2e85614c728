"""Vision transformer: an image as a sequence of patches, read by a transformer like a sentence.

    patches (p x p pixels -> D) -> a class token, registers before them -> positions
    -> blocks of attention and feed-forward -> norm -> the class token, or the mean -> linear

Dosovitskiy et al. 2020 (arXiv:2010.11929). It knows nothing of neighbourhood but what it learns,
so it wants many images or strong augmentation. Registers are tokens without a place that the
network may write on (Darcet et al. 2023, arXiv:2309.16588). The parameters have timm's names, so
its weights load unchanged; torchvision's come through a table of keys.

The surprising choice: images of another size than it was built for are read too, with the learned
positions interpolated. For small images choose `patch_size=4`: 28 pixels are 49 words then, not 4.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.norms import make_feature_norm
from leadline.nn.patches import PatchEmbedding, as_tokens
from leadline.nn.positions import resize_positions, sine_positions
from leadline.nn.stochastic_depth import linear_rates
from leadline.nn.transformer_block import TransformerBlock, TransformerChoices

HEAD_WIDTH = 64  # features of a head, unless told otherwise
NORMS = ("layer", "rms", "none")
POSITION_DEVIATION = 0.02  # of learned positions at the start, as in the original
TOKEN_DEVIATION = 1e-6  # of the class token and the registers, as in timm


@dataclass(frozen=True, kw_only=True)
class ViTBlueprint(Blueprint):
    """A Blueprint with the choices of a vision transformer; `heads` 0 is one for 64 features."""

    patch_size: int = 16
    heads: int = 0
    mlp_ratio: float = 4.0
    pooling: Literal["token", "mean"] = "token"
    registers: int = 0
    positions: Literal["learned", "sine"] = "learned"
    layer_scale: float = 0.0
    block_dropout: float = 0.0
    attention_dropout: float = 0.0

    @property
    def number_of_heads(self) -> int:
        """The heads of each attention."""
        return self.heads or max(1, self.width // HEAD_WIDTH)


DEFAULTS = ViTBlueprint(
    depth=12,
    width=768,
    norm="layer",
    activation="gelu",
    init="trunc_normal",
    residual=True,
    preactivation=True,
)


class VisionTransformer(ImageModel):
    """Images of any size to logits; B batch, C channels, H W image, N tokens, D features."""

    heads: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(self, blueprint: ViTBlueprint, images: Images) -> None:
        features, side = blueprint.width, -(-images.image_size // blueprint.patch_size)
        super().__init__(images, num_features=features)
        self.grid = (side, side)
        mean = blueprint.pooling == "mean"
        self.others = blueprint.registers + (0 if mean else 1)  # tokens without a place
        self.cls_token = None if mean else _token(1, features)
        self.reg_token = _token(blueprint.registers, features) if blueprint.registers else None
        self.patch_embed = PatchEmbedding(
            images.in_chans, features, patch_size=blueprint.patch_size
        )
        if blueprint.positions == "learned":
            positions = torch.empty(1, self.others + side * side, features)
            self.pos_embed = nn.Parameter(nn.init.trunc_normal_(positions, std=POSITION_DEVIATION))
        else:
            self.register_buffer("pos_embed", self._sines(self.grid), persistent=False)
        self.learned = blueprint.positions == "learned"
        self.pos_drop = nn.Dropout(blueprint.block_dropout)
        rates = (0.0, *linear_rates(blueprint.drop_path_rate, blocks=blueprint.depth - 1))
        choices = _choices(blueprint)
        self.blocks = nn.Sequential(
            *(TransformerBlock(choices, drop_path_rate=rate) for rate in rates[: blueprint.depth])
        )
        self.norm = nn.Identity() if mean else make_feature_norm(blueprint.norm, features)
        self.fc_norm = make_feature_norm(blueprint.norm, features) if mean else nn.Identity()
        self.head_drop = nn.Dropout(blueprint.dropout)
        self.head = nn.Linear(features, images.num_classes)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        patches = self.patch_embed(images)  # B D h w
        tokens = self._placed(as_tokens(patches), grid=(patches.shape[2], patches.shape[3]))
        read: Tensor = self.norm(self.blocks(self.pos_drop(tokens)))
        return read

    def forward_head(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        mean = self.cls_token is None
        pooled = features[:, self.others :].mean(dim=1) if mean else features[:, 0]
        logits: Tensor = self.head(self.head_drop(self.fc_norm(pooled)))
        return logits

    def _placed(self, tokens: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """The tokens with those that have no place before them, and all positions added."""
        before = [
            token.expand(tokens.shape[0], -1, -1)
            for token in (self.cls_token, self.reg_token)
            if token is not None
        ]
        tokens = torch.cat([*before, tokens], dim=1)
        if grid == self.grid:
            return tokens + self.pos_embed
        if self.learned:
            return tokens + resize_positions(
                self.pos_embed, old=self.grid, new=grid, others=self.others
            )
        return tokens + self._sines(grid).to(tokens)

    def _sines(self, grid: tuple[int, int]) -> Tensor:
        """Sine positions, zeros for the tokens without a place."""
        return nn.functional.pad(
            sine_positions(self.num_features, grid=grid), (0, 0, self.others, 0)
        )

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict whose positions are of another square grid, for the grid of this model."""
        found, own = state.get("pos_embed"), self.pos_embed
        if not self.learned or found is None or found.ndim != 3 or found.shape == own.shape:
            return state
        side = round((found.shape[1] - self.others) ** 0.5)
        if side**2 + self.others != found.shape[1] or found.shape[2] != own.shape[2]:
            return state
        resized = resize_positions(found, old=(side, side), new=self.grid, others=self.others)
        return {**state, "pos_embed": resized}


def _token(count: int, features: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(1, count, features), std=TOKEN_DEVIATION))


def _choices(blueprint: ViTBlueprint) -> TransformerChoices:
    return TransformerChoices(
        features=blueprint.width,
        heads=blueprint.number_of_heads,
        hidden=int(blueprint.width * blueprint.mlp_ratio),
        norm=blueprint.norm,
        activation=blueprint.activation,
        residual=blueprint.residual,
        pre_norm=blueprint.preactivation,
        dropout=blueprint.block_dropout,
        attention_dropout=blueprint.attention_dropout,
        layer_scale=blueprint.layer_scale,
        scaled=blueprint.fixup,
    )


def final_size(blueprint: ViTBlueprint, image_size: int) -> int:
    """Patches a side; an image is padded to a whole number of them."""
    return -(-image_size // blueprint.patch_size)


def problems(blueprint: ViTBlueprint) -> list[str]:
    """What a vision transformer cannot be asked for."""
    found = [
        f"options: {name} must be >= {least}, received {getattr(blueprint, name)}"
        for name, least in (("patch_size", 1), ("heads", 0), ("registers", 0))
        if getattr(blueprint, name) < least
    ]
    if blueprint.heads >= 0 and blueprint.width % blueprint.number_of_heads:
        found.append(
            f"width: {blueprint.width} features do not fall into {blueprint.number_of_heads} heads "
            "evenly: use a multiple, or other heads"
        )
    if blueprint.norm not in NORMS:
        found.append(f"norm: tokens have {', '.join(NORMS)}, received {blueprint.norm!r}")
    if blueprint.positions == "sine" and blueprint.width % 4:
        found.append(f"width: sine positions need a multiple of 4, received {blueprint.width}")
    return found


SIZES = {  # the name's part, blocks, features: Dosovitskiy et al. 2020 and Touvron et al. 2020
    "ti": ("Ti", 12, 192),
    "s": ("S", 12, 384),
    "b": ("B", 12, 768),
    "l": ("L", 24, 1024),
}

MODELS = {
    f"vit_{size}_{patch}": Family(
        caption=f"ViT-{name}/{patch}, vision transformer: depth = blocks, width = features",
        build=VisionTransformer,
        defaults=dataclasses.replace(DEFAULTS, depth=depth, width=width, patch_size=patch),
        image_size=224,
        final_size=final_size,
        problems=problems,
    )
    for size, (name, depth, width) in SIZES.items()
    for patch in ((16, 32) if size in "bl" else (16,))
}
