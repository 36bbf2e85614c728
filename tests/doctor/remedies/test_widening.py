"""Tests of rebuilt widths and depths: sizes and settings are kept where they should be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from leadline.doctor.remedies.widening import (
    Chain,
    hidden_layer,
    larger_maps,
    one_activation,
    skipped,
    unpooled,
    widen,
    wider,
)


def test_a_dense_layer_its_norms_and_its_reader_are_rebuilt() -> None:
    model = nn.Sequential(
        *(nn.Linear(4, 2, bias=False), nn.LayerNorm(2, eps=1e-3)),
        *(nn.BatchNorm1d(2, momentum=0.3), nn.Linear(2, 3)),
    )
    chain = Chain(layer="0", norms=("1", "2"), reader="3", units=2)
    made = widen(model, chain, to=10)
    assert made[0].weight.shape == (10, 4) and made[0].bias is None
    assert made[1].normalized_shape == (10,) and made[1].eps == 1e-3
    assert made[2].num_features == 10 and made[2].momentum == 0.3
    assert made(torch.randn(5, 4)).shape == (5, 3)


def test_a_convolution_keeps_its_settings_and_a_flattening_reader_fits() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1, dilation=1, padding_mode="circular"),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    made = widen(model, Chain(layer="0", norms=(), reader="2", units=2), to=7)
    assert (made[0].stride, made[0].padding_mode) == ((2, 2), "circular")
    assert made[2].in_features == 112
    assert made(torch.randn(5, 1, 8, 8)).shape == (5, 3)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("both", [False, True])
def test_recurrent_layers_are_rebuilt_in_one_or_both_directions(
    kind: type[nn.RNNBase], both: bool
) -> None:
    cell = kind(5, 2, num_layers=2, batch_first=True, bidirectional=both)
    model = nn.ModuleDict({"cell": cell, "head": nn.Linear(2 * (1 + both), 3)})
    made: Any = widen(model, Chain(layer="cell", norms=(), reader="head", units=2), to=9)
    states, _ = made["cell"](torch.randn(4, 6, 5))
    assert made["head"](states).shape == (4, 6, 3)
    assert (made["cell"].num_layers, made["cell"].hidden_size) == (2, 9)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3, groups=2), nn.ConvTranspose2d(4, 4, 3)])
def test_layers_of_other_kinds_are_refused(layer: nn.Module) -> None:
    model = nn.Sequential(layer, nn.Conv2d(4, 2, 1))
    with pytest.raises(ValueError, match="cannot be widened"):
        widen(model, Chain(layer="0", norms=(), reader="1", units=4), to=8)


def test_norms_of_other_kinds_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))
    with pytest.raises(ValueError, match="GroupNorm cannot be widened"):
        widen(model, Chain(layer="0", norms=("1",), reader="2", units=4), to=8)


def test_two_chains_that_share_a_layer_fit_one_another(make_setup: Any, alike: Any) -> None:
    def narrow() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2), nn.Linear(2, 3))

    chains = [Chain(layer=str(i), norms=(), reader=str(i + 1), units=2) for i in (0, 1)]
    sick = make_setup(model=narrow)
    model = wider(chains, {"0": 5, "1": 6})(sick).model()
    assert [layer.weight.shape for layer in model] == [(5, 4), (6, 5), (3, 6)]
    assert "0 of 5 units instead of 2" in wider(chains, {"0": 5, "1": 6}).title


def test_skipped_layers_hand_on_what_they_are_given(make_setup: Any, alike: Any) -> None:
    def deep() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.ReLU())

    model = skipped(["1", "2"], layers=1)(make_setup(model=deep)).model()
    x = torch.randn(5, 4)
    assert torch.equal(model(x), model[0](x))


def test_poolings_left_out_leave_the_inputs_as_they_are(make_setup: Any) -> None:
    def pooled() -> nn.Module:
        return nn.Sequential(nn.MaxPool2d(4), nn.Upsample(size=8), nn.Flatten(), nn.Linear(64, 3))

    model = unpooled(["0", "1"])(make_setup(model=pooled)).model()
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(model(x), model[3](x.flatten(1)))


def test_a_hidden_layer_comes_before_the_one_named(make_setup: Any) -> None:
    setup = make_setup(model=lambda: nn.Linear(4, 3, bias=False))
    model = hidden_layer("", units=8)(setup).model()
    assert [type(m) for m in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert model(torch.randn(5, 4)).shape == (5, 3)
    with pytest.raises(ValueError, match="ReLU is given no hidden layer"):
        hidden_layer("1", units=8)(make_setup()).model()


def test_of_two_activations_one_is_left(make_setup: Any) -> None:
    twice = make_setup(model=lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Tanh()))
    model = one_activation(["2"])(twice).model()
    x = torch.randn(5, 4)
    assert torch.equal(model(x), model[0](x).tanh())


def test_maps_are_pooled_to_their_old_size_only_before_they_are_flattened(
    make_setup: Any,
) -> None:
    def pooled() -> nn.Module:
        return nn.Sequential(
            nn.MaxPool2d(4), nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2, 3)
        )

    model = larger_maps(["0"], "2", (1, 1))(make_setup(model=pooled)).model()
    maps = torch.randn(5, 1, 4, 4)
    expected = model[3](model[1](maps).amax(dim=(2, 3)))
    assert torch.equal(model(maps), expected)
