"""Healthy training loops in plain PyTorch, as users write them: the controls of the loop's faults.

Each takes a program and a seed and gives a function without arguments that trains and returns the
model. They differ in what else a loop does: evaluate, schedule, accumulate, clip, keep the best.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from program import Program
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader

Train = Callable[[], nn.Module]


def mean_loss(program: Program, model: nn.Module, loader: DataLoader[Any]) -> float:
    """The mean over the batches of a loader, without touching the mode the model is in."""
    with torch.no_grad():
        losses = [program.loss(model(inputs), targets).item() for inputs, targets in loader]
    return sum(losses) / len(losses)


def plain(program: Program, seed: int) -> Train:
    """Forward, backward, step, and nothing else."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        loader = program.loader()
        for _ in range(program.epochs):
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                if program.clip_grad:
                    nn.utils.clip_grad_norm_(model.parameters(), program.clip_grad)
                optimizer.step()
        return model

    return train


def zeroing_last(program: Program, seed: int) -> Train:
    """The gradient is cleared after the step, which is as good as before the forward pass."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            total = 0.0
            for inputs, targets in program.loader():
                loss = program.loss(model(inputs), targets)
                loss.backward()
                optimizer.step()
                model.zero_grad(set_to_none=True)
                total += loss.item()
        return model

    return train


def evaluating(program: Program, seed: int) -> Train:
    """After every epoch the loss on held-out data, in evaluation mode."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        loader = program.loader()
        held_out = program.loader(program.data().validation, shuffle=False)
        for _ in range(program.epochs):
            model.train()
            for inputs, targets in loader:
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                if program.clip_grad:
                    nn.utils.clip_grad_norm_(model.parameters(), program.clip_grad)
                optimizer.step()
            model.eval()
            mean_loss(program, model, held_out)
        return model

    return train


def keeping_the_best(program: Program, seed: int) -> Train:
    """A copy of the weights with the lowest loss on held-out data is what is returned."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        loader = program.loader()
        held_out = program.loader(program.data().validation, shuffle=False)
        best, lowest = copy.deepcopy(model.state_dict()), float("inf")
        for _ in range(program.epochs):
            model.train()
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                optimizer.step()
            model.eval()
            current = mean_loss(program, model, held_out)
            if current < lowest:
                best, lowest = copy.deepcopy(model.state_dict()), current
        model.load_state_dict(best)
        return model

    return train


def stopping_early(program: Program, seed: int) -> Train:
    """Ends when the loss on held-out data has not fallen for three epochs."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        held_out = program.loader(program.data().validation, shuffle=False)
        best, lowest, waited = copy.deepcopy(model.state_dict()), float("inf"), 0
        for _ in range(program.epochs):
            model.train()
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
            model.eval()
            current = mean_loss(program, model, held_out)
            if current < lowest:
                best, lowest, waited = copy.deepcopy(model.state_dict()), current, 0
            else:
                waited += 1
            if waited == 3:
                break
        model.load_state_dict(best)
        return model

    return train


def scheduled_per_epoch(program: Program, seed: int) -> Train:
    """A schedule counted in epochs, stepped once per epoch."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        scheduler = CosineAnnealingLR(optimizer, T_max=program.epochs)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
            scheduler.step()
        return model

    return train


def dropping_late(program: Program, seed: int) -> Train:
    """A tenth of the rate for the last third of the epochs."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        scheduler = StepLR(optimizer, step_size=max(1, 2 * program.epochs // 3), gamma=0.1)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                loss = program.loss(model(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            scheduler.step()
        return model

    return train


def scheduled_per_batch(program: Program, seed: int) -> Train:
    """A schedule counted in steps, stepped after every step."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        loader = program.loader()
        scheduler = OneCycleLR(
            optimizer,
            max_lr=program.settings["lr"],
            epochs=program.epochs,
            steps_per_epoch=len(loader),
        )
        for _ in range(program.epochs):
            for inputs, targets in loader:
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
                scheduler.step()
        return model

    return train


def accumulating(program: Program, seed: int) -> Train:
    """Four batches per step, each loss divided by four."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        loader = program.but(batch_size=max(1, program.batch_size // 4)).loader()
        optimizer.zero_grad()
        for _ in range(program.epochs):
            for i, (inputs, targets) in enumerate(loader):
                loss = program.loss(model(inputs), targets) / 4
                loss.backward()
                if (i + 1) % 4 == 0 or i + 1 == len(loader):
                    optimizer.step()
                    optimizer.zero_grad()
        return model

    return train


def clipping(program: Program, seed: int) -> Train:
    """The gradient's norm is held below 1, between backward and step."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            model.train()
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
                optimizer.step()
        return model

    return train


def autocasting(program: Program, seed: int) -> Train:
    """Forward in bfloat16 where that is safe, weights and loss in float32."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    outputs = model(inputs)
                loss = program.loss(outputs.float(), targets)
                loss.backward()
                optimizer.step()
        return model

    return train


def averaging(program: Program, seed: int) -> Train:
    """A running average of the weights is kept, and returned."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.95), use_buffers=True
        )
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
                average.update_parameters(model)
        return average.module

    return train


def in_groups(program: Program, seed: int) -> Train:
    """Weight decay on matrices only; the rest is a group of its own."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
            lr=program.settings["lr"],
        )
        loss_of: Callable[[Any, Any], Tensor] = program.loss
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                loss = loss_of(model(inputs), targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        return model

    return train


LOOPS: tuple[tuple[Callable[[Program, int], Train], tuple[str, ...]], ...] = (
    (plain, ("mlp-digits", "mlp-housing", "gpt-lines")),
    (zeroing_last, ("keras-mnist", "conv-oil")),
    (evaluating, ("conv-fashion", "lstm-reviews")),
    (keeping_the_best, ("mlp-mnist", "gru-speech")),
    (stopping_early, ("dear-houses", "counts-molecules")),
    (scheduled_per_epoch, ("deep-mlp-mnist", "autoencoder-fashion")),
    (dropping_late, ("conv-mnist", "conv-speech")),
    (scheduled_per_batch, ("mlp-mnist", "pairs-of-digits")),
    (accumulating, ("mlp-mnist", "lstm-oil")),
    (clipping, ("lstm-shakespeare", "gru-molecules")),
    (autocasting, ("mlp-housing", "segmenter-membrane")),
    (averaging, ("conv-speech", "mlp-digits")),
    (in_groups, ("conv-shakespeare", "gru-reviews")),
)
"""Which loop is run on which recipes."""
