"""Tests of gradient alignment against cosines of gradients computed in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.gradients.gradient_alignment import gradient_alignment, gradient_cosines


def test_the_cosines_are_those_of_the_gradients_of_neighbouring_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    batches = [(torch.randn(6, 4), torch.randn(6, 2)) for _ in range(4)]
    measured = gradient_alignment(model, iter(batches), loss=functional.mse_loss)
    gradients = [
        torch.autograd.grad(functional.mse_loss(model(x), y), list(model.parameters()))
        for x, y in batches
    ]
    whole = [torch.cat([g.flatten() for g in gradient]).double() for gradient in gradients]
    cosine = functional.cosine_similarity
    expected = [float(cosine(a, b, dim=0)) for a, b in itertools.pairwise(whole)]
    assert measured.successive == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for index, name in enumerate(measured.layers.layers):
        own = [
            float(cosine(a[index].flatten().double(), b[index].flatten().double(), dim=0))
            for a, b in itertools.pairwise(gradients)
        ]
        assert measured.layers.at(name)["mean"] == pytest.approx(sum(own) / 3, rel=1e-4, abs=1e-6)
        assert measured.layers.at(name)["lowest"] == pytest.approx(min(own), rel=1e-4, abs=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25])
def test_the_cosine_does_not_depend_on_the_size(size: float) -> None:
    before = [torch.tensor([1.0, 2.0]) * size, torch.tensor([[3.0]]) * size]
    now = [torch.tensor([2.0, -1.0]) * size, torch.tensor([[-1.0]]) * size]
    expected = [-3 / math.sqrt(14 * 6), 0.0, -1.0]
    assert gradient_cosines(before, now).tolist() == pytest.approx(expected, abs=1e-6)


def test_missing_and_zero_gradients_have_no_cosine_and_count_as_zero() -> None:
    one = torch.tensor([3.0, 4.0])
    cosines = gradient_cosines([one, None, one * 0], [one, one, one])
    assert float(cosines[0]) == pytest.approx(5 / math.sqrt(75))
    assert float(cosines[1]) == pytest.approx(1.0)
    assert bool(cosines[2:].isnan().all())
    assert bool(gradient_cosines([None], [None]).isnan().all())


def test_sparse_and_empty_gradients_are_read() -> None:
    dense = torch.tensor([0.0, 2.0])
    cosines = gradient_cosines([dense.to_sparse(), torch.zeros(0)], [dense, torch.zeros(0)])
    assert cosines[:2].tolist() == pytest.approx([1.0, 1.0])


def test_a_gradient_that_is_not_finite_spoils_the_whole_cosine() -> None:
    one = torch.ones(2)
    assert math.isnan(float(gradient_cosines([one, one * math.nan], [one, one])[0]))


def test_one_batch_is_not_enough() -> None:
    with pytest.raises(MeasurementError, match="two batches or more"):
        gradient_alignment(nn.Linear(1, 1), [(torch.ones(1, 1),)], loss=lambda o, t: o.sum())


def test_one_batch_in_the_place_of_several_is_refused() -> None:
    x, y = torch.ones(4, 1), torch.zeros(4, 1)
    for given in ((x, y), [x, y], x, {"input": x}):
        with pytest.raises(MeasurementError, match=r"bare (tensor|mapping)"):
            gradient_alignment(nn.Linear(1, 1), given, loss=lambda o, t: o.sum())
