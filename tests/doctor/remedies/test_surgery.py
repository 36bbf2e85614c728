"""Tests of surgery: the change is where it should be, and everything else where it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.remedies.surgery import (
    last_module,
    operated,
    put,
    with_input,
    with_output,
)
from leadline.measure.batch import read_batch

BATCH = read_batch((torch.randn(4, 4), torch.zeros(4)))


class Ends(nn.Module):
    """A layer, an activation, and a function behind both."""

    def __init__(self, ending: Any) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(4, 1), nn.Sigmoid()
        self.ending = ending

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.act(self.layer(x)))


def test_each_model_is_operated_and_the_given_setup_is_not(make_setup: Any) -> None:
    setup = make_setup()
    mended = operated(setup, lambda model: put(model, "1", nn.Tanh()))
    for _ in range(2):
        assert isinstance(mended.model()[1], nn.Tanh)  # type: ignore[index]
    assert isinstance(setup.model()[1], nn.ReLU)
    assert mended.loss is setup.loss and mended.batches is setup.batches


def test_what_the_change_returns_is_the_model(make_setup: Any) -> None:
    other = nn.Identity()
    assert operated(make_setup(), lambda model: other).model() is other


def test_a_change_in_place_returns_nothing(make_setup: Any) -> None:
    def change(model: nn.Module) -> None:
        model.eval()

    assert not operated(make_setup(), change).model().training


@pytest.mark.parametrize("container", [nn.Sequential, lambda *x: nn.ModuleList(x)])
def test_a_numbered_module_is_replaced(container: Any) -> None:
    model = container(nn.Linear(4, 4), nn.ReLU())
    tanh = nn.Tanh()
    assert put(model, "1", tanh) is model
    assert model[1] is tanh and len(model) == 2


def test_a_module_deep_inside_is_replaced_under_its_name() -> None:
    model = nn.Sequential(nn.ModuleDict({"a": nn.Sequential(nn.ReLU())}), Ends(torch.abs))
    put(model, "0.a.0", nn.GELU())
    put(model, "1.act", nn.Tanh())
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    assert (kinds["0.a.0"], kinds["1.act"]) == ("GELU", "Tanh")


def test_without_a_name_the_model_itself_is_replaced() -> None:
    other = nn.Identity()
    assert put(nn.ReLU(), "", other) is other


# --------------------------------------------------------------------------------- the last module


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1)), "1"),
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1), nn.Identity()), "2"),
        (nn.Linear(4, 3), ""),
        (Ends(lambda x: x), "act"),
        (Ends(lambda x: x.squeeze(1)), "act"),
        (Ends(lambda x: x.view(2, 2)), "act"),
        (Ends(torch.tanh), None),
        (Ends(lambda x: x[:2]), None),
        (Ends(lambda x: (x, x)), "act"),
    ],
)
def test_the_module_that_ends_a_model_is_found(model: nn.Module, name: str | None) -> None:
    assert last_module(model, BATCH) == name


def test_a_module_that_is_called_twice_ends_the_model_by_its_last_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.layer = nn.Sigmoid(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.layer(self.act(self.layer(x))))

    assert last_module(Twice(), BATCH) == "act"


def test_looking_for_it_changes_nothing(left_as_found: Any) -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(self.norm(x.mul_(2)))

    model, batch = Writing(), read_batch((torch.ones(4, 4), torch.zeros(4)))
    unchanged = left_as_found(model)
    assert last_module(model, batch) == "drop"
    unchanged()
    assert torch.equal(batch.inputs[0], torch.ones(4, 4))


def test_the_hooks_come_off_when_the_model_fails(left_as_found: Any) -> None:
    def fail(x: Tensor) -> Tensor:
        raise KeyError("x")

    model = Ends(fail)
    unchanged = left_as_found(model)
    with pytest.raises(Exception, match="KeyError"):
        last_module(model, BATCH)
    unchanged()


# ---------------------------------------------------------------------- functions before and behind


def test_a_function_behind_a_model_changes_what_it_answers() -> None:
    model = nn.Linear(4, 3)
    inputs = torch.randn(5, 4)
    expected = 2 * model(inputs) + 1
    with_output(lambda outputs: 2 * outputs + 1)(model)
    torch.testing.assert_close(model(inputs), expected)


def test_a_function_before_a_model_changes_what_it_is_given() -> None:
    model = nn.Linear(4, 3)
    inputs = torch.randn(5, 4)
    expected = model(inputs / 2)
    with_input(lambda x: x / 2)(model)
    torch.testing.assert_close(model(inputs), expected)


def test_of_several_inputs_only_the_first_is_changed() -> None:
    model = nn.Bilinear(4, 4, 3)
    left, right = torch.randn(5, 4), torch.randn(5, 4)
    expected = model(3 * left, right)
    with_input(lambda x: 3 * x)(model)
    torch.testing.assert_close(model(left, right), expected)


def test_a_first_input_that_is_no_tensor_is_let_through() -> None:
    class Takes(nn.Module):
        def forward(self, given: Any) -> Any:
            return given

    model = Takes()
    with_input(lambda x: x * 0)(model)
    assert model(["a"]) == ["a"]


def test_a_later_function_before_a_model_comes_first() -> None:
    """Like one more layer in front: the inputs meet the one that was put there last."""
    model = nn.Identity()
    with_input(lambda x: x + 1)(model)
    with_input(lambda x: x * 10)(model)
    assert model(torch.tensor([1.0])).item() == 11.0


def test_a_model_with_functions_around_it_can_be_copied() -> None:
    model = nn.Linear(4, 3)
    with_output(torch.tanh)(model)
    inputs = torch.randn(5, 4)
    torch.testing.assert_close(copy.deepcopy(model)(inputs), model(inputs))
