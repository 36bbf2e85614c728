"""Tests of the remedies of optimisation: the steps are those of the optimizer written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from leadline.doctor.remedies.optimisation import (
    Paced,
    Regrouped,
    adam,
    batches_of,
    clip_at,
    epochs_times,
    every_parameter,
    option,
    positive_rate,
    rate_times,
    schedule_per_epoch,
    trainable_again,
    without_schedule,
)
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.setup import Setup
from leadline.training.state import TrainingState


def trained(setup: Setup) -> list[Tensor]:
    """The weights after the whole training."""
    state = TrainingState(setup, Execution())
    for _ in steps(setup, state.execution, state=state):
        pass
    return [p.detach() for p in state.model.parameters()]


def train_alike(mended: Setup, by_hand: Setup) -> None:
    for mine, its in zip(trained(mended), trained(by_hand), strict=True):
        assert torch.equal(mine, its)


def making(kind: Any, **options: Any) -> Callable[[nn.Module], Optimizer]:
    return lambda model: kind(model.parameters(), **options)


def rates(setup: Setup) -> list[float]:
    return [step.lr for step in steps(setup, Execution())]


# ----------------------------------------------------------------------------------------- the rate


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_rate_times_a_factor_trains_as_the_optimizer_with_that_rate(
    make_setup: Any, kind: Any
) -> None:
    sick = make_setup(optimizer=making(kind, lr=0.5))
    remedy = rate_times(0.125, 0.5)
    train_alike(remedy(sick), replace(sick, optimizer=making(kind, lr=0.0625)))
    assert remedy.title == "a learning rate of 0.0625 instead of 0.5"
    assert remedy.settings == {"optimizer.lr": 0.0625}


def test_every_group_keeps_its_ratio(make_setup: Any) -> None:
    def make(model: nn.Module) -> Optimizer:
        first, last = model[0], model[2]  # type: ignore[index]
        return SGD([{"params": first.parameters(), "lr": 0.1}, {"params": last.parameters()}], 1.0)

    sick = make_setup(optimizer=make)
    optimizer = rate_times(0.1, 1.0)(sick).optimizer(sick.model())
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.01, 0.1])


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: CosineAnnealingLR(optimizer, 6),
        lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + step)),
        lambda optimizer: OneCycleLR(optimizer, 0.5, total_steps=12),
    ],
)
def test_a_schedule_is_scaled_all_along(make_setup: Any, schedule: Any) -> None:
    sick = make_setup(schedule=schedule, epochs=2)
    before = rates(sick)
    assert len(set(before)) > 2
    assert rates(rate_times(0.1, 0.1)(sick)) == pytest.approx([0.1 * rate for rate in before])


@pytest.mark.parametrize("rate", [0.0, -0.1])
def test_a_rate_that_is_not_above_0_becomes_the_usual_one(make_setup: Any, rate: float) -> None:
    def make(model: nn.Module) -> Optimizer:
        optimizer = SGD(model.parameters(), lr=0.1)
        optimizer.param_groups[0]["lr"] = rate  # torch's constructor refuses it
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.3})
        return optimizer

    sick = make_setup(optimizer=make)
    optimizer = positive_rate(0.01)(sick).optimizer(sick.model())
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.3]


# ----------------------------------------------------------------------------- the optimizer itself


def test_adam_takes_the_place_on_the_same_parameters_with_the_same_decay(make_setup: Any) -> None:
    sick = make_setup(
        optimizer=lambda model: SGD(model[0].parameters(), lr=9.0, weight_decay=0.02),
        schedule=lambda optimizer: CosineAnnealingLR(optimizer, 2),
    )
    by_hand = replace(
        sick,
        optimizer=lambda model: Adam(model[0].parameters(), lr=1e-3, weight_decay=0.02),
        schedule=None,
    )
    train_alike(adam()(sick), by_hand)


@pytest.mark.parametrize(
    ("kind", "sick", "key", "value"),
    [
        (Adam, {"eps": 1e-3}, "eps", 1e-8),
        (Adam, {"betas": (0.5, 0.5)}, "betas", (0.9, 0.999)),
        (AdamW, {"weight_decay": 5.0}, "weight_decay", 1e-4),
        (SGD, {"momentum": 0.999}, "momentum", 0.9),
        (SGD, {"maximize": True}, "maximize", False),
    ],
)
def test_an_option_set_anew_trains_as_if_it_had_been_given(
    make_setup: Any, kind: Any, sick: dict[str, Any], key: str, value: Any
) -> None:
    setup = make_setup(optimizer=making(kind, lr=0.01, **sick))
    remedy = option(key, value, was=sick[key])
    train_alike(remedy(setup), replace(setup, optimizer=making(kind, lr=0.01, **{key: value})))
    assert remedy.diff == f"- {key}={sick[key]}\n+ {key}={value}"


def test_an_option_that_the_optimizer_does_not_have_is_left_out(make_setup: Any) -> None:
    setup = make_setup()
    optimizer = option("betas", (0.9, 0.999))(setup).optimizer(setup.model())
    assert "betas" not in optimizer.param_groups[0]


# ----------------------------------------------------------------------------------- its parameters


def test_forgotten_parameters_are_added(make_setup: Any) -> None:
    sick = make_setup(optimizer=lambda model: SGD(model[2].parameters(), lr=0.1))
    train_alike(every_parameter()(sick), make_setup(batches=sick.batches))


def test_parameters_with_names_are_added_with_theirs(make_setup: Any) -> None:
    sick = make_setup(optimizer=lambda model: SGD(model[2].named_parameters(), lr=0.1))
    model = sick.model()
    optimizer = every_parameter()(sick).optimizer(model)
    assert [g["param_names"] for g in optimizer.param_groups] == [
        ["weight", "bias"],
        ["0.weight", "0.bias"],
    ]


def test_parameters_of_another_model_are_replaced(make_setup: Any) -> None:
    """The optimizer was made before the model was changed, and holds what nobody uses."""
    stale = nn.Linear(4, 3)
    sick = make_setup(optimizer=lambda model: SGD(stale.parameters(), lr=0.1))
    train_alike(every_parameter()(sick), make_setup(batches=sick.batches))


def test_frozen_parameters_are_not_added(make_setup: Any) -> None:
    model = make_setup().model()
    model[0].requires_grad_(False)
    sick = make_setup(optimizer=lambda model: SGD([model[2].weight], lr=0.1))
    optimizer = every_parameter()(sick).optimizer(model)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model[2].parameters()}


def test_an_optimizer_that_holds_them_all_stays_as_it_is(make_setup: Any) -> None:
    setup = make_setup()
    train_alike(every_parameter()(setup), setup)


def test_frozen_layers_learn_again(make_setup: Any) -> None:
    plain = make_setup()

    def frozen() -> nn.Module:
        model = plain.model()
        model[0].requires_grad_(False)  # type: ignore[index]
        return model

    sick = replace(
        plain,
        model=frozen,
        optimizer=lambda model: SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
    )
    mended = trainable_again(["0.weight", "0.bias"])(sick)
    by_hand = replace(plain, optimizer=making(SGD, lr=0.1))
    for mine, its in zip(trained(mended), trained(by_hand), strict=True):
        torch.testing.assert_close(mine, its)


# ------------------------------------------------------------------------------------- the schedule


def test_without_a_schedule_the_rate_stays(make_setup: Any) -> None:
    sick = make_setup(schedule=lambda optimizer: CosineAnnealingLR(optimizer, 2))
    assert rates(without_schedule()(sick)) == [0.1] * 4


def test_a_schedule_per_epoch_is_the_loop_that_steps_it_behind_each_epoch(make_setup: Any) -> None:
    sick = make_setup(schedule=lambda optimizer: CosineAnnealingLR(optimizer, 3), epochs=3)
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = CosineAnnealingLR(optimizer, 3)
    expected = []
    for _ in range(3):
        for _ in range(4):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
        schedule.step()
    assert rates(schedule_per_epoch(4)(sick)) == pytest.approx(expected)


def test_a_setup_without_a_schedule_stays_as_it_is(make_setup: Any) -> None:
    setup = make_setup()
    assert schedule_per_epoch(4)(setup) is setup


def test_a_paced_schedule_goes_on_where_it_was_saved() -> None:
    def make() -> Paced:
        optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = LambdaLR(optimizer, lambda step: 0.5**step)
        optimizer.step()
        return Paced(schedule, 3)

    def rates_of(paced: Paced, count: int) -> list[float]:
        found = []
        for _ in range(count):
            paced.step()
            found.append(paced.schedule.get_last_lr()[0])
        return found

    whole = rates_of(make(), 9)
    assert whole == [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    half = make()
    rates_of(half, 4)
    other = make()
    other.load_state_dict(half.state_dict())
    assert rates_of(other, 5) == whole[4:]


# ------------------------------------------------------------------------ clipping, length, batches


@pytest.mark.parametrize(("bound", "title"), [(2.0, "at 2"), (0.0, "do not clip")])
def test_the_gradient_is_bound_elsewhere_or_left_alone(
    make_setup: Any, bound: float, title: str
) -> None:
    remedy = clip_at(bound, 0.01)
    assert title in remedy.title and "- max_norm=0.01" in remedy.diff
    assert remedy(make_setup(clip_grad=0.01)).clip_grad == bound


def test_a_training_of_more_epochs(make_setup: Any) -> None:
    remedy = epochs_times(5, 2)
    assert remedy(make_setup(epochs=2)).epochs == 10
    assert (remedy.title, remedy.settings) == ("10 epochs instead of 2", {"budget.epochs": 10})


@pytest.mark.parametrize("size", [1, 3, 4, 7, 32, 100])
@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (5, 5, 5, 1), (1,) * 16, (16,)])
def test_the_same_examples_are_cut_into_batches_of_another_size(
    sizes: tuple[int, ...], size: int
) -> None:
    numbers = torch.arange(16)
    source = [(part[:, None].float(), part) for part in numbers.split(list(sizes))]
    batches = Regrouped(source, size)
    drawn = list(batches)
    assert [y.tolist() for _, y in drawn] == [part.tolist() for part in numbers.split(size)]
    assert all(torch.equal(x[:, 0], y.float()) for x, y in drawn)
    assert len(batches) == len(drawn)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(torch.zeros(4), 0)] * 13)


DATA = TensorDataset(torch.zeros(30, 4), torch.zeros(30, dtype=torch.long))


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(DATA, batch_size=4),
        DataLoader(DATA, batch_size=4, shuffle=True),
        DataLoader(DATA, batch_size=4, drop_last=True),
        DataLoader(DATA, batch_size=4, sampler=SubsetRandomSampler(range(11))),
        DataLoader(DATA, batch_sampler=[[0, 1], [2], [3, 4, 5]]),
        DataLoader(Stream(), batch_size=4),
    ],
)
def test_any_loader_is_counted_right(make_setup: Any, loader: Any) -> None:
    mended = batches_of(7, 4)(make_setup(batches=loader))
    assert len(mended.batches) == len(list(mended.batches))
    assert len(list(steps(mended, Execution()))) == len(mended.batches)


def test_no_example_of_a_plain_loader_is_loaded_to_count_them() -> None:
    class Costly(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("an example was loaded")

    assert len(Regrouped(DataLoader(Costly(torch.zeros(30, 4)), batch_size=4), 7)) == 5
