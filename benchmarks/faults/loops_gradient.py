"""Faults between backward and step: gradients not cleared, cleared too early, cut, or summed.

Every loop takes whether the fault is in it; without it, it is healthy.
"""

from __future__ import annotations

from functools import partial

import torch
from fault import Fault
from loops import Train, mean_loss
from program import Program
from seeded_loss import with_sgd
from torch import nn
from torch.nn.utils import clip_grad_norm_


def zero_grad_missing(program: Program, seed: int, broken: bool) -> Train:
    """The gradients of all steps so far add up."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                if not broken:
                    optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                optimizer.step()
        return model

    return train


def zero_grad_per_epoch(program: Program, seed: int, broken: bool) -> Train:
    """The gradients are cleared once per epoch."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        held_out = program.loader(program.data().validation, shuffle=False)
        for _ in range(program.epochs):
            model.train()
            if broken:
                optimizer.zero_grad()
            for inputs, targets in program.loader():
                if not broken:
                    optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                optimizer.step()
            model.eval()
            mean_loss(program, model, held_out)
        return model

    return train


def zero_grad_misplaced(program: Program, seed: int, broken: bool) -> Train:
    """The gradients are cleared between backward and step: the step finds none."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                loss = program.loss(model(inputs), targets)
                if broken:
                    loss.backward()
                    optimizer.zero_grad()
                else:
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
        return model

    return train


def model_zeroed_late(program: Program, seed: int, broken: bool) -> Train:
    """`model.zero_grad()` after backward, for a smaller gradient in memory."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        loader = program.loader()
        for _ in range(program.epochs):
            for inputs, targets in loader:
                outputs = model(inputs)
                program.loss(outputs, targets).backward()
                if broken:
                    model.zero_grad(set_to_none=False)
                optimizer.step()
                if not broken:
                    model.zero_grad(set_to_none=False)
        return model

    return train


def step_missing(program: Program, seed: int, broken: bool) -> Train:
    """Backward, and no step."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            total = 0.0
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                if not broken:
                    optimizer.step()
                total += loss.item()
        return model

    return train


def step_per_epoch(program: Program, seed: int, broken: bool) -> Train:
    """The step has slipped out of the loop over the batches."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                loss = program.loss(model(inputs), targets)
                loss.backward()
                if not broken:
                    optimizer.step()
            if broken:
                optimizer.step()
        return model

    return train


def clipped_before_backward(program: Program, seed: int, broken: bool) -> Train:
    """The gradient is clipped before it is there."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                optimizer.zero_grad(set_to_none=False)
                loss = program.loss(model(inputs), targets)
                if broken:
                    clip_grad_norm_(model.parameters(), 0.1)
                    loss.backward()
                else:
                    loss.backward()
                    clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
        return model

    return train


def clipped_after_step(program: Program, seed: int, broken: bool) -> Train:
    """The gradient is clipped when it has been used."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        for _ in range(program.epochs):
            for inputs, targets in program.loader():
                loss = program.loss(model(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                if not broken:
                    clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                if broken:
                    clip_grad_norm_(model.parameters(), 0.1)
        return model

    return train


def accumulated(program: Program, seed: int, broken: bool) -> Train:
    """Sixteen batches per step; their losses are added, where their mean was meant."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        loader = program.but(batch_size=max(1, program.batch_size // 16)).loader()
        optimizer.zero_grad()
        for _ in range(program.epochs):
            for i, (inputs, targets) in enumerate(loader):
                loss = program.loss(model(inputs), targets)
                if not broken:
                    loss = loss / 16
                loss.backward()
                if (i + 1) % 16 == 0:
                    optimizer.step()
                    optimizer.zero_grad()
        return model

    return train


def steep(program: Program) -> Program:
    """Plain gradient descent at a rate that asks for clipping: no step is longer than 0.1."""
    return with_sgd(program, lr=1.0).set(momentum=0.0)


FAULTS = (
    Fault(
        cause="zero_grad_missing",
        loop=zero_grad_missing,
        loops=("mlp-mnist", "conv-mnist", "lstm-oil", "dear-houses", "lstm-shakespeare"),
    ),
    Fault(
        cause="zero_grad_missing",
        loop=zero_grad_per_epoch,
        variant="per-epoch",
        loops=("mlp-mnist", "mlp-housing"),
    ),
    Fault(
        cause="zero_grad_misplaced",
        loop=zero_grad_misplaced,
        loops=("mlp-digits", "conv-speech", "mlp-housing"),
    ),
    Fault(
        cause="zero_grad_misplaced",
        loop=model_zeroed_late,
        variant="model",
        loops=("keras-mnist", "gru-speech", "counts-molecules"),
    ),
    Fault(
        cause="optimizer_step_missing",
        loop=step_missing,
        loops=("mlp-digits", "conv-mnist", "lstm-oil", "gru-reviews"),
    ),
    Fault(
        cause="optimizer_step_missing",
        loop=step_per_epoch,
        variant="per-epoch",
        loops=("mlp-mnist", "mlp-housing"),
        also=("epochs_too_few",),
        notes="a step per epoch, outside of the loop over the batches",
    ),
    Fault(
        cause="clip_misplaced",
        base=steep,
        loop=clipped_before_backward,
        loops=("mlp-mnist", "lstm-oil", "conv-mnist"),
        notes="at a rate that learns with clipping only",
    ),
    Fault(
        cause="clip_misplaced",
        base=steep,
        loop=clipped_after_step,
        variant="after",
        loops=("mlp-housing", "conv-oil", "counts-molecules"),
    ),
    Fault(
        cause="accumulation_not_scaled",
        base=partial(with_sgd, lr=0.03),
        loop=accumulated,
        loops=("mlp-mnist", "conv-mnist", "mlp-housing", "conv-oil", "mlp-digits"),
        also=("lr_too_high",),
        notes="with gradient descent: Adam does not feel a factor of the loss",
    ),
)
