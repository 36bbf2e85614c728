"""Tests of curvature matrices: against dense brute force, on models of every make."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from leadline.core.errors import MeasurementError
from leadline.measure.batch import Loss, read_batch
from leadline.measure.curvature.curvature import curvature_matrix, read_batches


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.tanh(self.first(x)))
        return out


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.randn(4, 5) / 2, torch.randn(5, 4) / 2])

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.linear(x, self.weights[0])
        return functional.linear(functional.gelu(hidden, approximate="tanh"), self.weights[1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(5, 15)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x)[:, None].chunk(3, dim=-1)  # B 1 D
        causal = functional.scaled_dot_product_attention(
            query[None], key[None], value[None], is_causal=False
        )
        out = functional.scaled_dot_product_attention(
            query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), is_causal=True
        )
        return out[0] + causal[0, :, 0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(5, 3, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.cell(x[:, None].expand(-1, 3, -1))[0][:, -1]


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 2),
            nn.BatchNorm2d(3),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(12, 3),
        )

    def forward(self, x: Tensor) -> Any:
        return self.layers(functional.pad(x, (0, 4)).view(-1, 1, 3, 3))


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 6), nn.Softplus(), nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "perceptron": perceptron,
    "tied weights": Tied,
    "functional calls": Functional,
    "attention": Attention,
    "recurrent": Recurrent,
    "batch norm, training": Images,
    "batch norm, evaluation": lambda: Images().eval(),
    "compiled": lambda: torch.compile(perceptron(), backend="eager"),  # type: ignore[dict-item]
}


def brute_force(model: nn.Module, batch: tuple[Tensor, Tensor], loss: Loss) -> Tensor:
    """The dense Hessian of a copy by torch.autograd.functional, parameter by parameter."""
    model = copy.deepcopy(getattr(model, "_orig_mod", model))
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def value(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in named.values()])
        weights = {n: part.view_as(p) for (n, p), part in zip(named.items(), parts, strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return loss(torch.func.functional_call(model, weights, (batch[0],)), batch[1])

    start = torch.cat([p.detach().reshape(-1) for p in named.values()])
    return torch.autograd.functional.hessian(value, start)


def data(examples: int = 7, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, 5, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (examples,), generator=generator)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().double()


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= 1e-8 * expected.norm()) and expected.norm() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_the_hessian_is_the_dense_one_for_any_module(name: str) -> None:
    model, batch = build(name), data()
    expected = brute_force(model, batch, functional.cross_entropy)
    assert close(curvature_matrix(model, batch, loss=functional.cross_entropy).dense(), expected)


def test_single_precision_agrees_with_double_precision() -> None:
    model, (inputs, targets) = build("perceptron"), data()
    expected = brute_force(model, (inputs, targets), functional.cross_entropy)
    single = curvature_matrix(
        model.float(), (inputs.float(), targets), loss=functional.cross_entropy
    )
    assert (single.dense() - expected).norm() < 1e-5 * expected.norm()


def test_several_batches_are_their_mean_weighted_by_examples() -> None:
    model, (inputs, targets) = build("perceptron"), data()
    parts = [(inputs[:2], targets[:2]), (inputs[2:], targets[2:])]
    whole = curvature_matrix(model, (inputs, targets), loss=functional.cross_entropy)
    divided = curvature_matrix(model, parts, loss=functional.cross_entropy)
    for vector in torch.randn(3, whole.dimension, dtype=torch.float64):
        assert close(divided @ vector, whole @ vector)
    loss, gradient = divided.loss_and_gradient()
    assert loss == pytest.approx(whole.loss_and_gradient()[0], rel=1e-12)
    assert close(gradient, whole.loss_and_gradient()[1])


def test_a_loaders_list_is_one_batch_and_a_list_of_them_several() -> None:
    inputs, targets = data()
    model = build("perceptron")
    assert len(read_batches([inputs, targets], model=model)) == 1
    assert len(read_batches([[inputs, targets]] * 3, model=model)) == 3
    assert len(read_batches([read_batch((inputs, targets))], model=model)) == 1
    assert len(read_batches(((inputs, inputs), targets), model=model)) == 1


def test_the_forward_pass_runs_once_for_all_products() -> None:
    calls = []

    class Counting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return super().forward(x)

    matrix = curvature_matrix(Counting(5, 3).double(), data(), loss=functional.cross_entropy)
    for _ in range(4):
        _ = matrix @ torch.ones(matrix.dimension, dtype=torch.float64)
    assert len(calls) == 1
    assert matrix.products == 4


@pytest.mark.parametrize("kind", ["one", "several"])
def test_dropout_draws_the_same_mask_for_every_product(kind: str) -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    batch = data() if kind == "one" else [data(), data(seed=1)]
    matrix = curvature_matrix(model, batch, loss=functional.cross_entropy)
    vector = torch.ones(matrix.dimension, dtype=torch.float64)
    first = matrix @ vector
    torch.rand(3)
    assert torch.equal(matrix @ vector, first)
    other = torch.randn(matrix.dimension, dtype=torch.float64)
    assert float(other @ first) == pytest.approx(float(vector @ (matrix @ other)), rel=1e-9)


def test_frozen_parameters_are_left_out_and_unused_ones_have_rows_of_zeros() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(5, 5).requires_grad_(False)
            self.unused = nn.Parameter(torch.ones(2))
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.frozen(x))

    matrix = curvature_matrix(Spare().double(), data(), loss=functional.cross_entropy)
    assert matrix.names == ("unused", "head.weight", "head.bias")
    dense = matrix.dense()
    assert dense[:2].count_nonzero() == dense[:, :2].count_nonzero() == 0
    assert matrix.split(dense[5])["head.weight"].shape == (3, 5)


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_a_loss_that_is_linear_in_the_parameters_has_no_curvature(kind: Any) -> None:
    matrix = curvature_matrix(
        nn.Linear(5, 3).double(), data(), loss=lambda outputs, _: outputs.sum(), matrix=kind
    )
    assert matrix.dense().count_nonzero() == 0


def test_a_model_may_compute_its_own_loss() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = perceptron()

        def forward(self, x: Tensor, labels: Tensor) -> Any:
            logits = self.net(x)
            return SimpleNamespace(logits=logits, loss=functional.cross_entropy(logits, labels))

    torch.manual_seed(0)
    model = Own().double()
    inputs, targets = data()
    batch = {"x": inputs, "labels": targets}
    expected = brute_force(model.net, (inputs, targets), functional.cross_entropy)
    assert close(curvature_matrix(model, batch).dense(), expected)
    newton = curvature_matrix(model, batch, matrix="gauss_newton").dense()
    outside = curvature_matrix(
        model.net, (inputs, targets), loss=functional.cross_entropy, matrix="gauss_newton"
    )
    assert close(newton, outside.dense())


class Once(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.square()

    @staticmethod
    @once_differentiable
    def backward(context: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = context.saved_tensors
        return 2 * x * slope


class Stateful(nn.Module):
    """Everything that a measurement could leave behind: buffers, dropout, a failing layer."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.layers = nn.Sequential(
            nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)
        )

    def forward(self, x: Tensor) -> Any:
        x = self.layers(x)
        return Once.apply(x) if self.fails else x  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_model_gradients_buffers_modes_and_random_streams_stay(fails: bool, several: bool) -> None:
    model = Stateful(fails=fails).double()
    model.layers[2].eval()
    model.layers[0].weight.grad = torch.ones(4, 5, dtype=torch.float64)
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    batch = [data(), data(seed=1)] if several else data()
    try:
        for kind in ("hessian", "gauss_newton"):
            matrix = curvature_matrix(model, batch, loss=functional.cross_entropy, matrix=kind)
            _ = matrix @ torch.ones(matrix.dimension, dtype=torch.float64)
        failed = False
    except MeasurementError:
        failed = True
    assert failed == fails
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model.layers[0].weight.grad, torch.ones(4, 5))
    assert model.layers[3].weight.grad is None
    assert [layer.training for layer in model.layers] == [True, True, False, True]


def test_a_checkpoint_that_runs_layers_again_leaves_no_trace() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head(checkpoint(self.layers, x, use_reentrant=False).tanh())

    model = Checkpointed().double()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    matrix = curvature_matrix(model, data(), loss=functional.cross_entropy)
    dense = matrix.dense()
    assert torch.equal(matrix @ torch.eye(matrix.dimension).double()[0], dense[0])
    assert torch.allclose(dense, dense.T, atol=1e-12)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def measure(model: nn.Module, loss: Any = functional.cross_entropy, **options: Any) -> Tensor:
    batch = options.pop("batch", data())
    # Unwrapped: the check of annotations in tests would speak before the library does.
    matrix = inspect.unwrap(curvature_matrix)(model.double(), batch, loss=loss, **options)
    return matrix @ torch.ones(matrix.dimension, dtype=torch.float64)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: measure(nn.ReLU()), "no parameters"),
        (lambda: measure(perceptron().requires_grad_(False)), "all frozen"),
        (lambda: measure(perceptron(), lambda o, t: o), "leave out reduction='none'"),
        (lambda: measure(perceptron(), lambda o, t: o.mean() * float("nan")), "a finite loss"),
        (lambda: measure(perceptron(), lambda o, t: o.detach().mean()), "without a graph"),
        (lambda: measure(perceptron(), lambda o, t: Once.apply(o).mean()), "once_differentiable"),
        (lambda: measure(perceptron(), matrix="hesse"), "matrix='hesse'"),
        (lambda: measure(perceptron(), samples=0), "at least one sample"),
        (lambda: measure(perceptron(), batch=torch.ones(0, 5)), "at least one example"),
        (lambda: measure(perceptron(), batch=data()[0][:, :3]), r"Linear '0'[\s\S]*\(7, 3\)"),
    ],
)
def test_what_cannot_be_measured_is_explained(act: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        act()


def test_a_model_that_has_changed_asks_for_a_new_matrix() -> None:
    model = build("perceptron")
    matrix = curvature_matrix(model, data(), loss=functional.cross_entropy)
    with torch.no_grad():
        model[0].weight.add_(1)  # type: ignore[index, operator, union-attr]
        model[2].weight.add_(1)  # type: ignore[index, operator, union-attr]
    with pytest.raises(MeasurementError, match="make a new matrix"):
        _ = matrix @ torch.ones(matrix.dimension, dtype=torch.float64)


def test_vectors_of_another_length_and_large_dense_matrices_are_refused() -> None:
    matrix = curvature_matrix(build("perceptron"), data(), loss=functional.cross_entropy)
    with pytest.raises(MeasurementError, match=f"a vector of {matrix.dimension} entries"):
        _ = matrix @ torch.ones(3, dtype=torch.float64)
    with pytest.raises(MeasurementError, match="at most 10 trainable"):
        matrix.dense(limit=10)
