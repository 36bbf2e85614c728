"""Faults of what a loop keeps: model, optimizer, modes, schedule, the best weights."""

from __future__ import annotations

import copy

import torch
from fault import Fault
from loops import Train, mean_loss
from program import Program
from seeded_regularisation import dropped, few_examples
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR


def optimizer_recreated(program: Program, seed: int, broken: bool) -> Train:
    """A new optimizer for every batch: its averages and its momentum are lost."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                if broken:
                    optimizer = program.make_optimizer(model)
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
        return model

    return train


def optimizer_recreated_per_epoch(program: Program, seed: int, broken: bool) -> Train:
    """A new optimizer for every epoch, with a schedule on the old one."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            if broken:
                optimizer = program.make_optimizer(model)
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                optimizer.step()
        return model

    return train


def model_recreated(program: Program, seed: int, broken: bool) -> Train:
    """Every epoch begins with a new model and a new optimizer."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for epoch in range(program.epochs):
            if broken and epoch:
                model = program.model()
                optimizer = program.make_optimizer(model)
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
        return model

    return train


def model_replaced(program: Program, seed: int, broken: bool) -> Train:
    """A new model is made in the loop; the optimizer goes on with the first one."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        loader = program.loader()
        for epoch in range(program.epochs):
            if broken and epoch == program.epochs // 2:
                model = program.model()
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                optimizer.step()
        return model

    return train


def mode_left(program: Program, seed: int, broken: bool) -> Train:
    """`model.eval()` for the evaluation, and no `model.train()` after it."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        held_out = program.loader(program.data().validation, shuffle=False)
        model.eval()
        mean_loss(program, model, held_out)
        for _ in range(program.epochs):
            if not broken:
                model.train()
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
            model.eval()
            mean_loss(program, model, held_out)
        return model

    return train


def stepped_per_batch(program: Program, seed: int, broken: bool) -> Train:
    """A schedule counted in epochs is stepped after every batch."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        scheduler = StepLR(optimizer, step_size=max(1, 2 * program.epochs // 3), gamma=0.1)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
                if broken:
                    scheduler.step()
            if not broken:
                scheduler.step()
        return model

    return train


def stepped_for_optimizer(program: Program, seed: int, broken: bool) -> Train:
    """`scheduler.step()` stands where `optimizer.step()` was meant."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        scheduler = CosineAnnealingLR(optimizer, T_max=program.epochs)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                if not broken:
                    optimizer.step()
            scheduler.step()
        return model

    return train


def wrong_figure(program: Program, seed: int, broken: bool) -> Train:
    """A plateau of the loss lowers the rate; told the number of the epoch, it sees one at once."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.03)
        held_out = program.loader(program.data().validation, shuffle=False)
        for epoch in range(program.epochs):
            model.train()
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
            model.eval()
            lowest = mean_loss(program, model, held_out)
            scheduler.step(epoch if broken else lowest - epoch)
        return model

    return train


def best_by_reference(program: Program, seed: int, broken: bool) -> Train:
    """The best weights are kept without a copy, and train on."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        held_out = program.loader(program.data().validation, shuffle=False)
        best, lowest = copy.deepcopy(model.state_dict()), float("inf")
        for _ in range(program.epochs):
            model.train()
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
            model.eval()
            current = mean_loss(program, model, held_out)
            if current < lowest:
                lowest = current
                best = model.state_dict() if broken else copy.deepcopy(model.state_dict())
        model.load_state_dict(best)
        return model

    return train


def overfitting(program: Program) -> Program:
    """Few examples seen often: the best weights are not the last."""
    return few_examples(program, count=150, epochs=60)


FAULTS = (
    Fault(
        cause="optimizer_recreated",
        loop=optimizer_recreated,
        loops=("mlp-mnist", "conv-mnist", "gpt-lines", "gru-speech"),
        notes="Adam made anew takes a full step for every weight, whatever the gradient's size",
    ),
    Fault(
        cause="optimizer_recreated",
        loop=optimizer_recreated_per_epoch,
        variant="per-epoch",
        loops=("deep-mlp-mnist", "mlp-housing"),
        notes="plainly wrong, and mostly harmless: the averages come back within an epoch",
    ),
    Fault(
        cause="model_recreated",
        loop=model_recreated,
        loops=("mlp-digits", "mlp-housing", "gru-speech", "dear-houses"),
    ),
    Fault(
        cause="model_recreated",
        loop=model_replaced,
        variant="replaced",
        loops=("conv-mnist", "lstm-oil"),
        also=("optimizer_missing_params",),
        notes="the optimizer holds the parameters of the model that was",
    ),
    Fault(
        cause="eval_mode_in_training",
        loop=mode_left,
        loops=("conv-fashion", "resnet-cifar", "deep-mlp-mnist", "conv-speech"),
        notes="batch norm then never sees a batch's own figures, and its running ones stand still",
    ),
    Fault(
        cause="eval_mode_in_training",
        base=lambda program: overfitting(dropped(program, p=0.3)),
        loop=mode_left,
        variant="dropout",
        loops=("mlp-housing",),
        notes="dropout stays off, and the network overfits",
    ),
    Fault(
        cause="scheduler_misused",
        loop=stepped_per_batch,
        variant="per-batch",
        loops=("mlp-digits", "gru-speech", "autoencoder-fashion"),
    ),
    Fault(
        cause="scheduler_misused",
        loop=stepped_for_optimizer,
        variant="instead",
        loops=("conv-mnist", "lstm-oil"),
        also=("optimizer_step_missing",),
    ),
    Fault(
        cause="scheduler_misused",
        loop=wrong_figure,
        variant="figure",
        loops=("gru-speech", "mlp-housing"),
        also=("lr_too_low",),
        notes="the schedule is given the number of the epoch for the loss",
    ),
    Fault(
        cause="best_state_by_reference",
        base=overfitting,
        loop=best_by_reference,
        loops=("mlp-housing", "counts-molecules", "conv-oil", "lstm-oil", "lstm-shakespeare"),
        notes="a training so long that its best epoch is not its last",
    ),
)
