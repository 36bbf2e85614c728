"""Tests of what makes a Setup repeatable: nothing is shared, and what changes is said."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.doctor.arm import Probe, run_arm
from leadline.doctor.problem import Problem
from leadline.doctor.repeatable import made_repeatable
from leadline.training.execution import Execution
from leadline.training.setup import Setup

BATCH = (torch.randn(8, 4), torch.arange(8) % 3)
SHARED = "the model's factory hands out the same Sequential each time"
DIFFERENT = "the model comes out differently each time it is built from the same seed"


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def setup_of(**changes: Any) -> Setup:
    parts: dict[str, Any] = {
        "model": network,
        "batches": [BATCH] * 4,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    }
    return Setup(**(parts | changes))


def spoiled() -> nn.Module:
    model = network()
    nn.init.constant_(model[0].weight, torch.nan)  # type: ignore[index, arg-type]
    return model


def complicated() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3, dtype=torch.cfloat), nn.BatchNorm1d(3))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": lambda: nn.Sequential(nn.LazyLinear(6), nn.Linear(6, 3))},
        {"model": spoiled},
        {"model": complicated},
        {"model": lambda: nn.Linear(4, 3, device="meta")},
        {"model": lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout())},
        {"loss": lambda o, t: functional.cross_entropy(functional.dropout(o), t)},
        {"loss": lambda o, t: o.mean() * torch.nan},
        {"loss": lambda o, t: {}["missing"]},
    ],
)
def test_a_setup_that_begins_alike_each_time_is_left_as_it_is(changes: Any) -> None:
    setup = setup_of(**changes)
    found = made_repeatable(setup, BATCH)
    assert found.setup is setup
    assert found.limits == ()


# --------------------------------------------------------------------------------- the same model


def test_a_model_that_is_handed_out_twice_is_copied_and_never_trained(left_as_found: Any) -> None:
    model = network()
    unchanged = left_as_found(model)
    found = made_repeatable(setup_of(model=lambda: model), BATCH)
    assert [limit.split(":")[0] for limit in found.limits] == [SHARED]
    probe = Probe(training=[BATCH], held_out=(), problem=Problem(kind="classes", classes=3))
    first, second = (
        run_arm(found.setup, [BATCH] * 4, probe=probe, execution=Execution()) for _ in range(2)
    )
    assert first.losses == second.losses
    assert first.losses[0] > first.losses[-1]
    unchanged()


def test_a_model_of_which_a_part_is_shared_is_copied_too() -> None:
    trunk = nn.Linear(4, 6)
    found = made_repeatable(
        setup_of(model=lambda: nn.Sequential(trunk, nn.ReLU(), nn.Linear(6, 3))), BATCH
    )
    one, two = found.setup.model(), found.setup.model()
    assert one[0] is not two[0] and one[0] is not trunk  # type: ignore[index]
    assert torch.equal(one[0].weight, trunk.weight)  # type: ignore[index, arg-type]
    assert len(found.limits) == 1


def test_a_shared_model_that_cannot_be_copied_is_an_error() -> None:
    class Streaming(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.source = nn.Linear(4, 3), (n for n in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    model = Streaming()
    with pytest.raises(MeasurementError) as caught:
        made_repeatable(setup_of(model=lambda: model), BATCH)
    assert caught.value.expected == "a model factory that builds a new model each time"
    assert caught.value.received.startswith(
        "the same Streaming again, which cannot be copied: TypeError"
    )
    assert "model=lambda: Net()" in caught.value.remedy
    made_repeatable(setup_of(model=Streaming), BATCH)  # built anew, it need not be copied


# --------------------------------------------------------------------------------- another model


def seeding_itself() -> Callable[[], nn.Module]:
    count = [0]

    def build() -> nn.Module:
        count[0] += 1
        torch.manual_seed(count[0])
        return network()

    return build


def of_another_size() -> Callable[[], nn.Module]:
    depths = itertools.count(1)
    return lambda: nn.Sequential(*(nn.Linear(4, 4) for _ in range(next(depths))))


@pytest.mark.parametrize("make", [seeding_itself, of_another_size])
def test_a_model_that_comes_out_differently_is_said(make: Any) -> None:
    setup = setup_of(model=make())
    found = made_repeatable(setup, BATCH)
    assert [limit.split(":")[0] for limit in found.limits] == [DIFFERENT]
    assert found.setup is setup


# ----------------------------------------------------------------------------------- another loss


def counting() -> Callable[[Tensor, Tensor], Tensor]:
    calls = [0]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        calls[0] += 1
        return functional.cross_entropy(outputs, targets) * calls[0]

    return loss


def averaging() -> Callable[[Tensor, Tensor], Tensor]:
    mean = [torch.tensor(1.0)]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = functional.cross_entropy(outputs, targets)
        mean[0] = 0.9 * mean[0] + 0.1 * value.detach()
        return value / mean[0]

    return loss


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * outputs.detach().mean(0)
        return functional.cross_entropy(outputs - self.mean, targets)


@pytest.mark.parametrize("make", [counting, averaging, Buffered])
def test_a_loss_that_keeps_something_from_call_to_call_is_said(make: Any) -> None:
    (limit,) = made_repeatable(setup_of(loss=make()), BATCH).limits
    assert limit.endswith(
        "for the same outputs: it keeps something from call to call, which the arms of a trial "
        "hand on to one another"
    )


def test_a_loss_that_prints_or_logs_is_no_matter(capsys: pytest.CaptureFixture[str]) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        print("asked")
        return functional.cross_entropy(outputs, targets)

    assert made_repeatable(setup_of(loss=loss), BATCH).limits == ()
    assert capsys.readouterr().out.count("asked") == 2


# ------------------------------------------------------------------------------ what is no factory


@pytest.mark.parametrize(
    ("changes", "expected", "received"),
    [
        ({"model": lambda: "a model"}, "returns a torch.nn.Module", "a str"),
        ({"model": lambda: None}, "returns a torch.nn.Module", "a NoneType"),
        ({"optimizer": lambda model: None}, "returns a torch.optim.Optimizer", "a NoneType"),
    ],
)
def test_factories_that_give_something_else_are_an_error(
    changes: Any, expected: str, received: str
) -> None:
    with pytest.raises(MeasurementError) as caught:
        made_repeatable(setup_of(**changes), BATCH)
    assert caught.value.expected.endswith(expected)
    assert caught.value.received == received
    assert "=lambda" in caught.value.remedy


def test_the_random_streams_and_the_batch_stay_as_they_were() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return functional.dropout(self.layer(x.mul_(2)))

    batch = (torch.ones(8, 4), BATCH[1])
    before, python = torch.get_rng_state(), random.getstate()
    made_repeatable(setup_of(model=Writing), batch)
    assert torch.equal(batch[0], torch.ones(8, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python


@pytest.mark.parametrize("form", ["one optimizer", "the model's own weights", "a part of them"])
def test_an_optimizer_that_belongs_to_a_shared_model_is_made_anew_for_its_copies(
    form: str, left_as_found: Any
) -> None:
    model = network()
    own = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    make: dict[str, Any] = {
        "one optimizer": lambda copied: own,
        "the model's own weights": lambda copied: torch.optim.SGD(model.parameters(), lr=0.1),
        "a part of them": lambda copied: torch.optim.SGD([model[2].weight], lr=0.1),  # type: ignore[index]
    }
    groups = list(own.param_groups[0]["params"])
    unchanged = left_as_found(model, own)
    found = made_repeatable(setup_of(model=lambda: model, optimizer=make[form]), BATCH).setup
    copied = found.model()
    optimizer = found.optimizer(copied)
    unchanged()
    mine = {id(p) for p in copied.parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == (1 if form == "a part of them" else 4)
    assert {id(p) for p in held} <= mine
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert all(a is b for a, b in zip(own.param_groups[0]["params"], groups, strict=True))
