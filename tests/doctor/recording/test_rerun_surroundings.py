"""Tests that reruns of modes, states, schedules and data change what they say."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from leadline.doctor.recording.rerun_surroundings import (
    data_kept,
    evaluation_mode_without_gradients,
    every_class_counted,
    models_kept,
    schedules_behind_updates,
    schedules_per_epoch,
    states_copied,
    training_mode_restored,
    training_shuffled,
)


def test_training_mode_comes_back_with_the_next_clearing() -> None:
    model = nn.Dropout(0.5)
    net = nn.Sequential(nn.Linear(2, 2), model)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with training_mode_restored():
        net.eval()
        assert not model.training
        optimizer.zero_grad()
        assert model.training


def test_a_call_without_gradients_is_in_evaluation_mode_and_the_modes_come_back() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9))
    with evaluation_mode_without_gradients(), torch.no_grad():
        assert torch.equal(net(torch.ones(8, 2)), net[0](torch.ones(8, 2)))
    assert net.training and net[1].training


def test_a_new_model_goes_on_with_the_weights_of_the_one_before() -> None:
    with models_kept():
        first = nn.Linear(2, 2)
        first(torch.ones(1, 2))
        nn.init.constant_(first.weight, 7.0)
        second = nn.Linear(2, 2)
        second(torch.ones(1, 2))
        other = nn.Linear(2, 3)
        other(torch.ones(1, 2))
    assert bool((second.weight == 7).all()) and not bool((other.weight == 7).any())


def rates(per_batch: int, *, update: bool = True) -> list[float]:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    seen = []
    for _ in range(2):
        for (inputs,) in DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2):
            model(inputs).sum().backward()
            if update:
                optimizer.step()
            for _ in range(per_batch):
                schedule.step()
            seen.append(optimizer.param_groups[0]["lr"])
    return seen


def test_schedules_step_per_epoch_whatever_the_loop_does() -> None:
    with schedules_per_epoch():
        assert rates(1) == rates(0) == [1.0, 1.0, 0.5, 0.5]


def test_schedules_step_once_per_update() -> None:
    with schedules_behind_updates():
        assert rates(2) == [0.5, 0.25, 0.125, 0.0625]
        assert rates(2, update=False) == [1.0] * 4


def test_states_are_copies() -> None:
    model = nn.Linear(2, 2)
    with states_copied():
        state = model.state_dict()
        nn.init.constant_(model.weight, 7.0)
    assert not bool((state["weight"] == 7).any())
    assert model.state_dict()["weight"].data_ptr() == model.weight.data_ptr()


def test_every_class_counts() -> None:
    outputs, targets = torch.randn(6, 3), torch.zeros(6, dtype=torch.long)
    with every_class_counted():
        loss = nn.CrossEntropyLoss(ignore_index=0)(outputs, targets)
    assert torch.equal(loss, functional.cross_entropy(outputs, targets))


def test_a_loader_in_order_is_shuffled_where_gradients_are_on() -> None:
    loader = DataLoader(TensorDataset(torch.arange(64)), batch_size=64)

    def drawn() -> Tensor:
        ((rows,),) = loader
        return rows

    with training_shuffled():
        mixed = drawn()
        with torch.no_grad():
            assert torch.equal(drawn(), torch.arange(64))
    assert not torch.equal(mixed, torch.arange(64))
    assert torch.equal(mixed.sort().values, torch.arange(64))


def test_what_a_data_set_holds_is_put_back_at_each_epoch() -> None:
    data = TensorDataset(torch.ones(4, 1))
    seen = []
    with data_kept():
        for _ in range(3):
            for (rows,) in DataLoader(data, batch_size=4):
                seen.append(float(rows[0]))
            data.tensors[0].mul_(0.5)
    assert seen == [1.0, 1.0, 1.0]
