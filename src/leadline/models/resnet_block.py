"""The two blocks of a ResNet, basic and bottleneck, with the activation after the sum or before.

    post-activation  y = act(x + norm(conv(act(norm(conv(x))))))      He et al. 2015
    pre-activation   y = x + conv(act(norm(conv(act(norm(x))))))      He et al. 2016

In the second form the shortcuts are a clean sum from the first block to the last, which no
activation interrupts. The 3x3 convolution of a bottleneck may be wider (Zagoruyko and Komodakis
2016) or fall into groups (ResNeXt, Xie et al. 2017), and a branch may end in a squeeze and
excitation (Hu et al. 2018). The parameters have torchvision's names in all forms, and timm's `se`.

The surprising choices: in the pre-activation form a shortcut with weights reads the activated
input, as in He et al. 2016, but one without weights reads the raw input. The stride of a
bottleneck sits in its 3x3 convolution, as in torchvision, not in the first 1x1 as in the paper.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from leadline.models.architecture import Blueprint
from leadline.nn.activations import make_activation
from leadline.nn.channels import round_channels
from leadline.nn.norms import make_map_norm
from leadline.nn.residual import ResidualAdd, ResidualBlock
from leadline.nn.squeeze_excite import SqueezeExcite


@dataclass(frozen=True, kw_only=True)
class ResNetBlueprint(Blueprint):
    """A Blueprint with the choices that every ResNet has.

    `groups` of the 3x3 convolution of a bottleneck, `width_per_group` its channels in each for 64
    planes; `squeeze` is the factor by which a squeeze and excitation narrows (0: there is none).
    """

    groups: int = 1
    width_per_group: int = 64
    squeeze: int = 0


# (blueprint, input channels, output channels, stride) -> a shortcut where the shape changes
ShortcutMaker = Callable[[Any, int, int, int], nn.Module]


class Block(ResidualBlock):
    """What both blocks share: the shortcut, the sum, and on which side of it to activate.

    B batch, C and D channels in and out, H and W the map before the stride, h and w after it.
    """

    expansion: ClassVar[int]

    def _close(
        self,
        blueprint: ResNetBlueprint,
        *,
        outputs: int,
        downsample: nn.Module | None,
        drop_path_rate: float,
    ) -> None:
        """Register the shortcut and the sum; last, so that parameters keep torchvision's order."""
        self.se = None
        if blueprint.squeeze:
            squeezed = round_channels(outputs / blueprint.squeeze, least_share=0.0)
            self.se = SqueezeExcite(outputs, squeezed=squeezed, activation=blueprint.activation)
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

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (self._branch(),)

    def _branch(self) -> tuple[nn.Module, ...]:
        if self.preactivation:
            return tuple(m for conv, norm, act in self.triples() for m in (norm, act, conv))
        return tuple(m for triple in self.triples() for m in triple)[:-1]

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        branch, shortcut = maps, maps
        for depth, module in enumerate(self._branch(), start=1):
            branch = module(branch)
            if depth == 2 and self.preactivation and self.projects:
                shortcut = branch  # the input after its norm and activation
        if self.se is not None:
            branch = self.se(branch)
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
        blueprint: ResNetBlueprint,
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
        self._close(blueprint, outputs=planes, downsample=downsample, drop_path_rate=drop_path_rate)

    def triples(self) -> tuple[tuple[nn.Module, nn.Module, nn.Module], ...]:
        return ((self.conv1, self.bn1, self.act1), (self.conv2, self.bn2, self.act2))


class Bottleneck(Block):
    """1x1 down to `planes`, 3x3, 1x1 up to four times as many; the block from ResNet-50 on."""

    expansion = 4

    def __init__(
        self,
        blueprint: ResNetBlueprint,
        *,
        inputs: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        outputs = planes * self.expansion
        groups = blueprint.groups
        inner = max(1, planes * blueprint.width_per_group // 64) * groups
        self.conv1, self.bn1, self.act1 = _triple(blueprint, inputs, inner, 1, 1)
        self.conv2, self.bn2, self.act2 = _triple(blueprint, inner, inner, 3, stride, groups)
        self.conv3, self.bn3, self.act3 = _triple(blueprint, inner, outputs, 1, 1)
        self._close(
            blueprint, outputs=outputs, downsample=downsample, drop_path_rate=drop_path_rate
        )

    def triples(self) -> tuple[tuple[nn.Module, nn.Module, nn.Module], ...]:
        return (
            (self.conv1, self.bn1, self.act1),
            (self.conv2, self.bn2, self.act2),
            (self.conv3, self.bn3, self.act3),
        )


def make_stages(
    blueprint: ResNetBlueprint,
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
    blueprint: Blueprint, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> tuple[nn.Conv2d, nn.Module, nn.Module]:
    convolution = nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=blueprint.bias,
    )
    normalised = inputs if blueprint.preactivation else outputs
    norm = make_map_norm(blueprint.norm, normalised)
    return convolution, norm, make_activation(blueprint.activation)


def project(blueprint: Blueprint, inputs: int, outputs: int, stride: int) -> nn.Module:
    """Option B: a shortcut that changes the shape by a 1x1 convolution, with a norm behind it.

    With pre-activation there is no norm, since what it reads is normalised already.
    """
    convolution = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=blueprint.bias)
    if blueprint.preactivation:
        return nn.Sequential(convolution)
    return nn.Sequential(convolution, make_map_norm(blueprint.norm, outputs))


def block_problems(
    blueprint: ResNetBlueprint, block: type[BasicBlock] | type[Bottleneck]
) -> list[str]:
    """What the blocks of a ResNet cannot be asked for."""
    found = []
    for name in ("groups", "width_per_group"):
        if getattr(blueprint, name) < 1:
            found.append(f"options: {name} must be >= 1, received {getattr(blueprint, name)}")
    if blueprint.squeeze < 0:
        found.append(f"options: squeeze must be >= 0, received {blueprint.squeeze}")
    widened = blueprint.groups != 1 or blueprint.width_per_group != 64
    if block is BasicBlock and widened:
        found.append(
            "options: groups and width_per_group are of bottlenecks, and this ResNet has basic "
            "blocks: leave them out, or take depth 50 or more"
        )
    return found
