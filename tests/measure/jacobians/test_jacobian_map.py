"""Tests of the Jacobian as a map: against dense autograd, in any mode, between any two modules."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian as dense_jacobian
from torch.nn import functional

from leadline.core.errors import MeasurementError, UnknownNameError
from leadline.measure.jacobians import jacobian_map as module_under_test
from leadline.measure.jacobians.jacobian_map import INPUT, OUTPUT, jacobian_map, replace_tensor


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= 1e-9 * expected.norm())


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Recurrent(nn.Module):
    """A tuple output, attention by a function, and a dictionary for its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden, _ = self.lstm(x)
        attended = functional.scaled_dot_product_attention(hidden, hidden, hidden, is_causal=True)
        return {"loss": hidden.sum(), "logits": self.head(attended[:, -1])}


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)), (4,)),
    "convolutional": (convolutional, (1, 6, 6)),
    "residual": (lambda: nn.Sequential(Residual(3), Residual(3)), (3,)),
    "recurrent": (Recurrent, (5, 3)),
    "compiled": (
        lambda: torch.compile(nn.Sequential(nn.Linear(3, 2), nn.GELU()), backend="eager"),
        (3,),
    ),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_products_and_matrix_are_those_of_dense_autograd(name: str, training: bool) -> None:
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = make().double().train(training)
    x = torch.randn(5, *shape, dtype=torch.float64)

    def answer(x: Tensor) -> Tensor:
        output = model(x)
        return output["logits"] if isinstance(output, dict) else output

    whole = dense_jacobian(answer, x)
    expected = torch.stack([whole[i, :, i].flatten(1) for i in range(3)])
    with jacobian_map(model, x, examples=3) as jacobian:
        found = jacobian.dense()
        cotangents = torch.randn(4, 3, jacobian.shape[0], dtype=torch.float64)
        tangents = torch.randn(4, 3, jacobian.shape[1], dtype=torch.float64)
        backward, forward = jacobian.vjp(cotangents), jacobian.jvp(tangents)
    assert close(found, expected)
    assert close(backward, torch.einsum("emn,kem->ken", expected, cotangents))
    assert close(forward, torch.einsum("emn,ken->kem", expected, tangents))


def test_a_wide_output_is_written_out_column_by_column() -> None:
    layer = nn.Linear(2, 50)
    with jacobian_map(layer, torch.ones(1, 2)) as jacobian:
        assert torch.allclose(jacobian.dense()[0], layer.weight)


def test_rows_are_coupled_by_a_batch_norm_in_training_mode_only() -> None:
    model, x = nn.BatchNorm1d(3), torch.randn(4, 3)
    with jacobian_map(model, x) as jacobian:
        assert jacobian.coupled
    with jacobian_map(model.eval(), x) as jacobian:
        assert not jacobian.coupled


def test_products_in_small_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), torch.randn(2, 4)
    with jacobian_map(model, x) as jacobian:
        at_once = jacobian.dense()
        monkeypatch.setattr(module_under_test, "BATCHED_NUMBERS", 25)
        assert torch.allclose(jacobian.dense(), at_once)


def test_an_operation_that_knows_no_batches_is_done_one_by_one() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            (x,) = ctx.saved_tensors
            return 2 * x * float(gradient.sum() / gradient.sum()) * gradient  # reads a value

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Square.apply(x)

    with jacobian_map(Model(), torch.tensor([[1.0, 2.0]])) as jacobian:
        product = jacobian.vjp(torch.tensor([[[1.0, 1.0]], [[1.0, 3.0]]]))
    assert product.tolist() == [[[2.0, 4.0]], [[2.0, 12.0]]]


def test_a_layer_that_cannot_be_differentiated_twice_is_named() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Once.apply(x)

    with jacobian_map(Model(), torch.ones(1, 2)) as jacobian:
        assert torch.equal(jacobian.dense()[0], torch.eye(2))
        with pytest.raises(MeasurementError, match="differentiated twice"):
            jacobian.jvp(torch.ones(1, 1, 2))


def test_between_two_modules_only_what_lies_between_counts() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), Residual(3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    x = torch.randn(1, 3)
    hidden = model[0](x)
    expected = dense_jacobian(model[1], hidden)[0, :, 0]
    with jacobian_map(model, x, start="0", end="1") as jacobian:
        assert torch.allclose(jacobian.dense()[0], expected, atol=1e-6)


def test_before_an_in_place_layer_the_start_is_what_it_had_not_yet_overwritten() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.randn(1, 3)
    with jacobian_map(model, x, start="0") as jacobian:
        assert torch.equal(jacobian.dense()[0].diag(), (model[0](x)[0] > 0).float())


def test_a_module_that_is_called_twice_has_two_outputs() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(3.0)
    model = nn.Sequential(layer, nn.Identity(), layer)
    for start, expected in ((INPUT, 9.0), ("0", 3.0)):
        with jacobian_map(model, torch.ones(1, 1), start=start) as jacobian:
            assert jacobian.dense().item() == expected
    with jacobian_map(model, torch.ones(1, 1), end="0") as jacobian:
        assert jacobian.dense().item() == 3.0
    with jacobian_map(model, torch.ones(1, 1), end="0 (call 2)") as jacobian:
        assert jacobian.dense().item() == 9.0


def test_double_precision_leaves_a_single_model_single() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    with jacobian_map(model, torch.ones(2, 3), double=True) as jacobian:
        found = jacobian.dense()
    expected = model[0].weight.double() / (1 + model[1].eps) ** 0.5
    assert close(found[0], expected)
    assert model[0].weight.dtype == torch.float32


def test_a_single_example_may_have_any_shape() -> None:
    class TimeFirst(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(dim=0)  # [T, B, D] to [B, D]

    with jacobian_map(TimeFirst(), torch.ones(1, 3, 2)) as jacobian:
        assert torch.equal(jacobian.dense()[0], torch.eye(6))
    with (
        pytest.raises(MeasurementError, match="pass a single example"),
        jacobian_map(TimeFirst(), torch.ones(4, 3, 2)),
    ):
        pass


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens).mean(dim=1))


def test_tokens_are_followed_from_the_embedding_that_the_error_names() -> None:
    model, tokens = Tokens(), torch.tensor([[1, 2], [3, 4]])
    with (
        pytest.raises(MeasurementError, match=r"received inputs of type int64[\s\S]*start='embed'"),
        jacobian_map(model, tokens),
    ):
        pass
    with jacobian_map(model, tokens, start="embed") as jacobian:
        assert torch.allclose(jacobian.dense()[1], model.head.weight.repeat(1, 2) / 2)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x).detach()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"no path of gradients"),
        ({"end": "unused"}, r"'unused' was not called"),
        ({"start": OUTPUT, "end": OUTPUT}, r"a Jacobian cannot start"),
        ({"end": INPUT}, r"a Jacobian cannot end"),
        ({"examples": 0}, r"at least one example"),
    ],
)
def test_places_without_a_jacobian_are_described(arguments: dict[str, Any], message: str) -> None:
    with (
        pytest.raises(MeasurementError, match=message),
        jacobian_map(Detached(), torch.ones(1, 2), **arguments),
    ):
        pass


def test_an_unknown_place_gets_did_you_mean() -> None:
    with (
        pytest.raises(UnknownNameError, match="did you mean 'first'"),
        jacobian_map(Detached(), torch.ones(1, 2), start="frist"),
    ):
        pass


def test_a_model_that_is_bound_to_single_precision_says_so() -> None:
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.ones(2, 2)

    with (
        pytest.raises(MeasurementError, match="leave out double=True"),
        jacobian_map(Single(), torch.ones(1, 2), double=True),
    ):
        pass


Pair = namedtuple("Pair", "a b")


@dataclass
class Answer:
    logits: Tensor


def test_a_tensor_is_replaced_in_any_nest() -> None:
    old, new, other = torch.zeros(1), torch.ones(1), torch.zeros(1)
    assert replace_tensor(Answer(logits=old), old, new).logits is new
    assert replace_tensor(Pair(a=[old], b=other), old, new) == Pair(a=[new], b=other)
    assert replace_tensor({"x": (old, 3)}, old, new)["x"] == (new, 3)
    assert replace_tensor("text", old, new) == "text"
