"""A permutation of axes as a layer, so that it can stand in a row with others."""

from __future__ import annotations

from torch import Tensor, nn

TO_LAST = (0, 2, 3, 1)  # B C H W -> B H W C
TO_FIRST = (0, 3, 1, 2)  # B H W C -> B C H W


class Permute(nn.Module):
    """The same tensor with its axes in another order; a view, no data move.

    >>> import torch
    >>> Permute(TO_LAST)(torch.zeros(1, 2, 3, 4)).shape
    torch.Size([1, 3, 4, 2])
    """

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, values: Tensor) -> Tensor:
        return values.permute(self.axes)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"
