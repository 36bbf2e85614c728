"""Weights that were trained for another task: all of them but the head, and the colours adapted.

A network is taken over when every tensor of it fits; two things may differ, and are told. Another
number of classes: the heads stay as they were drawn. Another number of channels: the first kernel
is summed over its channels for one channel, else repeated and scaled by the ratio of the numbers,
so that a grey picture gives what the same grey in colours gave (timm does the same).

Everything else that differs is an error that names the model whose weights these seem to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from leadline.models.image_model import ImageModel
from leadline.models.vit import VisionTransformer
from leadline.models.weights import load_weights, read_safetensors, strip_prefix


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What was not taken as it is: the names of new heads, the number of channels that it had."""

    new_heads: tuple[str, ...] = ()
    channels: int | None = None

    def __str__(self) -> str:
        said = [f"a new head ({', '.join(self.new_heads)})"] if self.new_heads else []
        if self.channels is not None:
            said.append(f"the first layer adapted from {self.channels} channels")
        return ", ".join(said) or "all weights"


def load_pretrained(
    model: ImageModel, source: Path | str | Mapping[str, Tensor], *, keep_head: bool = True
) -> Taken:
    """Copy weights into `model`, but for a head that does not fit or is not to be kept.

    `source` is a safetensors file or a state dict. Raises ModelError, and changes nothing, where
    anything else does not fit.

    >>> from leadline.models.create import create_model
    >>> source = create_model("resnet20", num_classes=10, in_chans=3)
    >>> model = create_model("resnet20", num_classes=4, in_chans=1)
    >>> print(load_pretrained(model, source.state_dict()))
    a new head (linear), the first layer adapted from 3 channels
    """
    found = source if isinstance(source, Mapping) else read_safetensors(source).tensors
    state = strip_prefix(found)
    if isinstance(model, VisionTransformer):
        state = model.fitted(state)  # positions of another grid
    own = model.state_dict()
    heads = tuple(
        name
        for name in model.heads
        if f"{name}.weight" in own
        and (not keep_head or _differs(state, own, f"{name}.weight"))
        and f"{name}.weight" in state
    )
    for name in heads:
        state.update({key: own[key] for key in own if key.startswith(f"{name}.")})
    first = _first_kernel(model)
    channels = None
    if first is not None and first in state and _same_but_channels(state[first], own[first]):
        channels = state[first].shape[1]
        state[first] = adapt_channels(state[first], own[first].shape[1])
    load_weights(model, state)
    return Taken(new_heads=heads, channels=channels)


def adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """A first kernel (O C h w) for another number of channels.

    >>> import torch
    >>> adapt_channels(torch.ones(1, 3, 1, 1), 1).flatten().tolist()
    [3.0]
    >>> adapt_channels(torch.ones(1, 3, 1, 1), 4).flatten().tolist()
    [0.75, 0.75, 0.75, 0.75]
    """
    had = kernel.shape[1]
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    repeated = kernel.repeat(1, -(-channels // had), 1, 1)[:, :channels]
    return repeated * (had / channels)


def _differs(state: Mapping[str, Tensor], own: Mapping[str, Tensor], key: str) -> bool:
    return key in state and state[key].shape != own[key].shape


def _first_kernel(model: ImageModel) -> str | None:
    """The name of the kernel that reads the pictures."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{name}.weight" if module.in_channels == model.in_chans else None
    return None


def _same_but_channels(found: Tensor, own: Tensor) -> bool:
    return (
        found.ndim == own.ndim == 4
        and found.shape[1] != own.shape[1]
        and found.shape[0] == own.shape[0]
        and found.shape[2:] == own.shape[2:]
    )
