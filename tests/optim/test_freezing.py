"""Tests of freezing: which parts, how they thaw, and what their norms do meanwhile."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError
from leadline.models.create import create_model
from leadline.optim.freezing import Freezing


def network() -> nn.Module:
    torch.manual_seed(0)
    return create_model("resnet20", num_classes=3, width=4).train()


def free(model: nn.Module) -> set[str]:
    """The first words of the names of what learns."""
    return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("upto", "left"),
    [
        ("stem", {"layer1", "layer2", "layer3", "linear"}),
        ("layer1", {"layer2", "layer3", "linear"}),
        ("layer2.1", {"layer2", "layer3", "linear"}),
        ("bn1", {"layer1", "layer2", "layer3", "linear"}),
        ("features", {"linear"}),
    ],
)
def test_everything_up_to_the_named_part_is_frozen(upto: str, left: set[str]) -> None:
    model = network()
    Freezing(upto=upto).apply(model, step=0)
    assert free(model) == left


def test_a_part_of_a_row_is_frozen_to_its_end_only() -> None:
    model = network()
    Freezing(upto="layer2.1").apply(model, step=1000)
    learns = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learns[0].startswith("layer2.2.")


def test_frozen_parts_thaw_from_the_last_to_the_first() -> None:
    model, freezing = network(), Freezing(upto="features", thaw_steps=100)
    frozen = []
    for step in (0, 9, 10, 50, 99, 100, 5000):
        freezing.apply(model.train(), step=step)
        frozen.append(sum(not p.requires_grad for p in model.parameters()))
    everything = len(list(model.parameters())) - 2
    per_block = 6  # two convolutions and two norms
    assert frozen == [everything, everything, everything - per_block, 3 + 4 * per_block, 3, 0, 0]


def test_a_frozen_norm_stays_in_evaluation_and_keeps_its_statistics() -> None:
    model = network()
    Freezing(upto="layer1").apply(model, step=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    moved = {
        name.split(".")[0]
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"layer2", "layer3"}


def test_a_thawed_norm_is_in_training_again() -> None:
    model, freezing = network(), Freezing(upto="features", thaw_steps=10)
    freezing.apply(model, step=0)
    assert not model.get_submodule("bn1").training
    freezing.apply(model.train(), step=10)
    assert model.get_submodule("bn1").training


def test_the_names_are_those_of_the_parameters() -> None:
    assert Freezing(upto="stem").frozen_names(network()) == {
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
    }


def test_a_name_of_the_model_s_own_goes_before_the_two_words() -> None:
    model = nn.Sequential()
    model.add_module("first", nn.Linear(2, 2))
    model.add_module("features", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    model.add_module("second", nn.Linear(2, 2))
    model.add_module("head", nn.Linear(2, 1))
    assert len(Freezing(upto="features").parts(model)) == 3


def test_an_unknown_part_is_named_with_the_nearest_and_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        Freezing(upto="layer_2").parts(network())
    assert caught.value.received == "'layer_2' (did you mean 'layer2'?)"
    assert caught.value.expected.startswith(
        "freeze: the name of a part of the network: stem, features, layer1, layer2, layer3, conv1"
    )


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Freezing(upto="linear").parts(network())
    assert caught.value.received == "'linear', which leaves nothing to train"


def test_a_negative_number_of_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="thaw_steps must be >= 0, received -1"):
        Freezing(upto="stem", thaw_steps=-1)
