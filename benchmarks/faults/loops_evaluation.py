"""Faults of the evaluation: none, on seen examples, of the wrong numbers, in the wrong mode."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from fault import Fault
from healthy_data import Material
from loops import Train, keeping_the_best, mean_loss, plain
from program import Program
from seeded_regularisation import few_examples
from torch import nn

from data import Examples


def overfitting(program: Program) -> Program:
    """Few examples seen often: somebody had to look when to stop."""
    return few_examples(program, count=150, epochs=60)


def unwatched(program: Program) -> Program:
    """No validation."""
    return program.but(validated=False)


def stopped_in_time(program: Program) -> Program:
    """With a validation, and as many epochs as it asks for."""
    return program.but(validated=True, epochs=max(1, program.epochs // 8))


def validation_missing(program: Program, seed: int, broken: bool) -> Train:
    """Trains to the end without looking; the twin keeps the best weights by held-out data."""
    return plain(program, seed) if broken else keeping_the_best(program, seed)


def validation_in_training(program: Program) -> Program:
    """The validation examples are among those that are trained on."""

    def data() -> Material:
        material = program.data()
        parts = (material.train, material.validation)
        train = Examples(
            inputs=torch.cat([part.inputs for part in parts]),
            targets=torch.cat([part.targets for part in parts]),
        )
        return replace(material, train=train)

    return program.but(data=data)


def training_as_validation(program: Program) -> Program:
    """Examples drawn from the training part are called validation."""

    def data() -> Material:
        material = program.data()
        count = len(material.validation)
        draw = torch.Generator().manual_seed(1)
        drawn = torch.randperm(len(material.train), generator=draw)[:count]
        return replace(material, validation=material.train[drawn])

    return program.but(data=data)


def share_right(
    model: nn.Module, loader: Iterable[Any], *, threshold: float, rounded: bool = False
) -> float:
    """The share of right answers: yes is above `threshold`, or what rounds to 1."""
    right = count = 0
    with torch.no_grad():
        for inputs, targets in loader:
            outputs = model(inputs)
            answers = outputs.round() if rounded else (outputs > threshold).float()
            right += (answers == targets).sum().item()
            count += targets.numel()
    return right / count


def metric_on_logits(program: Program, seed: int, broken: bool, *, rounded: bool = False) -> Train:
    """Logits are held against 0.5, a threshold of probabilities; the best by it is kept."""

    def train() -> nn.Module:
        torch.manual_seed(seed)
        model = program.model()
        optimizer = program.make_optimizer(model)
        held_out = program.loader(program.data().validation, shuffle=False)
        best, highest = copy.deepcopy(model.state_dict()), 0.0
        for _ in range(program.epochs):
            model.train()
            for inputs, targets in program.loader():
                optimizer.zero_grad()
                program.loss(model(inputs), targets).backward()
                optimizer.step()
            model.eval()
            current = (
                share_right(model, held_out, threshold=0.5, rounded=rounded)
                if broken
                else share_right(model, held_out, threshold=0.0)
            )
            if current > highest:
                best, highest = copy.deepcopy(model.state_dict()), current
        model.load_state_dict(best)
        return model

    return train


def train_mode_in_evaluation(program: Program, seed: int, broken: bool) -> Train:
    """No `model.eval()`: dropout draws, and batch norm learns from the held-out data."""

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
            if not broken:
                model.eval()
            current = mean_loss(program, model, held_out)
            if current < lowest:
                best, lowest = copy.deepcopy(model.state_dict()), current
        model.load_state_dict(best)
        return model

    return train


FAULTS = (
    Fault(
        cause="validation_missing",
        base=partial(few_examples, count=150, epochs=200),
        broken=unwatched,
        fixed=stopped_in_time,
        setups=("mlp-housing", "counts-molecules"),
        also=("reg_missing",),
        notes="overfits, and nothing is held out to see it",
    ),
    Fault(
        cause="validation_missing",
        base=overfitting,
        loop=validation_missing,
        variant="loop",
        loops=("mlp-housing", "conv-oil", "lstm-oil", "lstm-shakespeare"),
        also=("reg_missing",),
    ),
    Fault(
        cause="validation_leak",
        broken=validation_in_training,
        setups=("mlp-digits", "lstm-oil"),
        loops=("mlp-mnist", "gru-speech"),
        notes="the model is no worse; what is said of it is",
    ),
    Fault(
        cause="validation_leak",
        broken=training_as_validation,
        variant="drawn",
        setups=("conv-speech", "lstm-reviews"),
        loops=("mlp-housing",),
    ),
    Fault(
        cause="metric_on_logits",
        loop=metric_on_logits,
        loops=("dear-houses", "gru-reviews", "pairs-of-digits"),
        notes="the model is hardly worse; what is said of it is",
    ),
    Fault(
        cause="metric_on_logits",
        loop=partial(metric_on_logits, rounded=True),
        variant="rounded",
        loops=("segmenter-membrane", "dear-houses"),
    ),
    Fault(
        cause="train_mode_in_evaluation",
        loop=train_mode_in_evaluation,
        loops=("conv-fashion", "lstm-reviews", "deep-mlp-mnist", "conv-speech", "dear-houses"),
        notes="the model is hardly worse; what is said of it is",
    ),
)
