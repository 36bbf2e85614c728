"""The block of a transformer: attention between tokens, then a feed-forward layer for each.

    pre-norm    x = x + attention(norm(x));  x = x + feed_forward(norm(x))
    post-norm   x = norm(x + attention(x));  x = norm(x + feed_forward(x))

Vaswani et al. 2017 had the norm behind the sum; in front of it (Xiong et al. 2020,
arXiv:2002.04745) the sum is clean from the first block to the last, and deep ones train without a
long warm-up. The parameters have timm's names.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from leadline.nn.attention import SelfAttention
from leadline.nn.feed_forward import FeedForward
from leadline.nn.layer_scale import LayerScale
from leadline.nn.norms import make_feature_norm
from leadline.nn.residual import ResidualAdd, ResidualBlock


@dataclass(frozen=True, kw_only=True)
class TransformerChoices:
    """What a transformer block is built from; `layer_scale` 0 is a block without one."""

    features: int
    heads: int
    hidden: int
    norm: str
    activation: str
    residual: bool = True
    pre_norm: bool = True
    causal: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    layer_scale: float = 0.0
    scaled: bool = False


class TransformerBlock(ResidualBlock):
    """Tokens (B N D) to the same shape.

    >>> import torch
    >>> choices = TransformerChoices(
    ...     features=8, heads=2, hidden=32, norm="layer", activation="gelu"
    ... )
    >>> TransformerBlock(choices)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, choices: TransformerChoices, *, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        features = choices.features
        self.pre_norm = choices.pre_norm
        self.norm1 = make_feature_norm(choices.norm, features)
        self.attn = SelfAttention(
            features,
            heads=choices.heads,
            dropout=choices.attention_dropout,
            causal=choices.causal,
        )
        self.drop = nn.Dropout(choices.dropout)
        self.ls1 = _scale(choices)
        self.join = _join(choices, drop_path_rate)
        self.norm2 = make_feature_norm(choices.norm, features)
        self.mlp = FeedForward(
            features,
            hidden=choices.hidden,
            activation=choices.activation,
            dropout=choices.dropout,
        )
        self.ls2 = _scale(choices)
        self.join2 = _join(choices, drop_path_rate)

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        attention = (self.attn.qkv, self.attn.proj)
        feed_forward = (self.mlp.fc1, self.mlp.act, self.mlp.fc2)
        if self.pre_norm:
            return ((self.norm1, *attention), (self.norm2, *feed_forward))
        return (attention, feed_forward)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        first = self.norm1(tokens) if self.pre_norm else tokens
        tokens = self.join(self.ls1(self.drop(self.attn(first))), shortcut=tokens)
        tokens = tokens if self.pre_norm else self.norm1(tokens)
        second = self.norm2(tokens) if self.pre_norm else tokens
        result: Tensor = self.join2(self.ls2(self.mlp(second)), shortcut=tokens)
        return result if self.pre_norm else self.norm2(result)


def _scale(choices: TransformerChoices) -> nn.Module:
    if not choices.layer_scale:
        return nn.Identity()
    return LayerScale(choices.features, start=choices.layer_scale)


def _join(choices: TransformerChoices, drop_path_rate: float) -> ResidualAdd:
    return ResidualAdd(
        residual=choices.residual, drop_path_rate=drop_path_rate, scaled=choices.scaled
    )
