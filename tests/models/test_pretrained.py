"""Tests of taking weights over: new heads, other numbers of channels, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from leadline.core.errors import ModelError
from leadline.models.create import create_model
from leadline.models.image_model import ImageModel
from leadline.models.pretrained import adapt_channels, load_pretrained


def model(**choices: object) -> ImageModel:
    built = create_model("resnet20", **{"num_classes": 10, "in_chans": 3, "width": 4, **choices})
    assert isinstance(built, ImageModel)
    return built.eval()


def test_weights_of_the_same_shape_are_taken_whole() -> None:
    source, target = model(), model()
    taken = load_pretrained(target, source.state_dict())
    assert str(taken) == "all weights"
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(source(images), target(images))


def test_another_number_of_classes_leaves_the_head_as_it_was() -> None:
    source, target = model(), model(num_classes=4)
    before = target.get_submodule("linear").weight.clone()
    taken = load_pretrained(target, source.state_dict())
    assert taken.new_heads == ("linear",)
    assert torch.equal(target.get_submodule("linear").weight, before)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(source.forward_features(images), target.forward_features(images))


def test_a_head_that_is_not_wanted_stays_new() -> None:
    source, target = model(), model()
    taken = load_pretrained(target, source.state_dict(), keep_head=False)
    assert taken.new_heads == ("linear",)
    weight = target.get_submodule("linear").weight
    assert not torch.equal(weight, source.get_submodule("linear").weight)


def test_a_grey_picture_gives_what_the_same_grey_in_colours_gave() -> None:
    source, target = model(), model(in_chans=1)
    taken = load_pretrained(target, source.state_dict())
    assert str(taken) == "the first layer adapted from 3 channels"
    grey = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(target(grey), source(grey.expand(2, 3, 8, 8)))


def test_more_channels_repeat_the_kernel_and_keep_its_sum_for_equal_ones() -> None:
    kernel = torch.ones(2, 3, 1, 1)
    adapted = adapt_channels(kernel, 5)
    assert adapted.shape == (2, 5, 1, 1)
    torch.testing.assert_close(adapted.sum(dim=1), kernel.sum(dim=1))


def test_create_model_takes_weights_of_another_task_from_a_file(tmp_path: Path) -> None:
    source = model()
    save_file(source.state_dict(), tmp_path / "source.safetensors")
    target = model(num_classes=4, in_chans=1, pretrained=tmp_path / "source.safetensors")
    assert torch.equal(
        target.get_submodule("layer1").state_dict()["0.conv1.weight"],
        source.get_submodule("layer1").state_dict()["0.conv1.weight"],
    )


def test_weights_of_another_width_change_nothing_and_are_told() -> None:
    target = model()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ModelError, match=r"of another shape: conv1\.weight"):
        load_pretrained(target, model(width=8).state_dict())
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
