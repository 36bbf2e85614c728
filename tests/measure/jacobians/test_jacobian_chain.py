"""Tests of the chain: links against dense matrices, their product, and what is no chain."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.measure.jacobians.jacobian import jacobian_matrix, jacobian_spectrum
from leadline.measure.jacobians.jacobian_chain import jacobian_chain


def sequence() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(8),
        nn.Linear(8, 5),
        nn.Tanh(),
        nn.Linear(5, 4),
    ).double()


@pytest.mark.parametrize("training", [False, True])
def test_the_dense_product_of_the_links_is_the_whole(training: bool) -> None:
    model, x = sequence().train(training), torch.randn(3, 6, dtype=torch.float64)
    if training:
        model[2].eval()  # else the rows are tied together, and a row's block is no product
    places = ["(input)", *(str(i) for i in range(6))]
    product = torch.eye(6, dtype=torch.float64).expand(3, 6, 6)
    for start, end in itertools.pairwise(places):
        product = jacobian_matrix(model, x, start=start, end=end, examples=3) @ product
    whole = jacobian_matrix(model, x, examples=3)
    assert torch.allclose(product, whole, rtol=1e-10, atol=1e-12)
    assert jacobian_chain(model, x).product_error < 1e-12


def test_each_link_has_the_spectrum_between_its_two_places() -> None:
    model, x = sequence().eval(), torch.randn(2, 6, dtype=torch.float64)
    chain = jacobian_chain(model, x)
    assert chain.profile.layers == ("0", "1", "2", "3", "4", "5")
    alone = jacobian_spectrum(model, x, start="2", end="3")
    for found, expected in zip(chain.links[3].singular_values, alone.singular_values, strict=True):
        assert found == pytest.approx(expected)
    row = chain.profile.at("3")
    assert row["largest"] == pytest.approx(sum(v[0] for v in alone.singular_values) / 2)
    assert row["smallest"] == pytest.approx(sum(v[-1] for v in alone.singular_values) / 2)
    assert row["distance"] == pytest.approx(sum(alone.distance) / 2)
    assert chain.whole.singular_values == jacobian_spectrum(model, x).singular_values


def test_the_gradient_column_is_what_arrives_before_each_link() -> None:
    layers = []
    for factor in (0.5, 3.0, 0.1):
        layer = nn.Linear(4, 4, bias=False)
        nn.init.orthogonal_(layer.weight, factor)
        layers.append(layer)
    chain = jacobian_chain(nn.Sequential(*layers), torch.ones(1, 4))
    assert chain.profile.column("gradient") == pytest.approx((0.15, 0.3, 0.1), rel=1e-5)


class Around(nn.Module):
    """A shortcut around both layers, in the forward code."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


def test_a_shortcut_around_the_layers_shows_in_the_product() -> None:
    torch.manual_seed(0)
    model, x = Around(), torch.randn(2, 3)
    assert jacobian_chain(model, x, layers=["first", "(output)"]).product_error > 0.1
    assert jacobian_chain(model, x).product_error < 1e-6  # both end before the shortcut returns


def test_dropout_draws_the_same_mask_for_the_links_and_the_whole() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Dropout(), nn.Linear(20, 20))
    assert jacobian_chain(model, torch.randn(2, 20)).product_error < 1e-5


def test_tokens_begin_behind_the_embedding() -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2), nn.Tanh())
    chain = jacobian_chain(model, torch.tensor([[0, 1], [2, 3]]), start="0")
    assert chain.profile.layers == ("1", "2", "3")
    assert chain.links[0].singular_values[0] == pytest.approx((1.0,) * 6)


def test_what_a_randomised_spectrum_does_not_know_is_nan() -> None:
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    chain = jacobian_chain(model, torch.ones(1, 40), method="randomised", rank=2)
    assert all(math.isnan(value) for value in chain.profile.column("smallest"))
    assert chain.product_error < 1e-5


def test_layers_that_are_no_chain_are_described() -> None:
    with pytest.raises(MeasurementError, match="each once"):
        jacobian_chain(sequence(), torch.ones(1, 6).double(), layers=["0", "0"])
    with pytest.raises(MeasurementError, match="names of layers"):
        jacobian_chain(nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(MeasurementError, match="the layer nearer to the input first"):
        jacobian_chain(sequence().eval(), torch.ones(1, 6).double(), layers=["3", "0"])
