"""Tests of the multilayer perceptron."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError, ModelError
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.models.mlp import MLP, HiddenLayer


def build(image_size: int = 4, **options: object) -> MLP:
    architecture = Architecture(model="mlp", **options)  # type: ignore[arg-type]
    model = create_model(architecture, num_classes=3, in_chans=2, image_size=image_size)
    assert isinstance(model, MLP)
    return model


def test_it_is_linear_layers_and_activations_in_turn() -> None:
    model = build(depth=2, width=5, norm="none")
    images = torch.randn(6, 2, 4, 4)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [
        (32, 5),
        (5, 5),
        (5, 3),
    ]
    signal = images.flatten(1)
    for layer in linears[:-1]:
        signal = (signal @ layer.weight.T + layer.bias).relu()
    torch.testing.assert_close(model(images), signal @ linears[-1].weight.T + linears[-1].bias)


def test_the_residual_path_adds_the_input_of_each_hidden_layer_after_the_first() -> None:
    model = build(depth=3, width=6, norm="none", residual=True)
    signal = model.layers[0](torch.randn(2, 32))
    layer = model.layers[1]
    assert isinstance(layer, HiddenLayer)
    torch.testing.assert_close(layer(signal), (signal + layer.linear(signal)).relu())
    assert [block.join.residual for block in model.layers] == [False, True, True]


def test_features_are_what_the_head_reads() -> None:
    model = build(width=7).eval()
    features = model.forward_features(torch.ones(2, 2, 4, 4))
    assert features.shape == (2, 7)
    torch.testing.assert_close(model.head(features), model(torch.ones(2, 2, 4, 4)))


def test_one_image_can_be_trained_on_with_the_default_norm() -> None:
    assert build()(torch.randn(1, 2, 4, 4)).isfinite().all()


def test_images_of_another_size_are_refused_with_the_reason() -> None:
    with pytest.raises(ModelError) as caught:
        build()(torch.zeros(1, 2, 5, 4))
    assert str(caught.value) == (
        "expected images of 4 x 4 pixels: an MLP has a weight for each\n"
        "received shape (1, 2, 5, 4)\n"
        "do this  resize the images, or build the model with their size as image_size"
    )


def test_a_residual_path_needs_two_hidden_layers() -> None:
    with pytest.raises(ConfigError, match="use depth 2 or more"):
        build(depth=1, residual=True)


def test_instance_norm_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="height and width, which an MLP has not"):
        build(norm="instance")
