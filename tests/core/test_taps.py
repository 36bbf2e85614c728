"""Tests of the taps: they tell everything, come off, and leave no trace."""

from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.taps import ROOT, Call, Taps, first_nonfinite, plain_name, tensors_in


class Shared(nn.Module):
    """One linear layer and one in-place ReLU, each called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.linear(self.relu(self.linear(x))))


@dataclass
class Answer:
    logits: Tensor
    parts: dict[str, tuple[Tensor, Tensor]]


class Structured(nn.Module):
    """Takes a keyword, returns a nest, and updates a buffer by assignment."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 2)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor, *, scale: Tensor) -> Answer:
        self.steps = self.steps + 1
        out, (h, c) = self.lstm(x * scale)
        return Answer(logits=out, parts={"state": (h, c)})


def hooks_on(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks)
        + len(module._forward_pre_hooks)
        + len(module._backward_hooks)
        + len(module._backward_pre_hooks)
        for module in model.modules()
    )


def test_calls_come_in_call_order_and_reused_modules_come_again() -> None:
    seen: list[tuple[str, int]] = []
    with Taps(model := Shared()) as taps:
        taps.on_output(lambda call, inputs, output: seen.append((call.name, call.number)))
        model(torch.ones(1, 3))
    assert seen == [("linear", 0), ("relu", 0), ("linear", 1), ("relu", 1), (ROOT, 0)]


def test_inputs_are_told_before_an_in_place_module_overwrites_them() -> None:
    given: list[Tensor] = []
    model = nn.ReLU(inplace=True)
    with Taps(model) as taps:
        taps.on_input(lambda call, inputs: given.append(inputs[0].clone()))
        model(torch.tensor([-1.0, 2.0]))
    assert given[0].tolist() == [-1.0, 2.0]


def test_keywords_are_inputs_too_and_nested_outputs_are_found() -> None:
    inputs_seen: list[int] = []
    outputs_seen: list[int] = []
    model = Structured()
    with Taps(model) as taps:
        taps.on_input(lambda call, inputs: inputs_seen.append(len(inputs)))
        taps.on_output(
            lambda call, inputs, output: outputs_seen.append(len(list(tensors_in(output))))
        )
        model(torch.ones(1, 1, 2), scale=torch.tensor(2.0))
    assert inputs_seen == [2, 1]
    assert outputs_seen == [3, 3]


def test_gradients_equal_those_that_autograd_gives_for_each_intermediate_value() -> None:
    model = Shared()
    x = torch.randn(4, 3)
    first = model.linear(x)
    second = torch.relu(first)
    third = model.linear(second)
    fourth = torch.relu(third)
    values = (first, second, third, fourth)
    expected = dict(
        zip(
            [("linear", 0), ("relu", 0), ("linear", 1), ("relu", 1)],
            torch.autograd.grad(fourth.square().sum(), values),
            strict=True,
        )
    )
    told: dict[tuple[str, int], Tensor] = {}
    with Taps(model) as taps:
        taps.on_gradient(lambda call, grad: told.update({(call.name, call.number): grad.clone()}))
        model(x).square().sum().backward()
    assert list(told)[-1] == ("linear", 0), "the backward pass runs from the output to the input"
    for key, gradient in expected.items():
        torch.testing.assert_close(told[key], gradient)


def test_gradients_of_every_tensor_in_a_nested_output_are_told() -> None:
    told: list[torch.Size] = []
    model = Structured()
    with Taps(model) as taps:
        taps.on_gradient(lambda call, gradient: told.append(gradient.shape))
        answer = model(torch.ones(5, 1, 2), scale=torch.tensor(2.0))
        sum(tensor.sum() for tensor in tensors_in(answer)).backward()
    assert sorted(map(tuple, told)) == [(1, 1, 2)] * 4 + [(5, 1, 2)] * 2


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_and_the_random_streams_are_left_as_found(fails: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
    model.append(Structured())
    model[1].eval()
    model[0](torch.ones(1, 1, 4, 4)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    buffers = dict(model.named_buffers())
    gradients = [parameter.grad for parameter in model.parameters()]
    values = [None if grad is None else grad.clone() for grad in gradients]
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()

    def disturb() -> None:
        with Taps(model) as taps:
            taps.on_input(lambda call, inputs: None)
            taps.on_gradient(lambda call, gradient: None)
            model.train()
            model[:3](torch.randn(2, 1, 4, 4)).sum().backward()
            model[3](torch.ones(1, 1, 2), scale=torch.tensor(1.0))
            assert model[1].num_batches_tracked == 1
            if fails:
                raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            disturb()
    else:
        disturb()

    assert hooks_on(model) == 0
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    for parameter, gradient, value in zip(model.parameters(), gradients, values, strict=True):
        assert parameter.grad is gradient
        assert value is None or torch.equal(gradient, value)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_graph_that_waits_for_its_backward_pass_is_not_disturbed() -> None:
    model = nn.BatchNorm1d(3).eval()  # in eval its running statistics are saved for backward
    x = torch.randn(4, 3, requires_grad=True)
    loss = model(x).sum()
    with Taps(model):
        model.train()
        model(torch.randn(4, 3))
    loss.backward()
    assert x.grad is not None


def test_a_buffer_that_two_modules_share_stays_shared_inside() -> None:
    first, second = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    second.running_mean = first.running_mean
    with Taps(nn.Sequential(first, second)):
        first(torch.randn(8, 2))
        assert first.running_mean is second.running_mean


def test_without_restore_only_the_hooks_go() -> None:
    model = nn.BatchNorm1d(2)
    with Taps(model, restore=False) as taps:
        taps.on_output(lambda call, inputs, output: None)
        model(torch.randn(8, 2)).sum().backward()
    assert hooks_on(model) == 0
    assert model.num_batches_tracked == 1
    assert model.weight.grad is not None


def test_gradient_hooks_come_off_graphs_that_outlive_the_block_in_place_or_not() -> None:
    model = Shared()
    told: list[Call] = []
    with Taps(model) as taps:
        taps.on_gradient(lambda call, gradient: told.append(call))
        output = model(torch.ones(1, 3))
    output.sum().backward()
    assert told == []


def test_a_long_open_tap_holds_nothing_of_the_steps_gone_by() -> None:
    model = nn.Linear(2, 2)
    with Taps(model, restore=False) as taps:
        taps.on_gradient(lambda call, gradient: None)
        for _ in range(20):
            model(torch.ones(1, 2)).sum().backward()
        gc.collect()
        assert len(taps._on_tensors) == 0


def test_a_block_that_divides_by_zero_between_its_layers_is_named_itself() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(2, 2)
            self.after = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(self.before(x) / 0)

    model = nn.Sequential(nn.Linear(2, 2), Block(), nn.Linear(2, 2))
    assert first_nonfinite(model, lambda: model(torch.ones(1, 2))) == "1"


@pytest.mark.parametrize("culprit", ["0", "2", "4"])
def test_the_layer_where_nan_begins_is_named(culprit: str) -> None:
    model = nn.Sequential(
        nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)
    )
    with torch.no_grad():
        model.get_submodule(culprit).bias.fill_(float("nan"))
    assert first_nonfinite(model, lambda: model(torch.ones(1, 2))) == culprit


def test_an_overflow_is_named_where_it_happens_not_where_it_becomes_nan() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Softmax(dim=1))
    with torch.no_grad():
        model[0].weight.fill_(3e38)
        model[1].weight.fill_(3e38)
    assert first_nonfinite(model, lambda: model(torch.ones(1, 1))) == "1"


def test_a_healthy_model_and_bad_data_name_no_layer() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert first_nonfinite(model, lambda: model(torch.ones(1, 2))) is None
    assert first_nonfinite(model, lambda: model(torch.full((1, 2), float("nan")))) is None


def test_a_model_without_parts_is_named_as_the_model() -> None:
    class Log(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.log()

    model = Log()
    assert first_nonfinite(model, lambda: model(torch.zeros(1))) == ROOT


def test_looking_for_nan_changes_neither_the_statistics_nor_what_dropout_draws_next() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    x = torch.randn(8, 2)
    torch.manual_seed(0)
    expected = copy.deepcopy(model)(x)
    torch.manual_seed(0)
    first_nonfinite(model, lambda: functional.mse_loss(model(x), x).backward())
    assert torch.equal(model(x), expected)


def test_a_leaf_knows_that_it_is_one() -> None:
    leaves: dict[str, bool] = {}
    with Taps(model := nn.Sequential(nn.ReLU())) as taps:
        taps.on_output(lambda call, *_: leaves.update({call.name: call.is_leaf}))
        model(torch.ones(1))
    assert leaves == {"0": True, ROOT: False}


def test_tensors_are_found_in_any_nest() -> None:
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    nest: Any = {"a": [one, (two, None, "text")], "b": Answer(logits=three, parts={})}
    assert [len(tensor) for tensor in tensors_in(nest)] == [1, 2, 3]


def test_functions_of_torch_are_told_with_the_module_that_called_them() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x + functional.relu(self.linear(x))
            x += 1
            return x

    seen: list[tuple[str, str]] = []
    inputs = torch.ones(1, 2)
    with Taps(model := nn.Sequential(Block())) as taps:
        taps.on_operation(lambda operation, *_: seen.append((operation.name, operation.function)))
        model(inputs)
    assert seen == [("0.linear", "linear"), ("0", "relu"), ("0", "add"), ("0", "add")]
    _ = inputs + 1
    assert len(seen) == 4


def test_a_module_that_fails_and_is_caught_leaves_the_names_right() -> None:
    class Fallback(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrong = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.wrong(x)
            except RuntimeError:
                return functional.relu(x)

    seen: list[str] = []
    with Taps(model := Fallback()) as taps:
        taps.on_operation(lambda operation, *_: seen.append(operation.name))
        model(torch.ones(1, 2))
    assert seen[-1] == ROOT


def test_another_output_can_be_handed_on() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    before = model(x := torch.ones(1, 2))
    own: list[Tensor] = []
    with Taps(model) as taps:
        taps.on_output(lambda call, inputs, output: own.append(output))
        taps.replace_output(lambda call, output: -torch.ones(1, 2) if call.name == "0" else None)
        assert torch.equal(model(x), torch.zeros(1, 2))
    assert torch.equal(own[0], model[0](x))
    assert torch.equal(model(x), before)


def test_compiled_modules_are_heard_inside_and_stay_compiled() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model = torch.compile(inner, backend="eager")
    seen: list[str] = []
    with Taps(model) as taps:  # type: ignore[arg-type]
        taps.on_output(lambda call, inputs, output: seen.append(call.name))
        model(torch.ones(1, 2))
    assert seen == ["0", "1", ROOT, ROOT]
    model(torch.ones(1, 2))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("name", "plain"),
    [("module.conv", "conv"), ("a._orig_mod.b", "a.b"), ("a.module", "a.module"), ("", ROOT)],
)
def test_wrappers_are_no_part_of_a_name(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize("compiled", ["no", "wrapped", "in place"])
def test_a_call_of_the_whole_model_is_told_with_its_arguments(compiled: str) -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    if compiled == "wrapped":
        model = torch.compile(model, backend="eager")
    elif compiled == "in place":
        model.compile(backend="eager")
    seen: list[Any] = []
    with Taps(model, restore=False) as taps:
        taps.on_call(lambda args, kwargs: seen.append((args, kwargs)))
        model(inputs := torch.ones(1, 2))
    model(inputs)
    assert len(seen) == 1 and seen[0][0][0] is inputs and seen[0][1] == {}


def test_an_update_is_told_before_it_takes_place_and_only_inside() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    weight.grad = torch.ones(1)
    seen: list[float] = []
    with Taps(nn.Linear(1, 1), restore=False) as taps:
        taps.before_update(optimizer, lambda: seen.append(weight.item()))
        optimizer.step()
    optimizer.step()
    assert seen == [1.0]


def test_a_copy_or_a_pickle_of_a_tapped_model_is_deaf() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    seen: list[str] = []
    with Taps(model, restore=False) as taps:
        taps.on_input(lambda call, inputs: seen.append(call.name))
        taps.on_output(lambda call, inputs, output: seen.append(call.name))
        copied, read = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    copied(torch.ones(1, 2))
    read(torch.ones(1, 2))
    assert seen == []


def test_code_compiled_inside_the_block_does_not_call_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    seen: list[str] = []
    with Taps(model, restore=False) as taps:
        taps.on_output(lambda call, inputs, output: seen.append(call.name))
        torch.compile(model, backend="eager")(torch.ones(1, 2))
    assert seen == []
