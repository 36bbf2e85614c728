"""What every model keeps to, checked for each name in the list, in narrow ones to be quick.

Overfitting and other pictures are checked for the first and the last name of each class of models,
compiling and exporting for the first; with LEADLINE_EVERY_MODEL=1 for each name, but for the very
deep.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from leadline.core.config import from_json, to_json
from leadline.core.errors import ModelError
from leadline.models.architecture import Architecture
from leadline.models.create import FAMILIES, create_model, describe_model, list_models, resolve
from leadline.models.image_model import ImageModel
from leadline.models.weights import load_weights
from leadline.tasks.classification import Classification

NAMES = list_models()
EVERY = os.environ.get("LEADLINE_EVERY_MODEL") == "1"
DEEPEST = 130  # weight layers of a model that one core overfits in seconds
LEAST_SIDE = 16  # pixels
TASK = Classification(5)


@functools.cache
def on_meta(name: str) -> ImageModel:
    with torch.device("meta"):
        model = create_model(Architecture(model=name, width=8), num_classes=5)
    assert isinstance(model, ImageModel)
    return model


@functools.cache
def weight_layers(name: str) -> int:
    return sum(isinstance(module, nn.Linear | nn.Conv2d) for module in on_meta(name).modules())


def outermost() -> list[str]:
    """The first name of each class and its last that is not too deep; each name if asked for."""
    classes: dict[object, list[str]] = {}
    for name in NAMES:
        classes.setdefault(FAMILIES[name].build, []).append(name)
    chosen = set()
    for first, *others in classes.values():
        chosen |= {first, *[name for name in others if weight_layers(name) <= DEEPEST][-1:]}
    return [name for name in NAMES if EVERY or name in chosen]


OUTERMOST = outermost()
FIRST = [name for name in OUTERMOST if EVERY or FAMILIES[name].build not in
         {FAMILIES[other].build for other in OUTERMOST[: OUTERMOST.index(name)]}]  # fmt: skip
FIXED_SIZE = [name for name in NAMES if FAMILIES[name].final_size is None]
ANY_SIZE = [name for name in NAMES if name not in FIXED_SIZE]


def side(name: str) -> int:
    """Pixels: a small picture that the model can read."""
    patches = 2 * getattr(resolve(name), "patch_size", 1)  # two a side, so that they can be mixed
    return max(LEAST_SIDE, on_meta(name).smallest, patches)


def narrow(name: str, *, in_chans: int = 3, image_size: int | None = None) -> ImageModel:
    """Without dropout, which is no part of what is asked here."""
    torch.manual_seed(0)
    width = 4 if weight_layers(name) > 1000 else 8
    model = create_model(
        Architecture(model=name, width=width, dropout=0.0, drop_path_rate=0.0),
        num_classes=5,
        in_chans=in_chans,
        image_size=image_size or side(name),
    )
    assert isinstance(model, ImageModel)
    return model


def batch(count: int, *, image_size: int, in_chans: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, in_chans, image_size, image_size, generator=generator)


def settled(name: str) -> ImageModel:
    """In evaluation mode, with running statistics that a training pass has moved."""
    model = narrow(name)
    with torch.no_grad():
        model(batch(4, image_size=side(name)))
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_finite_and_gradients_reach_every_parameter(name: str) -> None:
    model, targets = narrow(name), torch.tensor([0, 1, 2, 3])
    loss = TASK.loss(model(batch(4, image_size=side(name))), targets)
    assert loss.isfinite()
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", [n for n in OUTERMOST if weight_layers(n) <= DEEPEST])
def test_it_overfits_eight_images(name: str) -> None:
    model, images = narrow(name), batch(8, image_size=side(name))
    targets = torch.arange(8) % 5
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(300):
        optimizer.zero_grad()
        loss = TASK.loss(model(images), targets)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.1:
            break
    assert loss.item() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_brings_back_the_same_logits(name: str) -> None:
    model, images = settled(name), batch(2, image_size=side(name))
    torch.manual_seed(99)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.1)
    load_weights(other, model.state_dict())
    with torch.no_grad():
        assert torch.equal(other(images), model(images))


@pytest.mark.parametrize("name", NAMES)
def test_in_evaluation_it_repeats_itself_and_each_image_stands_alone(name: str) -> None:
    model, images = settled(name), batch(3, image_size=side(name))
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        together, again = model(images), model(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert together.shape == (3, 5)
    assert torch.equal(together, again)
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4 * together.abs().max().item())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("more", [0, 12])
@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("name", OUTERMOST)
def test_it_is_built_for_images_of_other_sizes_and_channels(
    name: str, in_chans: int, more: int
) -> None:
    image_size = on_meta(name).smallest + more
    model = narrow(name, in_chans=in_chans, image_size=image_size).eval()
    images = batch(2, in_chans=in_chans, image_size=image_size)
    with torch.no_grad():
        assert model(images).isfinite().all()
    with pytest.raises(ModelError, match=f"received shape \\(2, {in_chans + 1}, "):
        model(batch(2, in_chans=in_chans + 1, image_size=image_size))


@pytest.mark.parametrize("name", [n for n in OUTERMOST if n in ANY_SIZE])
def test_it_takes_other_sizes_than_it_was_built_for_down_to_the_smallest(name: str) -> None:
    model, smallest = settled(name), on_meta(name).smallest
    with torch.no_grad():
        for image_size in (smallest, smallest + 9):
            assert model(batch(2, image_size=image_size)).shape == (2, 5)
        assert model(torch.randn(2, 3, smallest + 12, smallest + 4)).shape == (2, 5)
        if smallest > 1:
            with pytest.raises(ModelError, match=f"at least {smallest} x {smallest} pixels"):
                model(batch(2, image_size=smallest - 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_new_head_has_the_classes_asked_for_and_leaves_the_features(name: str) -> None:
    model, images = settled(name), batch(2, image_size=side(name))
    with torch.no_grad():
        before = model.forward_features(images)
        model.reset_classifier(7)
        assert model(images).shape == (2, 7)
        assert torch.equal(model.forward_features(images), before)
        assert torch.equal(model.forward_head(before), model(images))
        model.reset_classifier(0)
        assert model(images).shape == (2, model.num_features)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_builds_the_same_weights(name: str) -> None:
    first, second = narrow(name).state_dict(), narrow(name).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", ANY_SIZE)
def test_maps_stay_in_channels_last_memory(name: str) -> None:
    model = settled(name).to(memory_format=torch.channels_last)
    images = batch(2, image_size=side(name) + 48).contiguous(memory_format=torch.channels_last)
    left: list[str] = []

    def look(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if not arguments[0].is_contiguous(memory_format=torch.channels_last):
            left.append(str(module))

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | nn.BatchNorm2d):
            module.register_forward_pre_hook(look)
    with torch.no_grad():
        model(images)
    assert left == []


@pytest.mark.parametrize("name", [n for n in NAMES if weight_layers(n) <= 1000])
def test_bfloat16_autocast_changes_the_logits_by_rounding_only(name: str) -> None:
    model, images = settled(name), batch(2, image_size=side(name))
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(images).float()
    bound = 0.1 if weight_layers(name) <= DEEPEST else 0.3
    assert ((rounded - exact).norm() / exact.norm()).item() < bound


COMPILE = """
import json, sys
import torch
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.tasks.classification import Classification

for name, side in json.loads(sys.argv[1]).items():
    torch.manual_seed(0)
    choices = Architecture(model=name, width=8, dropout=0.0, drop_path_rate=0.0)
    model = create_model(choices, num_classes=5, image_size=side)
    images, targets = torch.randn(2, 3, side, side), torch.tensor([0, 1])
    loss = Classification(5).loss
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    try:
        found = loss(compiled(images), targets)
        found.backward()
        torch.testing.assert_close(found, loss(model(images), targets), rtol=1e-3, atol=1e-4)
    except Exception as error:
        print(name, type(error).__name__, error)
    torch.compiler.reset()
"""


@pytest.mark.timeout(1800)
def test_each_compiles_as_one_graph_in_training_with_the_same_loss() -> None:
    # in a process of its own, where no shapes are checked at run time: a check breaks the graph
    sides = {name: side(name) for name in FIRST if weight_layers(name) <= DEEPEST}
    command = [sys.executable, "-c", COMPILE, json.dumps(sides)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr[-2000:]


@pytest.mark.parametrize("name", [n for n in FIRST if weight_layers(n) <= DEEPEST])
def test_it_exports_for_batches_of_any_number(name: str) -> None:
    model = settled(name)
    exported = torch.export.export(
        model,
        (batch(2, image_size=side(name)),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    images = batch(3, image_size=side(name))
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_works_in_place_so_that_full_backward_hooks_can_watch_it(name: str) -> None:
    assert not any(getattr(module, "inplace", False) for module in on_meta(name).modules())


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_caption_that_gives_the_units_of_depth_and_width(name: str) -> None:
    caption = describe_model(name)
    assert "depth = " in caption
    assert "width = " in caption


@pytest.mark.parametrize("name", NAMES)
def test_its_architecture_survives_json(name: str) -> None:
    architecture = Architecture(model=name, depth=20, dropout=0.1, norm="group")
    assert from_json(Architecture, to_json(architecture)) == architecture
