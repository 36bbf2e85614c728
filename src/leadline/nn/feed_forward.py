"""Feed-forward: two linear layers with an activation between, for every token by itself."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from leadline.nn.activations import make_activation


class FeedForward(nn.Module):
    """Features (… D) to `hidden` units and back; the names are timm's.

    >>> import torch
    >>> FeedForward(4, hidden=16, activation="gelu")(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(
        self, features: int, *, hidden: int, activation: str, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.act = make_activation(activation)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, features)
        self.drop2 = nn.Dropout(dropout)

    def forward(self, values: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        result: Tensor = self.drop2(self.fc2(self.drop1(self.act(self.fc1(values)))))
        return result
