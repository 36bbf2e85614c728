"""Tests of MobileNetV2: published sizes, where the input is added, what it cannot be asked for."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ConfigError
from leadline.models.create import create_model
from leadline.nn.residual import residual_blocks


@pytest.mark.parametrize(("width", "count"), [(100, 3_504_872), (140, 6_108_776), (50, 1_968_680)])
def test_it_has_as_many_parameters_as_published(width: int, count: int) -> None:
    with torch.device("meta"):
        model = create_model("mobilenet_v2", width=width)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_input_is_added_where_stride_and_shape_allow() -> None:
    with torch.device("meta"):
        model = create_model("mobilenet_v2", num_classes=3)
        plain = create_model("mobilenet_v2", num_classes=3, residual=False)
    assert len(residual_blocks(model)) == 10
    assert len(residual_blocks(plain)) == 0


def test_the_depth_is_the_number_of_blocks() -> None:
    model = create_model("mobilenet_v2", num_classes=3, width=25, depth=7, image_size=32)
    assert len(list(model.get_submodule("features").children())) == 9


def test_a_depth_out_of_proportion_is_told_with_its_neighbours() -> None:
    with pytest.raises(ConfigError, match=r"gives no 5 blocks; near it are 7 and 7"):
        create_model("mobilenet_v2", depth=5)
