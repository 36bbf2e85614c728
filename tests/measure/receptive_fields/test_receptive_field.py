"""Tests of the theoretical receptive field, against closed forms and the support of gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.receptive_fields.receptive_field import receptive_field, spatial_axes


class Branches(nn.Module):
    """A residual join, a dense join, a join of two scales, all in place where that is possible."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 2, 3, padding=3, dilation=3)
        self.down = nn.Conv2d(6, 4, 2, stride=2)
        self.head = nn.Conv2d(10, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = x + self.relu(self.conv(x))
        x = torch.cat([x, self.wide(x)], dim=1)
        coarse = functional.interpolate(self.down(x), scale_factor=2)
        head: Tensor = self.head(torch.cat([x, coarse], dim=1))
        return head


def support_of_the_centre(model: nn.Module, size: int) -> list[int]:
    """First and last row, first and last column that the middle output's gradient reaches."""
    model = model.double().eval()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)  # all positive: nothing cancels, no ReLU closes
    x = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    output = model(x)
    middle = output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, x)
    rows, columns = gradient[0].sum(0).nonzero().T
    return [int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())]


def test_a_network_with_branches_sees_what_its_gradient_reaches() -> None:
    profile = receptive_field(Branches(), torch.rand(1, 3, 64, 64))
    top, bottom, left, right = support_of_the_centre(Branches(), 64)
    # The middle unit of 2x2 blocks sees a field aligned with its block: two positions, one field.
    row = profile.at("head")
    assert row["size_height"] == bottom - top + 1 == right - left + 1
    assert row["jump_height"] == 2
    # stem 3, conv +2 of jump 2 = 7, dilated +6 of jump 2 = 19, blocks of two +1 of jump 2 = 21
    assert [profile.at(layer)["size_width"] for layer in ("stem", "conv", "wide", "down")] == [
        3,
        7,
        19,
        21,
    ]


def test_the_closed_form_of_a_chain() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        size, jump, start = 1, 1, 0
        layers: list[nn.Module] = []
        for _ in range(int(torch.randint(1, 6, ()))):
            kernel, stride, dilation, padding = torch.randint(1, 4, (4,)).tolist()
            layers.append(
                nn.Conv1d(1, 1, kernel, stride=stride, dilation=dilation, padding=padding)
            )
            size += (kernel - 1) * dilation * jump
            start -= padding * jump
            jump *= stride
        profile = receptive_field(nn.Sequential(*layers), torch.zeros(1, 1, 700))
        row = profile.at(profile.layers[-1])
        received = (row["size_length"], row["jump_length"], row["start_length"])
        assert received == (size, jump, start)


def test_sizes_do_not_depend_on_the_size_of_the_image() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 1, 7, stride=4, padding=3),
        nn.Conv2d(1, 1, 3, padding=1),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(1, 1, 3, padding=1),
    )
    large, small = (receptive_field(model, torch.zeros(1, 1, n, n)) for n in (96, 8))
    assert large.column("size_height") == small.column("size_height") == (7.0, 15.0, 23.0, 39.0)
    assert large.column("jump_height") == small.column("jump_height") == (4.0, 4.0, 8.0, 8.0)
    assert large.column("seen_height") == (7.0, 15.0, 23.0, 39.0)
    assert max(small.column("seen_height")) == 8


def test_what_is_pooled_over_all_the_image_sees_all_of_it() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5)
    )
    profile = receptive_field(model, torch.zeros(1, 1, 10, 12))
    assert profile.column("size_height")[1:] == (10.0, 10.0, 10.0)
    assert profile.column("size_width")[1:] == (12.0, 12.0, 12.0)
    assert profile.column("jump_width") == (1.0, 0.0, 0.0, 0.0)


def test_a_flattened_image_is_seen_whole_by_a_dense_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert receptive_field(model, torch.zeros(1, 1, 8, 8)).column("size_height") == (1.0, 8.0)


class Patches(nn.Module):
    """Tokens of patches with a class token, then attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1))
        encoded: Tensor = self.encoder(tokens)
        return encoded[:, 0]


def test_a_token_sees_its_patch_and_after_attention_everything() -> None:
    profile = receptive_field(Patches(), torch.zeros(2, 3, 16, 24))
    assert profile.at("patch") == {
        **dict.fromkeys(("size_height", "jump_height", "seen_height"), 4.0),
        **dict.fromkeys(("size_width", "jump_width", "seen_width"), 4.0),
        "start_height": 0.0,
        "start_width": 0.0,
    }
    assert profile.at("norm")["size_width"] == 4
    assert profile.at("encoder.norm2")["size_height"] == 16
    assert profile.at("encoder.norm2")["size_width"] == 24


class Language(nn.Module):
    """A causal convolution and a causal attention over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.head = nn.Linear(4, 10)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.embedding(tokens).transpose(1, 2)
        x = self.conv(functional.pad(x, (2, 0))).transpose(1, 2)
        x = functional.scaled_dot_product_attention(x, x, x, is_causal=True)
        return {"logits": self.head(x)}


def test_whole_numbers_are_tokens_and_have_a_length() -> None:
    profile = receptive_field(Language(), torch.randint(10, (2, 12)))
    assert profile.column("size_length")[:2] == (1.0, 3.0)
    assert profile.at("head")["seen_length"] == 12
    assert profile.at("head")["start_length"] == -2


def test_axes_can_be_named_where_features_come_last() -> None:
    model = nn.Linear(3, 2)
    profile = receptive_field(model, torch.zeros(1, 9, 3), axes=(1,))
    assert profile.at("(model)")["size_length"] == 1
    # by default the last dimension of (batch, channels, length) is the one with an extent
    assert receptive_field(model, torch.zeros(1, 9, 3)).at("(model)")["size_length"] == 3


def test_volumes_have_a_depth() -> None:
    profile = receptive_field(nn.Conv3d(1, 1, (1, 3, 5)), torch.zeros(1, 1, 6, 6, 6))
    sizes = [profile.at("(model)")[f"size_{axis}"] for axis in ("depth", "height", "width")]
    assert sizes == [1, 3, 5]


def test_an_operation_without_a_rule_is_named_and_gives_no_number() -> None:
    class Fourier(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft2(x).real

    model = nn.Sequential(nn.Conv2d(1, 1, 3), Fourier(), nn.Conv2d(1, 1, 3))
    profile = receptive_field(model, torch.zeros(1, 1, 8, 8))
    assert profile.at("0")["size_height"] == 3
    assert math.isnan(profile.at("2")["size_height"])
    assert "; NaN from '1' on: torch." in profile.reading
    assert profile.reading.endswith("has no rule")


def test_every_activation_of_torch_sees_one_unit() -> None:
    names = (
        "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU "
        "RReLU ReLU ReLU6 SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink"
    )
    for name in names.split():
        for options in ({}, {"inplace": True}):
            try:
                model = nn.Sequential(nn.Conv1d(1, 2, 3), getattr(nn, name)(**options))
            except TypeError:
                continue
            profile = receptive_field(model, torch.zeros(1, 1, 8))
            assert profile.column("size_length") == (3.0, 3.0), name


def test_compiled_and_shared_modules_are_followed_too() -> None:
    conv = nn.Conv1d(1, 1, 3, padding=1)
    model = torch.compile(nn.Sequential(conv, nn.ReLU(inplace=True), conv), backend="eager")
    profile = receptive_field(model, torch.zeros(1, 1, 8))  # type: ignore[arg-type]
    assert dict(zip(profile.layers, profile.column("size_length"), strict=True)) == {
        "0": 3.0,
        "1": 3.0,
        "0 (call 2)": 5.0,
    }


def test_the_model_the_inputs_and_the_random_streams_are_left_alone() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    images = torch.randn(4, 1, 8, 8)
    model(images.clone()).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad for parameter in model.parameters()]
    given, stream = images.clone(), torch.get_rng_state()
    receptive_field(model, (images, torch.zeros(4)))
    assert torch.equal(images, given)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(module.training for module in model.modules())


def test_inputs_without_an_extent_are_refused_with_what_to_do() -> None:
    with pytest.raises(MeasurementError, match="an axis to see along") as caught:
        receptive_field(nn.Linear(3, 2), torch.zeros(4, 3))
    assert "axes=(1,)" in caught.value.remedy
    with pytest.raises(MeasurementError, match=r"axes \(7,\)"):
        receptive_field(nn.Linear(3, 2), torch.zeros(4, 3), axes=(7,))
    with pytest.raises(MeasurementError, match="a tensor in them"):
        receptive_field(nn.Identity(), object())


def test_a_model_that_fails_is_named_and_left_as_found() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Linear(4, 2)).train()
    with pytest.raises(MeasurementError, match="RuntimeError in Linear '1'"):
        receptive_field(model, torch.zeros(1, 3, 8, 8))
    assert model.training
    assert not model[0]._forward_hooks


def test_the_default_axes() -> None:
    assert spatial_axes(torch.zeros(2, 3)) == ()
    assert spatial_axes(torch.zeros(2, 3, 4, 5, 6)) == (2, 3, 4)
