"""Tests of the effective receptive field, against closed forms and gradients by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError, UnknownNameError
from leadline.measure.receptive_fields.effective_receptive_field import (
    THRESHOLD,
    effective_receptive_field,
)


def averages(depth: int, kernel: int = 3, **options: int) -> nn.Sequential:
    """Convolutions whose weights are all equal and sum to one."""
    layers = [nn.Conv2d(1, 1, kernel, bias=False, **options) for _ in range(depth)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / kernel**2)
    return nn.Sequential(*layers)


def test_the_map_of_averages_is_the_convolution_of_boxes() -> None:
    model = averages(4).double()
    field = effective_receptive_field(model, torch.zeros(1, 1, 21, 21, dtype=torch.float64))
    box = torch.full((3,), 1 / 3, dtype=torch.float64)
    line = box
    for _ in range(3):
        line = functional.conv1d(line.view(1, 1, -1), box.view(1, 1, -1), padding=2).view(-1)
    expected = torch.zeros(21, 21, dtype=torch.float64)
    expected[6:15, 6:15] = torch.outer(line, line)
    torch.testing.assert_close(field.map / field.map.sum(), expected)
    assert field.position == (None, 6, 6)
    assert field.layer == "3"
    assert field.centre == pytest.approx((10, 10))
    assert field.radius == pytest.approx([2 * math.sqrt(4 * 8 / 12)] * 2)
    assert field.size == math.sqrt(int((expected >= THRESHOLD * expected.max()).sum()))
    assert field.share == pytest.approx(field.size / 21)


def test_the_map_is_the_root_mean_square_of_the_channels_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 5), nn.Tanh()).double()
    images = torch.randn(1, 2, 9, 9, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x)[0, :, 2, 2], images)
    expected = jacobian[:, 0].square().sum(0).mean(0).sqrt()
    # the random combinations of the channels average to their sum of squares
    fields = [
        effective_receptive_field(model, images.expand(500, -1, -1, -1), seed=seed)
        for seed in (0, 1)
    ]
    for field in fields:
        assert torch.allclose(field.map, expected, rtol=0.2)
        assert torch.equal(field.map == 0, expected == 0)
    assert not torch.equal(fields[0].map, fields[1].map)


def test_one_axis_gives_one_number_per_axis() -> None:
    model = nn.Conv1d(2, 1, 5)
    field = effective_receptive_field(model, torch.randn(3, 2, 30))
    assert field.map.shape == (30,)
    assert len(field.radius) == 1
    assert field.size <= 5


class Encoder(nn.Module):
    """Tokens of patches and a class token; the last layer norm sums to a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1)
        return {"logits": self.block(tokens)[:, 0]}


def test_the_token_in_the_middle_weighs_its_own_patch_most() -> None:
    torch.manual_seed(0)
    field = effective_receptive_field(Encoder(), torch.randn(8, 3, 20, 20))
    assert field.layer == "block.norm2"
    assert field.position == (13, None)  # the class token, two rows of five, and two
    assert bool((field.map > 0).all())
    assert field.map.unfold(0, 4, 4).unfold(1, 4, 4).mean((2, 3)).argmax() == 12
    class_token = effective_receptive_field(
        Encoder(), torch.randn(8, 3, 20, 20), layer="block", position=(0, None)
    )
    assert class_token.position == (0, None)


def test_a_named_layer_is_taken_before_the_next_overwrites_it() -> None:
    first = nn.Conv2d(1, 1, 3, bias=False)
    nn.init.constant_(first.weight, -1.0)
    model = nn.Sequential(first, nn.ReLU(inplace=True), nn.Conv2d(1, 1, 3))
    images = torch.rand(2, 1, 9, 9)
    field = effective_receptive_field(model, images, layer="0")
    assert field.size == 3  # behind the ReLU it is dead
    with pytest.raises(MeasurementError, match="0 everywhere"):
        effective_receptive_field(model, images, layer="1")


def test_where_no_layer_has_places_the_output_counts() -> None:
    field = effective_receptive_field(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.ones(1, 1, 4, 4)
    )
    assert field.layer == "(model)"
    assert field.position == (None,)
    assert field.size >= 2


def test_the_model_the_inputs_and_the_gradients_are_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    model.requires_grad_(False)
    images = torch.randn(4, 1, 8, 8)
    given, stream = images.clone(), torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    effective_receptive_field(model, (images, torch.zeros(4)))
    assert torch.equal(images, given)
    assert not images.requires_grad
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_what_cannot_be_measured_says_why() -> None:
    conv = nn.Conv2d(1, 1, 3)
    images = torch.randn(2, 1, 8, 8)
    with pytest.raises(MeasurementError, match="inputs of int64") as caught:
        effective_receptive_field(nn.Embedding(4, 2), torch.zeros(2, 5, dtype=torch.long))
    assert "embedded tokens" in caught.value.remedy
    with pytest.raises(MeasurementError, match="an axis to see along"):
        effective_receptive_field(nn.Linear(3, 2), torch.zeros(2, 3))
    with pytest.raises(UnknownNameError, match="did you mean '0'"):
        effective_receptive_field(nn.Sequential(conv, conv), images, layer="10")
    with pytest.raises(MeasurementError, match=r"position \(None, 9, 0\)"):
        effective_receptive_field(conv, images, position=(None, 9, 0))
    with pytest.raises(MeasurementError, match="finite inputs"):
        effective_receptive_field(conv, images / 0)

    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach() * 2

    with pytest.raises(MeasurementError, match="a gradient that is none"):
        effective_receptive_field(Detached(), images)

    class Strange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[None, None, None]

    with pytest.raises(MeasurementError, match="whose middle is known"):
        effective_receptive_field(Strange(), images)
