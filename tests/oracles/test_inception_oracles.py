"""GoogLeNet and Inception v3 held to torchvision's: weights, all logits and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from original import assert_same, torchvision_model
from torch import Tensor

from leadline.models.create import create_model
from leadline.nn.auxiliary import WithAuxiliary


def every_head(output: Any) -> tuple[Tensor, ...]:
    """The main logits, then the auxiliary ones in the order of depth."""
    if isinstance(output, Tensor):
        return (output,)
    if isinstance(output, WithAuxiliary):
        return (output.logits, *output.auxiliary)
    return (output[0], *reversed(output[1:]))  # torchvision names the deeper one first


@pytest.mark.parametrize(("name", "side"), [("googlenet", 64), ("inception_v3", 299)])
def test_torchvision_weights_load_unchanged_and_give_its_logits_and_gradients(
    name: str, side: int
) -> None:
    original = torchvision_model(name, num_classes=7, init_weights=False)
    model = create_model(name, num_classes=7, image_size=side)
    assert list(model.state_dict()) == list(original.state_dict())
    assert_same(model, original, torch.randn(2, 3, side, side), first=every_head)
