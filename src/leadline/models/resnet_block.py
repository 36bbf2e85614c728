"""The two blocks of a ResNet, basic and bottleneck, with the activation after the sum or before.

    post-activation  y = act(x + norm(conv(act(norm(conv(x))))))      He et al. 2015
    pre-activation   y = x + conv(act(norm(conv(act(norm(x))))))      He et al. 2016

In the second form the shortcuts are a clean sum from the first block to the last, which no
activation interrupts. The parameters have torchvision's names in both forms.

The surprising choices: in the pre-activation form a shortcut with weights reads the activated
input, as in He et al. 2016, but one without weights reads the raw input. The stride of a
bottleneck sits in its 3x3 convolution, as in torchvision, not in the first 1x1 as in the paper.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint
from leadline.nn.activations import make_activation
from leadline.nn.norms import make_map_norm
from leadline.nn.residual import ResidualAdd, ResidualBlock

# (blueprint, input channels, output channels, stride) -> a shortcut where the shape changes
ShortcutMaker = Callable[[Blueprint, int, int, int], nn.Module]


class Block(ResidualBlock):
    """What both blocks share: the shortcut, the sum, and on which side of it to activate.

    B batch, C and D channels in and out, H and W the map before the stride, h and w after it.
    """

    expansion: ClassVar[int]

    def _close(
        self, blueprint: Blueprint, *, downsample: nn.Module | None, drop_path_rate: float
    ) -> None:
        """Register the shortcut and the sum; last, so that parameters keep torchvision's order."""
        self.preactivation = blueprint.preactivation
        self.downsample = downsample
        self.projects = downsample is not None and any(True for _ in downsample.parameters())
        self.join = ResidualAdd(
            residual=blueprint.residual,
            drop_path_rate=drop_path_rate,
            scaled=blueprint.fixup,
        )

    @abstractmethod
    def triples(self) -> tuple[tuple[nn.Module, nn.Module, nn.Module], ...]:
        """The (convolution, norm, activation) triples in depth order."""

    def branch(self) -> tuple[nn.Module, ...]:
        if self.preactivation:
            return tuple(m for conv, norm, act in self.triples() for m in (norm, act, conv))
        return tuple(m for triple in self.triples() for m in triple)[:-1]

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        branch, shortcut = maps, maps
        for depth, module in enumerate(self.branch(), start=1):
            branch = module(branch)
            if depth == 2 and self.preactivation and self.projects:
                shortcut = branch  # the input after its norm and activation
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        joined: Tensor = self.join(branch, shortcut=shortcut)
        if self.preactivation:
            return joined
        activated: Tensor = self.triples()[-1][2](joined)
        return activated


class BasicBlock(Block):
    """Two 3x3 convolutions; the block of ResNet-18, -34 and of the CIFAR form."""

    expansion = 1

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        inputs: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = _triple(blueprint, inputs, planes, 3, stride)
        self.conv2, self.bn2, self.act2 = _triple(blueprint, planes, planes, 3, 1)
        self._close(blueprint, downsample=downsample, drop_path_rate=drop_path_rate)

    def triples(self) -> tuple[tuple[nn.Module, nn.Module, nn.Module], ...]:
        return ((self.conv1, self.bn1, self.act1), (self.conv2, self.bn2, self.act2))


class Bottleneck(Block):
    """1x1 down to `planes`, 3x3, 1x1 up to four times as many; the block from ResNet-50 on."""

    expansion = 4

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        inputs: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1, self.bn1, self.act1 = _triple(blueprint, inputs, planes, 1, 1)
        self.conv2, self.bn2, self.act2 = _triple(blueprint, planes, planes, 3, stride)
        self.conv3, self.bn3, self.act3 = _triple(blueprint, planes, outputs, 1, 1)
        self._close(blueprint, downsample=downsample, drop_path_rate=drop_path_rate)

    def triples(self) -> tuple[tuple[nn.Module, nn.Module, nn.Module], ...]:
        return (
            (self.conv1, self.bn1, self.act1),
            (self.conv2, self.bn2, self.act2),
            (self.conv3, self.bn3, self.act3),
        )


def make_stages(
    blueprint: Blueprint,
    *,
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    counts: tuple[int, ...],
    rates: tuple[float, ...],
    shortcut: ShortcutMaker,
) -> Iterator[nn.Sequential]:
    """The stages of a ResNet: each doubles the planes and, but for the first, halves the map.

    `counts` are the blocks per stage, `rates` the stochastic depth of every block in depth order.
    """
    remaining = iter(rates)
    for stage, count in enumerate(counts):
        planes = blueprint.width * 2**stage
        outputs = planes * block.expansion
        blocks = []
        for position in range(count):
            stride = 2 if stage > 0 and position == 0 else 1
            changes = stride != 1 or inputs != outputs
            blocks.append(
                block(
                    blueprint,
                    inputs=inputs,
                    planes=planes,
                    stride=stride,
                    downsample=shortcut(blueprint, inputs, outputs, stride)
                    if changes and blueprint.residual
                    else None,
                    drop_path_rate=next(remaining),
                )
            )
            inputs = outputs
        yield nn.Sequential(*blocks)


def _triple(
    blueprint: Blueprint, inputs: int, outputs: int, kernel: int, stride: int
) -> tuple[nn.Conv2d, nn.Module, nn.Module]:
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=blueprint.bias
    )
    normalised = inputs if blueprint.preactivation else outputs
    norm = make_map_norm(blueprint.norm, normalised)
    return convolution, norm, make_activation(blueprint.activation)
