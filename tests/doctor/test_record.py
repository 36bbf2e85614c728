"""Tests that a recording sees a plain loop as it is, and leaves nothing behind."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.overrides import _get_current_function_mode_stack
from torch.utils.data import DataLoader, TensorDataset

from leadline.core.errors import TrainingError
from leadline.data.idx import read_idx
from leadline.doctor.causes.recorded.signs import signs_of_tape
from leadline.doctor.record import record

PARENT = os.environ.get("LEADLINE_DATA") or Path(__file__).parents[3] / "shared" / "data"
MNIST = Path(PARENT) / "mnist"


def train(data: TensorDataset, *, zero_grad: bool = True, epochs: int = 1) -> nn.Module:
    """A loop as beginners write it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    for _ in range(epochs):
        for inputs, targets in DataLoader(data, batch_size=32, shuffle=True):
            if zero_grad:
                optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
    return model


def small() -> TensorDataset:
    return TensorDataset(torch.rand(128, 1, 28, 28), torch.arange(128) % 10)


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"missing: {MNIST} (set LEADLINE_DATA)")
def test_a_missing_zero_grad_is_proven_on_mnist_and_gone_when_run_again_with_its_remedy() -> None:
    images = torch.from_numpy(read_idx(MNIST / "t10k-images-idx3-ubyte.gz")[:1024]).float() / 255
    labels = torch.from_numpy(read_idx(MNIST / "t10k-labels-idx1-ubyte.gz")[:1024].astype("int64"))
    data = TensorDataset(images[:, None], labels)
    with record() as tape:
        train(data, zero_grad=False)
    (finding,) = [f for f in signs_of_tape(tape) if f.severity == "error"]
    assert (finding.cause, finding.proven) == ("zero_grad_missing", True)
    assert finding.evidence[0].measured == tape.updates - 1 == 31
    assert finding.change is not None and finding.change.rerun is not None
    with record() as healed, finding.change.rerun():
        train(data, zero_grad=False)
    assert not [f for f in signs_of_tape(healed) if f.severity != "note"]
    with record() as sound:
        train(data)
    assert not [f for f in signs_of_tape(sound) if f.severity != "note"]


def test_events_come_in_their_real_order_with_the_objects_they_are_about() -> None:
    with record() as tape:
        train(small())
    kinds = [event.kind for event in tape.events]
    assert kinds[:6] == [
        "optimizer_made",
        "epoch_begun",
        "zero_grad",
        "forward",
        "backward",
        "step",
    ]
    assert kinds[-1] == "epoch_ended" and tape.events[-1]["batches"] == 4
    assert {event.subject for event in tape.events} == {0}
    assert tape.updates == len(tape.losses) == 4


def test_a_recorded_training_ends_with_the_same_weights_as_one_that_is_not() -> None:
    data = small()
    torch.manual_seed(1)
    alone = train(data, epochs=2)
    drawn = torch.get_rng_state()
    torch.manual_seed(1)
    with record():
        recorded = train(data, epochs=2)
    assert torch.equal(drawn, torch.get_rng_state())
    for one, other in zip(alone.parameters(), recorded.parameters(), strict=True):
        assert torch.equal(one, other)


def fixtures() -> tuple[object, ...]:
    """What a recording stands beside, as it is now."""
    places = (
        (nn.Module, "__call__"),
        (nn.Module, "train"),
        (nn.Module, "parameters"),
        (nn.Module, "zero_grad"),
        (nn.Module, "state_dict"),
        (torch.optim.Optimizer, "__init__"),
        (torch.optim.lr_scheduler.StepLR, "__init__"),
        (torch.optim.lr_scheduler.LRScheduler, "step"),
        (torch.autograd, "backward"),
        (nn.utils, "clip_grad_norm_"),
        (torch, "manual_seed"),
        (DataLoader, "__iter__"),
    )
    modes = tuple(_get_current_function_mode_stack())
    hooks = (len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks))
    return (*(getattr(owner, name) for owner, name in places), modes, hooks)


def test_nothing_of_a_recording_is_left_behind() -> None:
    before = fixtures()
    with record():
        train(small())
        assert fixtures() != before
    assert fixtures() == before


def test_an_error_in_the_loop_goes_on_its_way_and_what_was_seen_stays_on_the_tape() -> None:
    before = fixtures()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), record() as tape:
        train(small())
        nn.Linear(3, 2)(torch.ones(1, 4))
    assert isinstance(tape.error, RuntimeError)
    assert tape.updates == 4 and tape.finished
    assert fixtures() == before


def test_a_second_recording_inside_of_the_first_is_refused() -> None:
    with record(), pytest.raises(TrainingError, match="one recording at a time"), record():
        pass
    with record() as tape:
        train(small())
    assert tape.updates == 4


def test_a_second_recording_in_another_thread_is_refused_and_its_loop_goes_unheard() -> None:
    refused: list[BaseException] = []

    def other() -> None:
        try:
            with record():
                pass
        except TrainingError as error:
            refused.append(error)
        train(small())

    with record() as tape:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert tape.events == ()


def test_a_tape_can_be_asked_only_when_it_has_ended() -> None:
    with record() as tape, pytest.raises(TrainingError, match="one under way"):
        tape.setup()


def test_a_diagnosis_is_handed_in_and_called_with_the_tape() -> None:
    with record(diagnose=lambda tape, steps: (tape.updates, steps)) as tape:
        train(small())
    assert tape.diagnose(steps=7) == (4, 7)
    with record() as bare:
        pass
    with pytest.raises(TrainingError, match="without a diagnosis"):
        bare.diagnose()


def test_an_optimizer_with_a_schedule_from_before_the_recording_is_heard_too() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    inputs: Tensor = torch.randn(8, 3)
    with record() as tape:
        for _ in range(3):
            optimizer.zero_grad()
            functional.mse_loss(model(inputs), inputs[:, :1]).backward()
            optimizer.step()
            schedule.step()
    assert [event["lr"][0] for event in tape.of("step")] == [0.1, 0.05, 0.025]
    assert tape.optimizers[0].made is None and tape.schedules[0].optimizer == 0
