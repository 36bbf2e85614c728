"""Tests of what every image model is: features and heads, and pictures that misfit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError, ModelError
from leadline.models.create import create_model, list_models
from leadline.models.image_model import ImageModel, check_images


def build(name: str, **choices: object) -> ImageModel:
    model = create_model(name, num_classes=4, in_chans=3, image_size=16, **choices)
    assert isinstance(model, ImageModel)
    return model


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet20", "resnet18"])
def test_logits_are_the_head_of_the_features(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, width=8).eval()
    images = torch.randn(2, 3, 16, 16)
    features = model.forward_features(images)
    assert features.shape[1] == model.num_features
    assert torch.equal(model.forward_head(features), model(images))


def test_a_new_head_is_of_the_device_and_type_of_the_model() -> None:
    model = build("convnet").double()
    model.reset_classifier(2)
    assert model.get_submodule("head").weight.dtype == torch.float64


def test_fewer_than_no_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_classes must be >= 0, received -1"):
        build("convnet").reset_classifier(-1)


@pytest.mark.parametrize("name", list_models())
def test_every_head_named_is_a_linear_layer_of_the_model(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=4)
    assert model.heads
    for head in model.heads:
        layer = model.get_submodule(head)
        assert isinstance(layer, nn.Linear)
        assert layer.out_features == 4


def test_images_of_another_number_of_channels_are_refused_with_the_remedy() -> None:
    model = create_model("convnet", num_classes=2, in_chans=3, image_size=8)
    with pytest.raises(ModelError) as caught:
        model(torch.zeros(2, 1, 8, 8))
    assert str(caught.value) == (
        "expected images of shape (batch, 3, height, width)\n"
        "received shape (2, 1, 8, 8)\n"
        "do this  convert the images to 3 channels, or build the model with in_chans as the data "
        "have it"
    )


def test_one_image_without_a_batch_is_refused() -> None:
    with pytest.raises(ModelError, match=r"received shape \(3, 8, 8\)"):
        check_images(torch.zeros(3, 8, 8), in_chans=3)


def test_images_in_bytes_are_refused_with_the_remedy() -> None:
    with pytest.raises(ModelError) as caught:
        check_images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), in_chans=3)
    assert str(caught.value) == (
        "expected images of a floating-point type, normalised\n"
        "received torch.uint8\n"
        "do this  convert them with images.float() / 255 and normalise them as in training"
    )


def test_pictures_smaller_than_the_model_can_halve_are_refused_with_the_number() -> None:
    model = build("resnet20", norm="instance")
    assert model.smallest == 5
    with pytest.raises(ModelError) as caught:
        model(torch.zeros(2, 3, 4, 16))
    assert str(caught.value) == (
        "expected images of at least 5 x 5 pixels: the model halves them until less than one "
        "would be left\n"
        "received shape (2, 3, 4, 16)\n"
        "do this  enlarge the images, or take a model that halves them less, such as convnet"
    )
