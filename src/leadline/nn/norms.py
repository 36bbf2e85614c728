"""Normalisation by name, for maps (B C H W) and for features (B C).

Each norm subtracts a mean and divides by a standard deviation; they differ in what is averaged:
batch over (B, H, W), instance over (H, W), group over (channels of a group, H, W), layer over the
channels at each place, RMS the same without subtracting the mean. After it follow a learned scale
and, except for RMS, a learned shift per channel.

Ioffe & Szegedy 2015 (batch), Ba et al. 2016 (layer), Ulyanov et al. 2016 (instance), Wu & He 2018
(group), Zhang & Sennrich 2019 (RMS).

The surprising choices: layer norm on a map averages over the channels at each place alone, as in
ConvNeXt, and not over the whole map, which `GroupNorm(1, C)` would do. Group norm has the paper's
32 groups only where that leaves 8 channels in each: a group of one would erase a feature. And
instance norm is computed as the group norm of one channel per group that it is, since PyTorch's
InstanceNorm2d takes maps out of channels_last memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import ModelError
from leadline.core.names import look_up

NormName = Literal["batch", "layer", "group", "instance", "rms", "none"]

EPSILON = 1e-6  # for layer and RMS norm, as in ConvNeXt; PyTorch's own default elsewhere
MOST_GROUPS = 32  # Wu & He 2018, section 4
FEWEST_CHANNELS = 8  # per group: below it, Wu & He's table 3 loses accuracy


class MapLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of a map, at each place by itself.

    Maps in channels_last memory stay there: the permutation then moves no data.

    >>> import torch
    >>> maps = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)
    >>> MapLayerNorm(2, eps=0.0)(maps).flatten().tolist()
    [-1.0, 1.0]
    """

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MapRMSNorm(nn.RMSNorm):
    """RMS norm over the channels of a map, at each place by itself."""

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def count_groups(channels: int) -> int:
    """The most groups, up to 32, that divide `channels` evenly with at least 8 in each.

    >>> [count_groups(channels) for channels in (3, 16, 64, 100, 512)]
    [1, 2, 8, 10, 32]
    """
    fitting = [g for g in range(1, MOST_GROUPS + 1) if channels % g == 0]
    return max((g for g in fitting if channels // g >= FEWEST_CHANNELS), default=1)


def set_batch_norm(model: nn.Module, *, eps: float, momentum: float = 0.1) -> None:
    """Give every batch norm in `model` an epsilon and a memory of its own, as its original has.

    >>> model = nn.Sequential(nn.BatchNorm2d(3))
    >>> set_batch_norm(model, eps=1e-3)
    >>> model[0].eps
    0.001
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eps, module.momentum = eps, momentum


LAST_AXIS_NORMS = ("layer", "rms")
"""The norms that average over the channels alone, wherever these stand last."""

MAP_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: MapLayerNorm(channels, eps=EPSILON),
    "group": lambda channels: nn.GroupNorm(count_groups(channels), channels),
    "instance": lambda channels: nn.GroupNorm(channels, channels),
    "rms": lambda channels: MapRMSNorm(channels, eps=EPSILON),
    "none": lambda channels: nn.Identity(),
}

FEATURE_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": lambda channels: nn.LayerNorm(channels, eps=EPSILON),
    "group": lambda channels: nn.GroupNorm(count_groups(channels), channels),
    "rms": lambda channels: nn.RMSNorm(channels, eps=EPSILON),
    "none": lambda channels: nn.Identity(),
}


def make_map_norm(name: str, channels: int) -> nn.Module:
    """The norm called `name` for maps of shape (B, `channels`, H, W); 'none' is the identity.

    >>> make_map_norm("group", 64).num_groups
    8
    """
    return look_up(name, MAP_NORMS, kind="norm")(channels)


def make_feature_norm(name: str, channels: int) -> nn.Module:
    """The norm called `name` for features of shape (B, `channels`); 'none' is the identity.

    Raises ModelError for instance norm, which would average over the one value of a feature.

    >>> make_feature_norm("batch", 5).num_features
    5
    """
    if name == "instance":
        raise ModelError(
            expected="a norm for features without height and width",
            received="norm 'instance', which averages over height and width",
            remedy=f"choose one of {', '.join(FEATURE_NORMS)}",
        )
    return look_up(name, FEATURE_NORMS, kind="norm")(channels)
