"""DenseNet: every layer reads what all layers before it in its block put out, side by side.

    dense layer   norm -> act -> conv 1x1 (4k) -> norm -> act -> conv 3x3 (k), put beside its input
    transition    norm -> act -> conv 1x1 to half the channels -> average-pool 2
    network       conv 7x7/2 (2k) -> norm -> act -> pool -> 4 blocks, 3 transitions -> norm -> act
                  -> global average -> linear

Features are used again instead of learned again, so that k = 32 new channels a layer suffice, and
the gradient reaches every layer by a short way (Huang et al. 2017, arXiv:1608.06993). The names of
all parameters are torchvision's, so its weights load unchanged.

Every layer keeps the whole of what it read for the backward pass: memory grows with the square of
the depth. `memory_saving` computes that part again instead (Pleiss et al. 2017, arXiv:1707.06990).
The surprising choice: running statistics are then not moved a second time, as they are in
torchvision, so that the network is the same with and without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from leadline.models.architecture import Blueprint, Family, Images, depth_problems
from leadline.models.image_model import ImageModel
from leadline.nn.activations import make_activation
from leadline.nn.norms import make_map_norm

BOTTLENECK = 4  # channels between the two convolutions of a layer, in units of the growth rate
LAYERS = {  # dense layers in each block: Huang et al. 2017, table 1
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
}


@dataclass(frozen=True, kw_only=True)
class DenseNetBlueprint(Blueprint):
    """A Blueprint with DenseNet's own choice."""

    memory_saving: bool = False


DEFAULTS = DenseNetBlueprint(
    depth=121, width=32, norm="batch", activation="relu", init="he", residual=False
)


class DenseLayer(nn.Module):
    """What all layers before put out (each B C H W) to `width` new channels (B k H W)."""

    def __init__(self, blueprint: DenseNetBlueprint, *, inputs: int) -> None:
        super().__init__()
        growth, between = blueprint.width, BOTTLENECK * blueprint.width
        self.norm1 = make_map_norm(blueprint.norm, inputs)
        self.relu1 = make_activation(blueprint.activation)
        self.conv1 = nn.Conv2d(inputs, between, 1, bias=blueprint.bias)
        self.norm2 = make_map_norm(blueprint.norm, between)
        self.relu2 = make_activation(blueprint.activation)
        self.conv2 = nn.Conv2d(between, growth, 3, padding=1, bias=blueprint.bias)
        self.dropout = nn.Dropout(blueprint.dropout)
        self.memory_saving = blueprint.memory_saving

    def forward(self, before: list[Tensor]) -> Float[Tensor, "B K H W"]:
        if self.memory_saving and self.training and torch.is_grad_enabled():
            narrow = checkpoint(
                self._narrow, *before, use_reentrant=False, context_fn=self._contexts
            )
        else:
            narrow = self._narrow(*before)
        new: Tensor = self.dropout(self.conv2(self.relu2(self.norm2(narrow))))
        return new

    def _narrow(self, *before: Tensor) -> Tensor:
        maps: Tensor = self.conv1(self.relu1(self.norm1(torch.cat(before, dim=1))))
        return maps

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _unrecorded(self.norm1)


class DenseBlock(nn.ModuleDict):
    """Dense layers, each of which reads the input (B C H W) and all that came after it."""

    def __init__(self, blueprint: DenseNetBlueprint, *, inputs: int, layers: int) -> None:
        super().__init__(
            {
                f"denselayer{i + 1}": DenseLayer(blueprint, inputs=inputs + i * blueprint.width)
                for i in range(layers)
            }
        )

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        found = [maps]
        for layer in self.values():
            found.append(layer(found))
        return torch.cat(found, dim=1)


class DenseNet(ImageModel):
    """Images of any size to logits; axes B batch, C channels, H W image, h w map, K classes."""

    heads: ClassVar[tuple[str, ...]] = ("classifier",)

    def __init__(self, blueprint: DenseNetBlueprint, images: Images) -> None:
        channels = 2 * blueprint.width
        features = nn.Sequential()
        features.add_module(
            "conv0",
            nn.Conv2d(images.in_chans, channels, 7, stride=2, padding=3, bias=blueprint.bias),
        )
        features.add_module("norm0", make_map_norm(blueprint.norm, channels))
        features.add_module("relu0", make_activation(blueprint.activation))
        features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
        for number, layers in enumerate(LAYERS[blueprint.depth], start=1):
            block = DenseBlock(blueprint, inputs=channels, layers=layers)
            features.add_module(f"denseblock{number}", block)
            channels += layers * blueprint.width
            if number < len(LAYERS[blueprint.depth]):
                features.add_module(f"transition{number}", _transition(blueprint, channels))
                channels //= 2
        features.add_module("norm5", make_map_norm(blueprint.norm, channels))
        super().__init__(images, num_features=channels)
        self.features = features
        self.last_act = make_activation(blueprint.activation)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, images.num_classes)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps: Tensor = self.last_act(self.features(images))
        return maps

    def forward_head(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K"]:
        logits: Tensor = self.classifier(self.avgpool(features).flatten(1))
        return logits


def _transition(blueprint: DenseNetBlueprint, channels: int) -> nn.Sequential:
    """Half the channels on half the map."""
    layers: dict[str, nn.Module] = {
        "norm": make_map_norm(blueprint.norm, channels),
        "relu": make_activation(blueprint.activation),
        "conv": nn.Conv2d(channels, channels // 2, 1, bias=blueprint.bias),
        "pool": nn.AvgPool2d(2),
    }
    transition = nn.Sequential()
    for name, layer in layers.items():
        transition.add_module(name, layer)
    return transition


@contextmanager
def _unrecorded(norm: nn.Module) -> Iterator[None]:
    """A batch norm does not move its running statistics meanwhile: this pass was counted before."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.num_batches_tracked is None:
        yield
        return
    momentum, counted = norm.momentum, norm.num_batches_tracked.clone()
    norm.momentum = 0.0
    try:
        yield
    finally:
        norm.momentum = momentum
        norm.num_batches_tracked.copy_(counted)


def final_size(blueprint: Blueprint, image_size: int) -> int:
    """The side of the last map: two halvings that round up, three that round down."""
    return -(-image_size // 4) // 8


def problems(blueprint: Blueprint) -> list[str]:
    """What a DenseNet cannot be asked for."""
    return depth_problems("a DenseNet", blueprint.depth, LAYERS)


MODELS = {
    f"densenet{depth}": Family(
        caption=f"DenseNet-{depth}: depth = layers ({', '.join(map(str, LAYERS))}), "
        "width = new channels of each layer (the growth rate)",
        build=DenseNet,
        defaults=dataclasses.replace(DEFAULTS, depth=depth, width=width),
        image_size=224,
        final_size=final_size,
        fixed=frozenset({"residual", "preactivation"}),
        problems=problems,
    )
    for depth, width in ((121, 32), (169, 32), (201, 32), (161, 48))
}
