"""Tests of DenseNet: published sizes, what every layer reads, and what saving memory changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from leadline.core.errors import ConfigError, ModelError
from leadline.models.create import create_model

COUNTS = {
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
}


@pytest.mark.parametrize("name", COUNTS)
def test_it_has_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


def test_every_layer_reads_what_all_before_it_put_out() -> None:
    model = create_model("densenet121", num_classes=3, width=4, image_size=32)
    block = model.get_submodule("features.denseblock2")
    read = [layer.get_submodule("conv1").in_channels for layer in block.children()]
    assert read == [16 + 4 * i for i in range(12)]


def saved_bytes(memory_saving: bool) -> int:
    torch.manual_seed(0)
    model = create_model("densenet121", num_classes=3, width=8, memory_saving=memory_saving)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(torch.randn(2, 3, 64, 64)).sum()
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    loss.backward()
    return sum(size for place, size in kept.items() if place not in parameters)


def test_saving_memory_keeps_much_less_for_the_backward_pass() -> None:
    assert saved_bytes(True) < 0.5 * saved_bytes(False)


def test_saving_memory_changes_neither_gradients_nor_running_statistics() -> None:
    found = []
    for memory_saving in (False, True):
        torch.manual_seed(0)
        model = create_model("densenet121", num_classes=3, width=4, memory_saving=memory_saving)
        for _ in range(2):
            model(torch.randn(4, 3, 32, 32)).square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found.append({**gradients, **dict(model.named_buffers())})
    plain, saving = found
    assert plain.keys() == saving.keys()
    for name, value in plain.items():
        torch.testing.assert_close(saving[name], value, msg=name)


def test_a_depth_that_there_is_none_of_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"121, 161, 169, 201 layers, received 100; the nearest"):
        create_model("densenet121", depth=100)


def test_images_that_leave_no_pixel_are_refused_with_the_smallest_side() -> None:
    with pytest.raises(ModelError, match="images of at least 29 x 29 pixels"):
        create_model("densenet121", image_size=28)
