"""Tests of the table of layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leadline.core.taps import ROOT
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.report.layers import OPEN_UP_TO, layer_table, layers_section


class Odd(nn.Module):
    """Layers that are used twice, shared, never, and in another order than written."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 4, bias=False)
        self.first = nn.Linear(4, 4, bias=False)
        self.shared = nn.Linear(4, 4, bias=False)
        self.shared.weight = self.first.weight
        self.idle = nn.Linear(4, 2, bias=False)
        self.idle_activation = nn.ReLU()
        self.nothing = nn.Identity()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.first(self.first(self.nothing(inputs)))
        result: Tensor = self.last(self.shared(features)) * self.scale.sum()
        return result


def test_layers_come_in_the_order_of_the_forward_pass() -> None:
    found = layer_table(Odd(), torch.ones(2, 4))
    assert [(row.name, row.calls, row.parameters) for row in found] == [
        ("first", 2, 16),
        ("shared", 1, 0),
        ("last", 1, 16),
        (ROOT, 1, 3),
        ("idle", 0, 8),
    ]


def test_the_rows_add_up_to_the_whole_model() -> None:
    for name in ("resnet20", "convnet", "mlp"):
        model = create_model(Architecture(model=name), num_classes=10, in_chans=3, image_size=16)
        rows = layer_table(model, torch.zeros(1, 3, 16, 16))
        assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
        assert rows[-1].shape == (10,)


def test_parameters_of_a_block_itself_are_counted() -> None:
    architecture = Architecture(model="resnet20", init="fixup")
    model = create_model(architecture, num_classes=10, in_chans=3, image_size=8)
    rows = layer_table(model, torch.zeros(1, 3, 8, 8))
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())


def test_the_model_is_left_as_it_was_found() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layer_table(model, torch.randn(3, 1, 5, 5))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_table_says_shapes_uses_and_the_total() -> None:
    drawn = layers_section(layer_table(Odd(), torch.ones(2, 4)))
    assert "Linear (2 times)" in drawn
    assert "Linear (not used)" in drawn
    assert '<td class="number">43</td>' in drawn
    assert "<details" not in drawn


def test_a_long_table_starts_folded() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(OPEN_UP_TO + 1)))
    drawn = layers_section(layer_table(model, torch.ones(1, 2)))
    assert "<details><summary>the table of 81 layers" in drawn


def test_a_model_without_parameters_has_a_table_too() -> None:
    assert "0 parameters together." in layers_section(layer_table(nn.ReLU(), torch.ones(1, 2)))
