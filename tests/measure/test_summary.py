"""Tests of the summary, against closed forms, torch's own counts and published figures."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from leadline.core.errors import LeadlineError
from leadline.measure.summary import Summary, short, short_bytes, summary
from leadline.models.create import create_model


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 5),
    )


def test_every_number_of_a_small_network_is_its_closed_form() -> None:
    found = summary(small(), (3, 8, 8))
    rows = {layer.name: layer for layer in found.layers}
    assert [layer.parameters for layer in found.layers] == [8 * 3 * 9 + 8, 16, 0, 0, 0, 128 * 5 + 5]
    assert rows["0"].flops == 2 * 8 * 8 * 8 * 3 * 9
    assert rows["5"].flops == 2 * 128 * 5
    assert rows["0"].shape == (8, 8, 8)
    assert [rows[name].field for name in ("0", "2", "3")] == [3, 3, 4]
    assert found.parameters == found.trainable == sum(p.numel() for p in small().parameters())
    plane = 4 * 8 * 8 * 8  # bytes of a map: batch norm keeps what it read, ReLU what it gave
    assert rows["1"].memory == pytest.approx(plane + 4 * 8, abs=64)  # and a mean and a deviation
    assert rows["2"].memory == plane
    assert rows["3"].memory == 8 * 8 * 4 * 4  # the places of the largest, as whole numbers
    assert rows["5"].memory == 4 * 128


def test_memory_that_two_layers_keep_counts_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    memory = {layer.name: layer.memory for layer in summary(model, (4,)).layers}
    assert memory == {"0": 0.0, "1": 16.0, "2": 0.0}  # ReLU's output is the input of the last


@pytest.mark.parametrize(
    ("name", "multiply_adds"),  # 10^9, as torchvision publishes them
    [
        ("alexnet", 0.714),
        ("resnet50", 4.089),
        ("mobilenet_v2", 0.301),
        ("efficientnet_b0", 0.386),
        ("convnext_tiny", 4.456),
        ("vit_b_16", 17.564),
    ],
)
def test_operations_are_as_many_as_published(name: str, multiply_adds: float) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert summary(model, (3, 224, 224)).flops / 2e9 == pytest.approx(multiply_adds, abs=0.02)


@pytest.mark.parametrize("name", ["resnet20", "vit_ti_16"])
def test_a_model_with_memory_and_one_without_cost_the_same(name: str) -> None:
    choices = {"num_classes": 3, "width": 8, "image_size": 64}
    with torch.device("meta"):
        empty = create_model(name, **choices)
    real = create_model(name, **choices)
    first, second = summary(real, (3, 64, 64)), summary(empty, (3, 64, 64))
    assert (first.parameters, first.flops) == (second.parameters, second.flops)
    if name == "resnet20":  # attention keeps what its kernel keeps, and there are several
        assert first.memory == pytest.approx(second.memory, rel=0.05)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        empty.eval()(torch.zeros(1, 3, 64, 64))
    assert second.flops == counter.get_total_flops()


def test_parameters_outside_of_layers_are_counted() -> None:
    model = create_model("vit_ti_16", num_classes=3, width=8, depth=1, image_size=32)
    found = summary(model, (3, 32, 32))
    assert sum(layer.parameters for layer in found.layers) == found.parameters
    assert {"cls_token", "pos_embed"} <= {layer.name for layer in found.layers}


def test_the_model_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = small().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    summary(model, (3, 8, 8))
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_gives_what_its_shape_gives() -> None:
    model = small()
    images, targets = torch.randn(6, 3, 8, 8), torch.zeros(6, dtype=torch.long)
    first, second = summary(model, (images, targets)), summary(model, (3, 8, 8))
    assert first.flops == second.flops
    assert first.layers[3].memory == second.layers[3].memory


def test_frozen_parameters_are_told() -> None:
    model = small()
    model[0].requires_grad_(False)
    found = summary(model, (3, 8, 8))
    assert found.trainable == found.parameters - 224
    assert "(224 of them frozen)" in found.headline()


def test_tokens_have_no_field_and_features_none_either() -> None:
    found = summary(nn.Linear(4, 2), (4,))
    assert found.field is None
    assert found.layers[0].field is None


def test_it_prints_a_table_of_what_costs_and_writes_json() -> None:
    found = summary(small(), (3, 8, 8))
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "FLOPs", "memory", "sees"]
    assert [line.split()[0] for line in lines[1:-2]] == ["0", "1", "2", "3", "5"]
    assert lines[-1].startswith("Sequential: 885 parameters, 28.9 kFLOPs forward and ")
    plain = json.loads(json.dumps(found.to_plain()))
    assert plain["parameters"] == 885
    assert len(plain["layers"]) == 6
    assert isinstance(found, Summary)


def test_inputs_that_the_model_cannot_read_are_told() -> None:
    with pytest.raises((LeadlineError, RuntimeError)):
        summary(small(), (1, 8, 8))


def test_numbers_are_written_short() -> None:
    assert [short(n) for n in (0, 12, 1234, 5.6e6, 7.89e9, 1.2e12)] == [
        "0 ", "12 ", "1.23 k", "5.6 M", "7.89 G", "1.2 T",
    ]  # fmt: skip
    assert [short_bytes(n) for n in (5, 2048, 5e6, 3e9)] == ["5 B", "2 KiB", "4.77 MiB", "2.79 GiB"]
