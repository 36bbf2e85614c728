"""Exact resume: N + M steps equal N, save, load, M, bit for bit."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leadline.data.augment import Augmentation
from leadline.data.examples import ArrayExamples
from leadline.data.loader import Loader
from leadline.optim.optimizers import OptimizerOptions, make_optimizer
from leadline.optim.schedules import ScheduleOptions, make_schedule
from leadline.training.checkpoint import load_checkpoint, save_checkpoint
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.setup import Setup
from leadline.training.state import TrainingState

OPTIMIZERS = ("sgd", "rmsprop", "adam", "adamw", "muon")
SCHEDULES = ("constant", "cosine", "linear", "step", "one_cycle")
EPOCHS, BATCH, EXAMPLES = 2, 4, 18
TOTAL = EPOCHS * 5


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.Dropout(0.2),
        nn.Conv2d(4, 3, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 2),
    )


def make_loader() -> Loader:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (EXAMPLES, 1, 6, 6), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 2, (EXAMPLES,), generator=generator)
    return Loader(
        ArrayExamples(images, targets),
        batch_size=BATCH,
        seed=5,
        mean=(0.5,),
        std=(0.25,),
        device="cpu",
        augmentation=Augmentation(flip=True, crop=1, mixup=0.2),
        num_classes=2,
    )


def make_setup(optimizer: str, schedule: str, *, ema: float, accumulate: int) -> Setup:
    total = EPOCHS * -(-5 // accumulate)
    return Setup(
        model=make_model,
        batches=make_loader(),
        loss=nn.functional.cross_entropy,
        optimizer=lambda model: make_optimizer(
            model, OptimizerOptions(optimizer=optimizer, lr=0.01)
        ),
        schedule=lambda o: make_schedule(o, ScheduleOptions(schedule=schedule), total_steps=total),
        epochs=EPOCHS,
        accumulate=accumulate,
        ema_decay=ema,
        clip_grad=1.0,
        seed=3,
    )


def run_steps(state: TrainingState, count: int | None = None) -> TrainingState:
    for _ in itertools.islice(steps(state.setup, state.execution, state=state), count):
        pass
    return state


def assert_same_weights(one: TrainingState, other: TrainingState) -> None:
    pairs = [(one.model, other.model), (one.evaluated_model, other.evaluated_model)]
    for a, b in pairs:
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y), name
    assert one.counters.step == other.counters.step


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_run_ends_with_the_very_weights_of_an_unbroken_one(
    optimizer: str, schedule: str, ema: float, accumulate: int, layout: str, tmp_path: Path
) -> None:
    execution = Execution(layout=layout)
    options = {"ema": ema, "accumulate": accumulate}
    unbroken = run_steps(TrainingState(make_setup(optimizer, schedule, **options), execution))
    first = TrainingState(make_setup(optimizer, schedule, **options), execution)
    run_steps(first, 3)
    path = save_checkpoint(tmp_path, first.state_dict(), step=3)
    torch.rand(7)  # the streams are restored, not merely untouched
    second = TrainingState(make_setup(optimizer, schedule, **options), execution)
    second.load_state_dict(load_checkpoint(path))
    run_steps(second)
    assert_same_weights(unbroken, second)


@pytest.mark.parametrize("stop", range(1, TOTAL + 1))
def test_resume_is_exact_from_every_step_the_ends_of_epochs_included(
    stop: int, tmp_path: Path
) -> None:
    unbroken = run_steps(
        TrainingState(make_setup("adam", "cosine", ema=0.9, accumulate=1), Execution())
    )
    first = TrainingState(make_setup("adam", "cosine", ema=0.9, accumulate=1), Execution())
    run_steps(first, stop)
    path = save_checkpoint(tmp_path, first.state_dict(), step=stop)
    second = TrainingState(make_setup("adam", "cosine", ema=0.9, accumulate=1), Execution())
    second.load_state_dict(load_checkpoint(path))
    assert_same_weights(unbroken, run_steps(second))


@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_foreign_dataloader_is_resumed_exactly_by_replaying_its_epoch(
    stop: int, own_generator: bool, tmp_path: Path
) -> None:
    data = TensorDataset(torch.randn(20, 3), torch.randint(0, 2, (20,)))

    def setup() -> Setup:
        generator = torch.Generator().manual_seed(11) if own_generator else None
        return Setup(
            model=lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2)),
            batches=DataLoader(data, batch_size=4, shuffle=True, generator=generator),
            loss=nn.functional.cross_entropy,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            epochs=2,
        )

    unbroken = run_steps(TrainingState(setup(), Execution()))
    first = TrainingState(setup(), Execution())
    run_steps(first, stop)
    path = save_checkpoint(tmp_path, first.state_dict(), step=stop)
    second = TrainingState(setup(), Execution())
    second.load_state_dict(load_checkpoint(path))
    assert_same_weights(unbroken, run_steps(second))


def test_loaded_moments_have_the_layout_of_their_parameter(tmp_path: Path) -> None:
    execution = Execution(layout="channels_last")
    first = TrainingState(make_setup("sgd", "constant", ema=0, accumulate=1), execution)
    run_steps(first, 2)
    path = save_checkpoint(tmp_path, first.state_dict(), step=2)
    second = TrainingState(make_setup("sgd", "constant", ema=0, accumulate=1), execution)
    second.load_state_dict(load_checkpoint(path))
    for parameter, moments in second.optimizer.state.items():
        assert moments["momentum_buffer"].stride() == parameter.stride()
