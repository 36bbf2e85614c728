"""The brick of most convolutional networks: convolution -> norm -> activation.

A convolution that is followed by a norm has no bias, since the norm's shift does its work. The
padding keeps the size of the map at stride 1. The surprising choice: it is a plain nn.Sequential
whose layers are named as the original of a family names them, so that weights fit unchanged.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from leadline.nn.activations import make_activation
from leadline.nn.norms import make_map_norm

NUMBERED = ("0", "1", "2")
NAMED = ("conv", "bn", "relu")

Size = int | tuple[int, int]


def conv_block(
    inputs: int,
    outputs: int,
    kernel: Size,
    *,
    norm: str,
    activation: str | None,
    stride: int = 1,
    padding: Size | None = None,
    groups: int = 1,
    names: tuple[str, str, str] = NUMBERED,
) -> nn.Sequential:
    """Maps (B `inputs` H W) to (B `outputs` h w): convolution, norm, activation if named.

    `padding` None keeps height and width at stride 1, for kernels of odd sides.

    >>> block = conv_block(3, 8, 3, norm="batch", activation="relu", names=NAMED)
    >>> list(block.state_dict())[:3]
    ['conv.weight', 'bn.weight', 'bn.bias']
    """
    if padding is None:
        padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers[names[0]] = nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=padding,
        groups=groups,
        bias=norm == "none",
    )
    layers[names[1]] = make_map_norm(norm, outputs)
    if activation is not None:
        layers[names[2]] = make_activation(activation)
    return nn.Sequential(layers)
