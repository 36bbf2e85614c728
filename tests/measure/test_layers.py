"""Tests of the layers: modules and functions, in the order in which they run, named once each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.taps import Taps
from leadline.measure.layers import on_layer


def names(model: nn.Module, inputs: Tensor) -> list[str]:
    found: list[str] = []
    with Taps(model) as taps:
        on_layer(taps, lambda layer, given, output: found.append(f"{layer.name}:{layer.kind}"))
        model(inputs)
    return found


class Functional(nn.Module):
    """A network of raw parameters and functions only."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.ones(3, 2))
        self.second = nn.Parameter(torch.ones(1, 3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = (x @ self.first.T).relu_()
        return functional.linear(hidden, self.second)


class Scale(nn.Module):
    """A layer of somebody's own: one weight, several functions inside."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (2,)) * self.weight + 0


def test_a_network_of_functions_has_layers_too() -> None:
    assert names(Functional(), torch.ones(1, 2)) == ["matmul:matmul", "relu:relu", "linear:linear"]


def test_a_layer_of_somebodys_own_is_one_layer() -> None:
    model = nn.Sequential(Scale(), nn.Linear(2, 2))
    assert names(model, torch.ones(1, 2)) == ["0:Scale", "1:Linear"]


def test_a_second_call_has_a_name_of_its_own() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu)
    expected = ["0:Linear", "1:ReLU", "2:Linear", "1 (call 2):ReLU"]
    assert names(model, torch.ones(1, 2)) == expected


def test_layers_of_a_compiled_model_are_those_of_the_original() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    compiled = torch.compile(model, backend="eager")
    compiled(torch.ones(1, 2))
    assert names(compiled, torch.ones(1, 2)) == names(model, torch.ones(1, 2))  # type: ignore[arg-type]


def test_integer_outputs_are_no_layers() -> None:
    class Argmax(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(dim=1)

    assert names(nn.Sequential(nn.Linear(2, 2), Argmax()), torch.ones(1, 2)) == ["0:Linear"]


def test_an_attention_module_is_a_layer_though_it_returns_two_tensors() -> None:
    model = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    found = names(model, torch.ones(1, 3, 4))
    assert found[0] == "self_attn/multi_head_attention_forward:multi_head_attention_forward"
