"""Tests that a recorded training can be started again as a Setup, and why not where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from leadline.core.errors import TrainingError
from leadline.doctor.record import record
from leadline.doctor.recording.tape import Tape
from leadline.training.execution import Execution
from leadline.training.loop import steps

Digits = tuple[Tensor, Tensor]
Written = Callable[[nn.Module, Tensor, Tensor], Tensor]


def network(outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, outputs))


def run(
    digits: Digits,
    written: Written,
    *,
    outputs: int = 10,
    epochs: int = 2,
    optimizer: Callable[..., Any] = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
) -> Tape:
    """A sound loop with a loss as the user wrote it, recorded."""
    loader = DataLoader(TensorDataset(*digits), batch_size=64)
    with record() as tape:
        model = network(outputs)
        updates = optimizer(model.parameters())
        for _ in range(epochs):
            for inputs, targets in loader:
                updates.zero_grad()
                written(model, inputs, targets).backward()
                updates.step()
    return tape


WEIGHT = torch.linspace(0.5, 1.5, 10)

LOSSES: dict[str, Written] = {
    "a module": lambda model, x, y: nn.CrossEntropyLoss(label_smoothing=0.1)(model(x), y),
    "a function with keywords": lambda model, x, y: functional.cross_entropy(
        model(x), y, weight=WEIGHT, reduction="sum"
    ),
    "indices by hand": lambda model, x, y: (
        -model(x).log_softmax(dim=1)[torch.arange(len(y)), y].mean()
    ),
    "one-hot by hand": lambda model, x, y: (
        (model(x) - functional.one_hot(y, 10).float()).pow(2).sum() / x.size(0)
    ),
    "in place": lambda model, x, y: in_place(model(x), y),
    "two parts": lambda model, x, y: two_parts(model(x), y),
    "the input itself": lambda model, x, y: functional.mse_loss(model(x)[:, :8], x[:, :8]),
}


def in_place(outputs: Tensor, targets: Tensor) -> Tensor:
    loss = functional.cross_entropy(outputs, targets)
    loss += 0.01 * outputs.square().mean()
    loss *= 2
    return loss


def two_parts(outputs: Tensor, targets: Tensor) -> Tensor:
    even = functional.binary_cross_entropy_with_logits(outputs[:, 0], (targets % 2 == 0).float())
    return functional.cross_entropy(outputs, targets) + even


@pytest.mark.parametrize("name", LOSSES)
def test_the_setup_trains_as_the_recorded_loop_did(digits: Digits, name: str) -> None:
    tape = run(digits, LOSSES[name])
    setup = tape.setup()
    assert (len(setup.batches), setup.epochs) == (5, 2)  # type: ignore[arg-type]
    again = [float(step.loss) for step in steps(setup, Execution())]
    assert again == pytest.approx(tape.losses, rel=1e-4)


def test_a_shorter_batch_is_divided_by_its_own_length(digits: Digits) -> None:
    short = digits[0][:150], digits[1][:150]
    tape = run(short, LOSSES["one-hot by hand"], epochs=1)
    setup = tape.setup()
    assert [len(inputs) for inputs, _ in setup.batches] == [64, 64, 22]
    again = [float(step.loss) for step in steps(setup, Execution())]
    assert again == pytest.approx(tape.losses, rel=1e-4)


def test_targets_are_found_without_a_loader_too(digits: Digits) -> None:
    images, labels = digits[0], (digits[1] > 4).float()
    with record() as tape:
        model = network(1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
        for _ in range(3):
            for start in range(0, 320, 80):
                optimizer.zero_grad()
                outputs = model(images[start : start + 80]).squeeze(1)
                wanted = labels[start : start + 80]
                functional.binary_cross_entropy_with_logits(outputs, wanted).backward()
                optimizer.step()
    setup = tape.setup()
    assert (len(setup.batches), setup.epochs) == (4, 3)  # type: ignore[arg-type]
    again = [float(step.loss) for step in steps(setup, Execution())]
    assert again == pytest.approx(tape.losses, rel=1e-4)


def test_weights_that_a_remedy_puts_in_are_trained_too(digits: Digits) -> None:
    setup = run(digits, LOSSES["a module"]).setup()
    fresh = setup.model()
    assert isinstance(fresh, nn.Sequential)
    wider = nn.Sequential(nn.Sequential(nn.Linear(64, 64), fresh[0]), *fresh[1:])
    (group,) = setup.optimizer(wider).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in wider.parameters()}


def test_groups_settings_and_schedule_are_those_of_the_recording(digits: Digits) -> None:
    loader = DataLoader(TensorDataset(*digits), batch_size=64)
    with record() as tape:
        torch.manual_seed(5)
        model = network()
        groups = [
            {"params": [*model[0].parameters()], "lr": 0.2},
            {"params": [*model[2].parameters()], "weight_decay": 0.3},
        ]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.5, nesterov=True)
        warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4))
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            warm.step()
    setup = tape.setup()
    assert (setup.clip_grad, setup.seed) == (0.5, 5)
    fresh = setup.model()
    made = setup.optimizer(fresh)
    assert [(g["lr"], g["weight_decay"], g["nesterov"]) for g in made.param_groups] == [
        (0.2, 0, True),
        (0.1, 0.3, True),
    ]
    assert [p.shape for p in made.param_groups[0]["params"]] == [(16, 64), (16,)]
    again = [float(step.loss) for step in steps(setup, Execution())]
    assert again == pytest.approx(tape.losses, rel=1e-4)


def test_accumulated_batches_stay_one_step(digits: Digits) -> None:
    loader = DataLoader(TensorDataset(*digits), batch_size=40)
    with record() as tape:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for number, (inputs, targets) in enumerate(loader, start=1):
            loss = functional.cross_entropy(model(inputs), targets) / 4
            loss.backward()
            if number % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
    setup = tape.setup()
    assert setup.accumulate == 4
    again = [float(step.loss) for step in steps(setup, Execution())]
    assert again == pytest.approx([sum(tape.losses[:4]), sum(tape.losses[4:])], rel=1e-4)


def test_the_batches_of_an_evaluation_become_the_validation(digits: Digits) -> None:
    images, labels = digits
    training = DataLoader(TensorDataset(images[:256], labels[:256]), batch_size=64)
    held_out = DataLoader(TensorDataset(images[256:], labels[256:]), batch_size=32)
    with record() as tape:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            model.train()
            for inputs, targets in training:
                optimizer.zero_grad()
                functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for inputs, targets in held_out:
                    (model(inputs).argmax(dim=1) == targets).float().mean()
    validation = list(tape.setup().validation or ())
    assert torch.equal(torch.cat([inputs for inputs, _ in validation]), images[256:])
    assert torch.equal(torch.cat([targets for _, targets in validation]), labels[256:])


REFUSED: dict[str, tuple[Written, str]] = {
    "weights in the loss": (
        lambda model, x, y: (
            functional.cross_entropy(model(x), y)
            + 0.01 * sum(p.square().sum() for p in model.parameters())  # type: ignore[operator]
        ),
        "the model's weights themselves",
    ),
    "two passes": (
        lambda model, x, y: functional.mse_loss(model(x), model(x + 0.1)),
        "2 calls of models at once",
    ),
    "chance in the loss": (
        lambda model, x, y: functional.cross_entropy(
            functional.dropout(model(x), 0.5, training=True), y
        ),
        "computed again it is",
    ),
    "no target": (lambda model, x, y: model(x).square().mean(), "no target"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_rebuilt_is_said_plainly(digits: Digits, name: str) -> None:
    written, reason = REFUSED[name]
    tape = run(digits, written)
    with pytest.raises(TrainingError, match=reason):
        tape.setup()


def test_a_loop_without_a_backward_pass_is_no_training() -> None:
    with record() as tape:
        network()(torch.ones(2, 64))
    with pytest.raises(TrainingError, match="no backward pass at all"):
        tape.setup()
