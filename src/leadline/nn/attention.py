"""Self-attention: every token takes from all others what its query finds in their keys.

    softmax(Q K^T / sqrt(d)) V     for each of H heads of d = D / H features, then one linear map

Vaswani et al. 2017 (arXiv:1706.03762). Computed by torch's scaled_dot_product_attention, which does
not write the N x N table to memory where it can avoid it. Queries, keys and values are one linear
map, as in timm, whose names the parameters have.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from leadline.core.errors import ModelError


class SelfAttention(nn.Module):
    """Tokens (B N D) to the same shape; `dropout` is that of the attention's weights.

    With `causal` a token sees itself and those before it alone. Raises ModelError unless the
    features fall into the heads evenly.

    >>> import torch
    >>> SelfAttention(8, heads=2)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self, features: int, *, heads: int, dropout: float = 0.0, causal: bool = False
    ) -> None:
        super().__init__()
        if features % heads:
            raise ModelError(
                expected="features that fall into the heads evenly",
                received=f"{features} features and {heads} heads",
                remedy=f"use a width that is a multiple of {heads}, or other heads",
            )
        self.heads = heads
        self.dropout = dropout
        self.causal = causal
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        batch, length, features = tokens.shape
        split = self.qkv(tokens).reshape(batch, length, 3, self.heads, features // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)  # each B H N d
        seen = scaled_dot_product_attention(
            queries,
            keys,
            values,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal,
        )
        mixed: Tensor = self.proj(seen.transpose(1, 2).reshape(batch, length, features))
        return mixed

    def extra_repr(self) -> str:
        return f"heads={self.heads}, dropout={self.dropout}, causal={self.causal}"
