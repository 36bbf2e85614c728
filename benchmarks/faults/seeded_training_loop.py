"""Faults around the optimizer that a Setup shows: what it holds, what reaches it, the schedule."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from fault import Fault
from healthy_models import PackedReader
from healthy_text import WORDS
from program import Program
from seeded_loss import with_sgd
from surgery import Detach, change_head, head_name, within
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler, StepLR


def weights_frozen(program: Program) -> Program:
    """`requires_grad = False` for every matrix: only biases and norms learn."""

    def frozen(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if "weight" in name and parameter.ndim > 1:
                parameter.requires_grad = False

    return within(program, frozen)


def body_frozen(program: Program) -> Program:
    """All but the last layer is frozen, as for a pretrained model; this one is not."""

    def frozen(model: nn.Module) -> None:
        head = head_name(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.startswith(head)

    return within(program, frozen)


def head_only(model: nn.Module) -> Iterable[Any]:
    """The parameters of the last layer."""
    return model.get_submodule(head_name(model)).parameters()


def all_but_head(model: nn.Module) -> Iterable[Any]:
    """The parameters of every layer but the last."""
    head = head_name(model)
    return [p for name, p in model.named_parameters() if not name.startswith(head)]


def biases(model: nn.Module) -> Iterable[Any]:
    """What a wrong filter by name leaves: no weights."""
    return [p for name, p in model.named_parameters() if "bias" in name]


def of_another_model(program: Program) -> Program:
    """The optimizer is made on the parameters of another copy of the model."""
    return program.but(held=lambda model: list(program.model().parameters()))


def holding(program: Program, *, which: Any) -> Program:
    """The optimizer is given a part of the parameters."""
    return program.but(held=which)


def sign_flipped(program: Program) -> Program:
    """The loss with a minus before it, as of a reward."""
    return program.but(loss=lambda outputs, targets: -program.loss(outputs, targets))


def maximised(program: Program) -> Program:
    """`maximize=True`."""
    return program.set(maximize=True)


def detached(program: Program) -> Program:
    """`.detach()` before the last layer: nothing before it learns."""
    return change_head(program, lambda layer: nn.Sequential(Detach(), layer))


class OutputsAsData(nn.Module):
    """A model whose outputs are taken as data; a factor behind them goes on learning."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            outputs = self.model(inputs)
        return self.scale * outputs


def outputs_cut(program: Program) -> Program:
    """The model is called under `no_grad`, and one factor behind it goes on learning."""
    return within(program, OutputsAsData)


class Listed(nn.Module):
    """Its layers but the last stand in a Python list, where no optimizer finds them."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.layers = list(model[:-1])
        self.head = model[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = layer(inputs)
        return self.head(inputs)


class ListedReader(PackedReader):
    """Its recurrent network stands in a dictionary."""

    def __init__(self, **choices: Any) -> None:
        super().__init__(**choices)
        parts = {"cell": self.cell, "embedding": self.embedding}
        del self.cell, self.embedding
        self.__dict__.update(parts)
        self.parts = parts


def unregistered(program: Program) -> Program:
    """Hidden layers that are no parameters of the model."""
    return within(program, Listed)


def unregistered_reader(program: Program) -> Program:
    """A recurrent network and an embedding that are no parameters of the model."""
    return program.but(model=partial(ListedReader, symbols=WORDS + 1, width=32, outputs=2))


def clipped(program: Program, *, norm: float) -> Program:
    """The gradient's norm is held below `norm`."""
    return program.but(clip_grad=norm)


def dropping_per_step(optimizer: Optimizer, total: int) -> LRScheduler:
    """Meant: a tenth after 3 epochs. Counted: after 3 steps."""
    return StepLR(optimizer, step_size=3, gamma=0.1)


def fading_per_step(optimizer: Optimizer, total: int) -> LRScheduler:
    """Meant: nine tenths per epoch. Counted: per step."""
    return ExponentialLR(optimizer, gamma=0.8)


def ending_early(optimizer: Optimizer, total: int) -> LRScheduler:
    """A cosine over the number of epochs, counted in steps, that stays at its end."""

    class Ended(CosineAnnealingLR):
        def step(self, *given: Any) -> None:
            if self.last_epoch < self.T_max:
                super().step(*given)

    return Ended(optimizer, T_max=6)


def scheduled(program: Program, *, schedule: Any) -> Program:
    """With a schedule whose unit is not the loop's."""
    return program.but(schedule=schedule)


FAULTS = (
    Fault(
        cause="params_frozen",
        broken=weights_frozen,
        setups=("mlp-digits", "conv-mnist", "gru-speech"),
        loops=("mlp-housing",),
    ),
    Fault(
        cause="params_frozen",
        broken=body_frozen,
        variant="body",
        setups=("gru-speech", "conv-fashion"),
        loops=("autoencoder-fashion",),
    ),
    Fault(
        cause="optimizer_missing_params",
        broken=partial(holding, which=head_only),
        setups=("conv-fashion", "autoencoder-fashion"),
        loops=("gru-speech",),
    ),
    Fault(
        cause="optimizer_missing_params",
        broken=partial(holding, which=biases),
        variant="biases",
        setups=("mlp-digits",),
        loops=("mlp-housing",),
    ),
    Fault(
        cause="optimizer_missing_params",
        broken=of_another_model,
        variant="other",
        setups=("conv-mnist",),
        loops=("mlp-mnist",),
    ),
    Fault(
        cause="gradient_sign_flipped",
        broken=sign_flipped,
        setups=("mlp-digits", "mlp-housing", "lstm-shakespeare"),
        loops=("conv-mnist", "dear-houses"),
    ),
    Fault(
        cause="gradient_sign_flipped",
        broken=maximised,
        variant="maximize",
        setups=("gru-speech",),
        loops=("mlp-mnist",),
    ),
    Fault(
        cause="graph_cut",
        broken=detached,
        setups=("autoencoder-fashion", "conv-fashion", "mlp-housing"),
        loops=("gru-speech",),
    ),
    Fault(
        cause="graph_cut",
        broken=outputs_cut,
        variant="outputs",
        setups=("mlp-digits",),
        loops=("lstm-oil",),
    ),
    Fault(
        cause="params_unregistered",
        broken=unregistered,
        setups=("conv-fashion", "mlp-housing", "autoencoder-fashion"),
        loops=("conv-mnist", "counts-molecules"),
    ),
    Fault(
        cause="params_unregistered",
        broken=unregistered_reader,
        setups=("lstm-reviews",),
    ),
    Fault(
        cause="clip_too_small",
        base=partial(with_sgd, lr=0.03),
        broken=partial(clipped, norm=1e-3),
        setups=("mlp-mnist", "conv-mnist", "mlp-housing"),
        loops=("conv-speech", "counts-molecules"),
        notes="with gradient descent: Adam does not feel the gradient's length",
    ),
    Fault(
        cause="scheduler_misused",
        broken=partial(scheduled, schedule=dropping_per_step),
        setups=("mlp-digits", "gru-speech"),
    ),
    Fault(
        cause="scheduler_misused",
        broken=partial(scheduled, schedule=fading_per_step),
        setups=("mlp-housing",),
    ),
    Fault(
        cause="scheduler_misused",
        broken=partial(scheduled, schedule=ending_early),
        setups=("conv-mnist",),
    ),
)
