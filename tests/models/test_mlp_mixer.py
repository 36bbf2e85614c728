"""Tests of MLP-Mixer: published sizes, one image size, what it cannot be asked for."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ConfigError, ModelError
from leadline.models.create import create_model

COUNTS = {"mixer_s_16": 18_528_264, "mixer_b_16": 59_880_472, "mixer_l_16": 208_196_168}


@pytest.mark.parametrize("name", COUNTS)
def test_it_has_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


def test_images_of_another_size_are_refused_with_the_remedy() -> None:
    model = create_model("mixer_s_16", num_classes=3, width=8, depth=2, image_size=64)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(ModelError, match="images of 64 x 64 pixels: a Mixer has a weight for each"):
        model(torch.randn(2, 3, 32, 32))


def test_norms_that_tokens_have_not_are_refused() -> None:
    with pytest.raises(ConfigError, match="tokens have layer, rms, none, received 'group'"):
        create_model("mixer_s_16", norm="group")
