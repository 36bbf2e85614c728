"""What every model keeps to, checked for each name in the list, in narrow ones to be quick."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from leadline.core.config import from_json, to_json
from leadline.models.architecture import Architecture
from leadline.models.create import create_model, describe_model, list_models, resolve
from leadline.models.weights import load_weights

NAMES = list_models()
# one CPU core overfits these in a second; the deeper ones are the same classes with more blocks
OVERFITTED = [name for name in NAMES if resolve(name).depth < 100]
FIXED_SIZE = ["mlp"]
CONVOLUTIONAL = [name for name in NAMES if name not in FIXED_SIZE]
SIDE = 16


def narrow(name: str, *, in_chans: int = 3, image_size: int = SIDE) -> nn.Module:
    torch.manual_seed(0)
    width = 4 if name == "resnet1202" else 8
    architecture = Architecture(model=name, width=width)
    return create_model(architecture, num_classes=5, in_chans=in_chans, image_size=image_size)


def batch(count: int, *, in_chans: int = 3, image_size: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, in_chans, image_size, image_size, generator=generator)


def settled(name: str) -> nn.Module:
    """In evaluation mode, with running statistics that a training pass has moved."""
    model = narrow(name)
    with torch.no_grad():
        model(batch(4))
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_finite_and_gradients_reach_every_parameter(name: str) -> None:
    model = narrow(name)
    logits = model(batch(4))
    assert logits.shape == (4, 5)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", OVERFITTED)
def test_it_overfits_eight_images(name: str) -> None:
    model, images = narrow(name), batch(8)
    targets = torch.arange(8) % 5
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.1:
            break
    assert loss.item() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_brings_back_the_same_logits(name: str) -> None:
    model = settled(name)
    torch.manual_seed(99)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.1)
    load_weights(other, model.state_dict())
    with torch.no_grad():
        assert torch.equal(other(batch(2)), model(batch(2)))


@pytest.mark.parametrize("name", NAMES)
def test_in_evaluation_it_repeats_itself_and_each_image_stands_alone(name: str) -> None:
    model = settled(name)
    images = batch(3)
    with torch.no_grad():
        together, again = model(images), model(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert torch.equal(together, again)
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4 * together.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_evaluating_changes_no_buffer(name: str) -> None:
    model = settled(name)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model(batch(2))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("image_size", [1, 8, 13, 28])
@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet20", "resnet18", "resnet50"])
def test_it_is_built_for_images_of_other_sizes_and_channels(
    name: str, in_chans: int, image_size: int
) -> None:
    model = narrow(name, in_chans=in_chans, image_size=image_size)
    assert model(batch(2, in_chans=in_chans, image_size=image_size)).isfinite().all()


@pytest.mark.parametrize("name", [n for n in CONVOLUTIONAL if n in OVERFITTED])
def test_convolutional_models_take_other_sizes_than_they_were_built_for(name: str) -> None:
    model = settled(name)
    with torch.no_grad():
        for image_size in (7, 33):
            assert model(batch(2, image_size=image_size)).shape == (2, 5)
        assert model(torch.randn(2, 3, 20, 12)).shape == (2, 5)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_builds_the_same_weights(name: str) -> None:
    first, second = narrow(name).state_dict(), narrow(name).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_maps_stay_in_channels_last_memory(name: str) -> None:
    model = settled(name).to(memory_format=torch.channels_last)
    images = batch(2, image_size=64).contiguous(memory_format=torch.channels_last)
    left: list[str] = []

    def look(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        if output.ndim == 4 and not output.is_contiguous(memory_format=torch.channels_last):
            left.append(type(module).__name__)

    for module in model.modules():
        module.register_forward_hook(look)
    with torch.no_grad():
        model(images)
    assert left == []


@pytest.mark.parametrize("name", [n for n in NAMES if n != "resnet1202"])
def test_bfloat16_autocast_changes_the_logits_by_rounding_only(name: str) -> None:
    model = settled(name)
    with torch.no_grad():
        exact = model(batch(2))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(batch(2)).float()
    assert ((rounded - exact).norm() / exact.norm()).item() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_works_in_place_so_that_full_backward_hooks_can_watch_it(name: str) -> None:
    assert not any(getattr(module, "inplace", False) for module in narrow(name).modules())


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_caption_that_gives_the_units_of_depth_and_width(name: str) -> None:
    caption = describe_model(name)
    assert "depth = " in caption
    assert "width = " in caption


@pytest.mark.parametrize("name", NAMES)
def test_its_architecture_survives_json(name: str) -> None:
    architecture = Architecture(model=name, depth=20, dropout=0.1, norm="group")
    assert from_json(Architecture, to_json(architecture)) == architecture
