"""Tests that loops of every usual style are healthy, and that each cause is named once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from leadline.doctor.causes.recorded.signs import signs_of_tape
from leadline.doctor.record import record

Network = Callable[..., nn.Sequential]
Loader = DataLoader[Any]


def evaluate(model: nn.Module, loader: Loader) -> float:
    model.eval()
    right = 0
    with torch.no_grad():
        for inputs, targets in loader:
            right += int((model(inputs).argmax(dim=1) == targets).sum())
    model.train()
    return right / len(loader.dataset)  # type: ignore[arg-type]


def plain(network: Network, loader: Loader, held_out: Loader) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        evaluate(model, held_out)


def zeros_kept(network: Network, loader: Loader, held_out: Loader) -> None:
    """zero_grad behind the step, gradients as zeros, by the model; two losses."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for inputs, targets in loader:
        outputs = model(inputs)
        functional.cross_entropy(outputs, targets).backward(retain_graph=True)
        (0.01 * outputs.square().mean()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad(set_to_none=False)
    evaluate(model, held_out)


def by_hand(network: Network, loader: Loader, held_out: Loader) -> None:
    """No optimizer at all."""
    model = network()
    for inputs, targets in loader:
        for parameter in model.parameters():
            parameter.grad = None
        functional.cross_entropy(model(inputs), targets).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
    evaluate(model, held_out)


def cleared_by_hand(network: Network, loader: Loader, held_out: Loader) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number, (inputs, targets) in enumerate(loader):
        for parameter in model.parameters():
            if number % 2:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    evaluate(model, held_out)


def closures(network: Network, loader: Loader, held_out: Loader) -> None:
    model = network(norm=False)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    for inputs, targets in loader:

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), targets)  # noqa: B023  # used at once
            loss.backward()
            return loss

        optimizer.step(closure)
    evaluate(model, held_out)


def adversaries(network: Network, loader: Loader, held_out: Loader) -> None:
    maker = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64))
    judge = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
    makes = torch.optim.Adam(maker.parameters(), lr=2e-4)
    judges = torch.optim.Adam(judge.parameters(), lr=2e-4)
    loss = nn.BCEWithLogitsLoss()
    for _ in range(2):
        for inputs, _ in loader:
            ones, zeros = torch.ones(len(inputs), 1), torch.zeros(len(inputs), 1)
            judges.zero_grad()
            loss(judge(inputs), ones).backward()
            made = maker(torch.randn(len(inputs), 8))
            loss(judge(made.detach()), zeros).backward()
            judges.step()
            makes.zero_grad()
            loss(judge(made), ones).backward()
            makes.step()
        maker.eval()
        with torch.no_grad():
            maker(torch.randn(16, 8))
        maker.train()


def critics(network: Network, loader: Loader, held_out: Loader) -> None:
    """Five steps of the critic for one of the generator, which is called without gradients."""
    maker = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64))
    judge = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(), nn.Linear(32, 1))
    makes = torch.optim.RMSprop(maker.parameters(), lr=1e-4)
    judges = torch.optim.RMSprop(judge.parameters(), lr=1e-4)
    for number, (inputs, _) in enumerate(loader):
        judges.zero_grad()
        with torch.no_grad():
            made = maker(torch.randn(len(inputs), 8))
        (judge(made).mean() - judge(inputs).mean()).backward()
        judges.step()
        if number % 5 == 4:
            makes.zero_grad()
            (-judge(maker(torch.randn(len(inputs), 8))).mean()).backward()
            makes.step()


def accumulated(network: Network, loader: Loader, held_out: Loader) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number, (inputs, targets) in enumerate(loader, start=1):
        loss = functional.cross_entropy(model(inputs), targets) / 4
        loss.backward()
        if number % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
    evaluate(model, held_out)


def narrow(network: Network, loader: Loader, held_out: Loader) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    for inputs, targets in loader:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = functional.cross_entropy(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    evaluate(model, held_out)


def averaged(network: Network, loader: Loader, held_out: Loader) -> None:
    model = network()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for inputs, targets in loader:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        average.update_parameters(model)
    evaluate(average, held_out)


def warmed_up(network: Network, loader: Loader, held_out: Loader) -> None:
    """A schedule per step, of two parts."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    total = 3 * len(loader)
    schedules = torch.optim.lr_scheduler
    schedule = schedules.SequentialLR(
        optimizer,
        [
            schedules.LinearLR(optimizer, 0.01, total_iters=5),
            schedules.CosineAnnealingLR(optimizer, total - 5),
        ],
        milestones=[5],
    )
    for _ in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            schedule.step()
        evaluate(model, held_out)


def one_cycle(network: Network, loader: Loader, held_out: Loader) -> None:
    """A cycle per step, and an evaluation every 10 steps in the middle of the epoch."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=2 * len(loader))
    number = 0
    for _ in range(2):
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            schedule.step()
            number += 1
            if number % 10 == 0:
                evaluate(model, held_out)


def stopped_early(network: Network, loader: Loader, held_out: Loader) -> None:
    """The best weights are copied and loaded; a plateau lowers the rate."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    best, state = -1.0, None
    for _ in range(4):
        for inputs, targets in loader:
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        now = evaluate(model, held_out)
        schedule.step(1 - now)
        if now > best:
            best, state = now, copy.deepcopy(model.state_dict())
    assert state is not None
    model.load_state_dict(state)
    evaluate(model, held_out)


def folds(network: Network, loader: Loader, held_out: Loader) -> None:
    """Three models for three splits."""
    data = loader.dataset
    for fold in range(3):
        rows = [i for i in range(512) if i % 3 != fold]
        rest = [i for i in range(512) if i % 3 == fold]
        training = DataLoader(torch.utils.data.Subset(data, rows), batch_size=32, shuffle=True)
        testing = DataLoader(torch.utils.data.Subset(data, rest), batch_size=64)
        plain(network, training, testing)


def tuned(network: Network, loader: Loader, held_out: Loader) -> None:
    """First the head, then everything at a lower rate."""
    model = network()
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(model[4].parameters(), lr=0.01)
    for p in model[1].parameters():
        p.requires_grad_(False)
    for stage in range(2):
        if stage:
            model.requires_grad_(True)
            optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        evaluate(model, held_out)


def whole_batch(network: Network, loader: Loader, held_out: Loader) -> None:
    """Regression on one batch, no loader, a figure of the held-out part at each step."""
    inputs = torch.randn(64, 64)
    wanted = inputs[:, :1] - inputs[:, 1:2]
    model = network(1, norm=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        model.train()
        optimizer.zero_grad()
        functional.mse_loss(model(inputs[:48]), wanted[:48]).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            functional.mse_loss(model(inputs[48:]), wanted[48:])


def distilled(network: Network, loader: Loader, held_out: Loader) -> None:
    """A teacher without gradients, a student that learns from it, and a running teacher."""
    teacher, student = network().eval(), network()
    momentum = copy.deepcopy(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for inputs, _ in loader:
        with torch.no_grad():
            wanted = teacher(inputs).softmax(dim=1) + momentum(inputs).softmax(dim=1)
        optimizer.zero_grad()
        functional.mse_loss(student(inputs), wanted).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(momentum.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
    evaluate(student, held_out)


def labelled_yes_or_no(network: Network, loader: Loader, held_out: Loader) -> None:
    """Probabilities against 0.5, the logits against 0."""
    model = network(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, targets in loader:
        optimizer.zero_grad()
        outputs = model(inputs).squeeze(1)
        wanted = (targets > 4).float()
        functional.binary_cross_entropy_with_logits(outputs, wanted).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for inputs, _ in held_out:
            outputs = model(inputs).squeeze(1)
            assert torch.equal(outputs.sigmoid() > 0.5, outputs > 0)


STYLES = [
    plain,
    zeros_kept,
    by_hand,
    cleared_by_hand,
    closures,
    adversaries,
    critics,
    accumulated,
    narrow,
    averaged,
    warmed_up,
    one_cycle,
    stopped_early,
    folds,
    tuned,
    whole_batch,
    distilled,
    labelled_yes_or_no,
]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
def test_a_healthy_loop_of_any_style_has_nothing_but_notes(
    style: Callable[..., None],
    network: Network,
    loader: Loader,
    held_out: Loader,
    verdict: Callable[..., list[str]],
) -> None:
    assert verdict(lambda: style(network, loader, held_out)) == []


def test_each_cause_is_named_once_and_the_worst_comes_first(
    network: Network, loader: Loader
) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with record() as tape:
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        assert schedule.last_epoch == 0
        for inputs, targets in batches(loader):
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    found = signs_of_tape(tape)
    assert [f.cause for f in found] == ["zero_grad_missing", "scheduler_misused"]
    assert [f.severity for f in found] == ["error", "warning"]


def batches(loader: Loader) -> Iterator[Any]:
    yield from loader


def test_a_training_of_many_epochs_on_augmented_examples_is_healthy(
    network: Network, digits: tuple[Tensor, Tensor], verdict: Callable[..., list[str]]
) -> None:
    class Noisy(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            image, label = super().__getitem__(index)
            return image + 0.1 * torch.randn(64), label

    training = DataLoader(Noisy(*(t[:256] for t in digits)), batch_size=32, shuffle=True)
    testing = DataLoader(TensorDataset(*(t[512:] for t in digits)), batch_size=64)
    assert verdict(lambda: plain(network, training, testing)) == []
