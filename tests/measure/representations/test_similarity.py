"""Tests of linear CKA, against its definitions with whole centred Gram matrices."""

from __future__ import annotations

import copy
import inspect
import math

import numpy
import pytest
import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.measure.representations.similarity import layer_similarity, linear_cka


def biased(first: Tensor, second: Tensor) -> float:
    x, y = first.double().numpy(), second.double().numpy()
    centring = numpy.eye(len(x)) - 1 / len(x)
    k, m = centring @ x @ x.T @ centring, centring @ y @ y.T @ centring
    return float((k * m).sum() / numpy.sqrt((k * k).sum() * (m * m).sum()))


def unbiased(first: Tensor, second: Tensor) -> float:
    """By U-centred matrices (Szekely & Rizzo 2014), another form of the same estimate."""

    def centred(x: numpy.ndarray) -> numpy.ndarray:
        k = x @ x.T
        numpy.fill_diagonal(k, 0)
        n = len(k)
        rows = k.sum(1, keepdims=True) / (n - 2)
        k = k - rows - rows.T + k.sum() / ((n - 1) * (n - 2))
        numpy.fill_diagonal(k, 0)
        return k

    k, m = centred(first.double().numpy()), centred(second.double().numpy())
    return float((k * m).sum() / numpy.sqrt((k * k).sum() * (m * m).sum()))


@pytest.mark.parametrize("widths", [(3, 5), (3, 50), (50, 5), (50, 70)])
def test_both_forms_agree_with_the_definition(widths: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x, noise = torch.randn(20, widths[0]) + 3, torch.randn(20, widths[1])
    y = x @ torch.randn(widths) + noise - 5
    assert linear_cka(x, y, unbiased=False) == pytest.approx(biased(x, y), rel=1e-4)
    assert linear_cka(x, y) == pytest.approx(unbiased(x, y), rel=1e-4)


@pytest.mark.parametrize("estimate", [True, False])
def test_rotation_scale_and_shift_do_not_matter(estimate: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(30, 6)
    turn = torch.linalg.qr(torch.randn(6, 6))[0]
    assert linear_cka(x, -3 * x @ turn + 2, unbiased=estimate) == pytest.approx(1, rel=1e-5)
    squeezed = x * torch.tensor([10.0, 1, 1, 1, 1, 1])
    assert linear_cka(x, squeezed, unbiased=estimate) < 0.9


def test_independent_representations_have_zero_only_in_the_unbiased_estimate() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 20, 100, generator=generator) for _ in range(200)]
    estimates = torch.tensor([linear_cka(x, y) for x, y in pairs])
    standard_error = estimates.std() / len(pairs) ** 0.5
    assert abs(estimates.mean()) < 4 * standard_error
    assert estimates.std() < 0.1
    assert min(linear_cka(x, y, unbiased=False) for x, y in pairs) > 0.7


def test_the_matrix_is_that_of_every_pair_of_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 5))
    inputs = torch.randn(16, 2, 6, 6)
    matrix = layer_similarity(model, inputs)
    assert matrix.rows == matrix.columns == ("0", "1", "2", "3")
    with torch.no_grad():
        conv = model[0](inputs).flatten(1)
        relu = conv.relu()
        outputs = [conv, relu, relu, model[3](relu)]
    for i, x in enumerate(outputs):
        for j, y in enumerate(outputs):
            assert matrix.values[i][j] == pytest.approx(unbiased(x, y), rel=1e-4)
    assert matrix.neighbours().column("similarity")[1] == pytest.approx(1, rel=1e-5)
    assert matrix.most_similar()["3"] == "3"


def test_two_models_of_other_shapes_are_compared_on_the_same_inputs() -> None:
    torch.manual_seed(0)
    first, second = nn.Sequential(nn.Linear(4, 8)), nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    inputs = torch.randn(12, 4)
    matrix = layer_similarity(first, inputs, other=second, unbiased=False)
    assert (matrix.rows, matrix.columns) == (("0",), ("0", "1"))
    with torch.no_grad():
        expected = [biased(first(inputs), second[0](inputs)), biased(first(inputs), second(inputs))]
    assert matrix.values[0] == pytest.approx(expected, rel=1e-4)


def test_named_layers_alone_are_compared() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    assert layer_similarity(model, torch.randn(8, 4), layers=["0", "2"]).rows == ("0", "2")


def test_windows_of_an_example_belong_to_it_and_shared_tensors_to_none() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Embedding(3, 4)
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.position(torch.arange(3))
            return self.linear(x.reshape(-1, 4)).reshape(len(x), -1)

    matrix = layer_similarity(Windows(), torch.randn(8, 3, 4))
    assert matrix.rows == ("add", "linear")


def test_a_constant_representation_is_similar_to_nothing() -> None:
    assert math.isnan(linear_cka(torch.ones(5, 2), torch.randn(5, 2)))


def test_the_model_is_left_as_it_was_found() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout())
    before, stream = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    layer_similarity(model, torch.ones(6, 3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(stream, torch.get_rng_state())
    assert model.training


def test_what_cannot_be_compared_is_described() -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(MeasurementError, match=r"4 examples or more for the unbiased[\s\S]*3"):
        layer_similarity(model, torch.ones(3, 3))
    with pytest.raises(MeasurementError, match=r"none of the name 'fc'[\s\S]*choose among 0"):
        layer_similarity(model, torch.ones(8, 3), layers=["fc"])
    with pytest.raises(MeasurementError, match="same examples in the same order"):
        inspect.unwrap(linear_cka)(torch.ones(5, 2), torch.ones(6, 2))  # past the shape checks
    with pytest.raises(MeasurementError, match="2 examples or more"):
        linear_cka(torch.ones(1, 2), torch.ones(1, 2), unbiased=False)
