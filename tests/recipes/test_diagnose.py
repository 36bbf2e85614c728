"""Tests of what is diagnosed: a Setup, parts, a loop that trains, a recipe and its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError
from leadline.doctor.diagnosis import Diagnosis
from leadline.recipes import diagnose as module
from leadline.recipes.diagnose import Bounds, diagnose_subject, one_batch_setup
from leadline.recipes.subject import Subject
from leadline.training.journal import Journal
from leadline.training.run import Run
from leadline.training.setup import Setup

X, Y = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3
QUICK = Bounds(seconds=600.0, steps=300)


def network(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3), *more)


def of_function(function: Callable[[], Any], bounds: Bounds = QUICK) -> module.Diagnosed:
    return diagnose_subject(Subject(name="mine.py:function", function=function), bounds=bounds)


def causes(diagnosis: Diagnosis) -> list[str]:
    return [finding.cause for finding in diagnosis.findings]


def test_a_function_that_returns_parts_is_diagnosed_on_their_batch() -> None:
    found = of_function(lambda: (network(nn.Softmax(1)), (X, Y), nn.CrossEntropyLoss()))
    assert causes(found.diagnosis) == ["double_softmax"]
    assert found.diagnosis.findings[0].proven
    assert found.setup is not None
    limits = " ".join(found.diagnosis.limits)
    assert "one batch was given" in limits and "no optimizer was given" in limits
    assert found.diagnosis.share is None, "how long the training is, is not known"


def test_healthy_parts_get_no_finding_that_only_a_whole_training_could_have() -> None:
    found = of_function(lambda: (network(), (X, Y), nn.CrossEntropyLoss()))
    assert causes(found.diagnosis) == []


def test_a_batch_that_is_no_pair_is_checked_and_the_lack_of_a_trial_said() -> None:
    batch = {"input": X}

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 1)

        def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.linear(input).square().mean()}

    found = of_function(lambda: (Own(), batch, None))
    assert found.setup is None
    assert "no trial could be made" in found.diagnosis.limits[0]


def test_a_function_that_returns_a_setup_has_it_diagnosed() -> None:
    setup = Setup(
        model=lambda: network(nn.Softmax(1)),
        batches=[(X, Y)] * 40,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    )
    found = of_function(lambda: setup)
    assert found.setup is setup
    assert causes(found.diagnosis)[0] == "double_softmax"


def train() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()


def test_a_function_that_trains_is_recorded_and_called_once() -> None:
    calls: list[int] = []

    def loop() -> None:
        calls.append(1)
        train()

    found = of_function(loop)
    assert causes(found.diagnosis)[0] == "zero_grad_missing"
    assert found.setup is None
    assert len(calls) == 1


def test_it_is_run_again_only_when_that_is_allowed() -> None:
    calls: list[int] = []

    def loop() -> None:
        calls.append(1)
        train()

    found = of_function(loop, Bounds(seconds=600.0, steps=300, rerun=True))
    assert len(calls) == 2
    trial = found.diagnosis.findings[0].trial
    assert trial is not None and "run again" in trial.remedy


def test_a_loop_that_breaks_off_is_diagnosed_as_far_as_it_came() -> None:
    def loop() -> None:
        train()
        raise RuntimeError("the disk is full")

    found = of_function(loop)
    assert causes(found.diagnosis)[0] == "zero_grad_missing"
    assert any("the disk is full" in limit for limit in found.diagnosis.limits)


def test_a_loop_that_returns_its_model_is_still_a_loop() -> None:
    def loop() -> tuple[int, int]:
        train()
        return 3, 4

    assert causes(of_function(loop).diagnosis)[0] == "zero_grad_missing"


def fails() -> None:
    raise ValueError("no such file: data.csv")


@pytest.mark.parametrize(
    ("function", "received"),
    [
        (fails, "ValueError: no such file"),
        (lambda: None, "no backward pass"),
        (lambda: (3, 4), r"\(int, int\)"),
    ],
)
def test_a_function_that_neither_trains_nor_returns_is_told_so(
    function: Callable[[], Any], received: str
) -> None:
    with pytest.raises(ConfigError, match=received):
        of_function(function)


def test_the_optimizer_of_the_parts_is_made_anew_for_each_copy() -> None:
    model = network()
    groups = [
        {"params": [model[0].weight], "lr": 0.5},  # type: ignore[index]  # a Sequential
        {"params": [model[2].bias], "lr": 0.25},  # type: ignore[index]
    ]
    setup = one_batch_setup(
        model, (X, Y), nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(groups, lr=0.1)
    )
    fresh = setup.model()
    made = setup.optimizer(fresh)
    own = dict(fresh.named_parameters())
    held = [p for group in made.param_groups for p in group["params"]]
    assert [id(p) for p in held] == [id(own["0.weight"]), id(own["2.bias"])]
    assert [group["lr"] for group in made.param_groups] == [0.5, 0.25]
    assert fresh is not model


def test_a_copy_with_other_layers_has_all_of_them_optimized() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    setup = one_batch_setup(model, (X, Y), nn.CrossEntropyLoss(), optimizer=optimizer)
    other = network(nn.Linear(3, 3))
    made = setup.optimizer(other)
    held = {id(p) for group in made.param_groups for p in group["params"]}
    assert held == {id(p) for p in other.parameters()}
    assert made.param_groups[0]["momentum"] == 0.9


def test_a_run_is_diagnosed_with_its_history(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(
        model=network,
        batches=[(X, Y)] * 10,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
        epochs=4,
    )
    run = Run(tmp_path)
    Journal(run.journal).event("step", step=1, loss=1.5, grad_norm=1.0)
    Journal(run.journal).event("failed", step=1, error="loss nan at step 2")
    found = diagnose_subject(Subject(name="run", setup=setup, run=run), bounds=QUICK)
    assert found.history[0] == "1 of 40 steps were trained; the loss went from 1.5 to 1.5"
    assert "nonfinite_value" in causes(found.diagnosis)
    plain = found.to_plain()
    assert plain["history"] == list(found.history)
    assert not plain["healthy"]
