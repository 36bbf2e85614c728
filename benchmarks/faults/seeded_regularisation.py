"""Faults of regularisation: none, too much, or in the wrong place."""

from __future__ import annotations

from functools import partial

from fault import Fault
from program import Program
from seeded_data import in_training
from surgery import ACTIVATIONS, behind, exchange, within
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, AdamW


def few_examples(program: Program, *, count: int, epochs: int) -> Program:
    """Fewer examples, seen more often."""
    few = in_training(program, lambda part: part[:count])
    return few.but(epochs=epochs, schedule=None, batch_size=min(32, program.batch_size))


def few_readings(program: Program) -> Program:
    """The same, with an optimizer whose weight decay is no part of the gradient."""
    few = few_examples(program, count=150, epochs=100)
    return few.but(optimizer=AdamW, settings={"lr": 2e-3, "weight_decay": 0.0})


def decayed(program: Program, *, weight_decay: float) -> Program:
    """With weight decay."""
    if program.optimizer is Adam:
        return program.but(optimizer=AdamW).set(weight_decay=weight_decay)
    return program.set(weight_decay=weight_decay)


def dropped(program: Program, *, p: float) -> Program:
    """With dropout behind every hidden activation."""

    def changed(model: nn.Module) -> None:
        exchange(model, ACTIVATIONS, lambda part: nn.Sequential(part, nn.Dropout(p)))

    return within(program, changed)


def penalised(program: Program, *, weight: float) -> Program:
    """With a penalty on the outputs that outweighs the task."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return program.loss(outputs, targets) + weight * outputs.square().mean()

    return program.but(loss=loss)


class AlwaysDropped(nn.Module):
    """`functional.dropout(x, p)`, whose `training` is True unless it is told otherwise."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.dropout(inputs, self.p)


def always_dropped(program: Program, *, p: float) -> Program:
    """A dropout that draws in evaluation too."""

    def changed(model: nn.Module) -> None:
        exchange(model, ACTIVATIONS, lambda part: nn.Sequential(part, AlwaysDropped(p)))

    return within(program, changed)


def dropped_outputs(program: Program) -> Program:
    """A dropout behind the last layer: answers are set to 0."""
    return behind(program, partial(nn.Dropout, 0.5))


FAULTS = (
    Fault(
        cause="reg_missing",
        base=partial(few_examples, count=150, epochs=200),
        fixed=partial(decayed, weight_decay=3.0),
        setups=("mlp-housing", "counts-molecules"),
    ),
    Fault(
        cause="reg_missing",
        base=partial(few_examples, count=150, epochs=60),
        fixed=partial(decayed, weight_decay=3.0),
        setups=("lstm-oil",),
        loops=("lstm-shakespeare",),
    ),
    Fault(
        cause="reg_missing",
        base=few_readings,
        fixed=partial(decayed, weight_decay=10.0),
        loops=("conv-oil",),
    ),
    Fault(
        cause="reg_too_strong",
        broken=partial(decayed, weight_decay=30.0),
        setups=("mlp-digits", "gpt-shakespeare", "mlp-housing"),
        loops=("conv-mnist",),
    ),
    Fault(
        cause="reg_too_strong",
        broken=partial(decayed, weight_decay=0.3),
        variant="sgd",
        setups=("resnet-cifar", "deep-mlp-mnist"),
        loops=("mlp-mnist",),
    ),
    Fault(
        cause="reg_too_strong",
        broken=partial(penalised, weight=10.0),
        variant="penalty",
        setups=("lstm-oil",),
    ),
    Fault(
        cause="dropout_too_high",
        broken=partial(dropped, p=0.95),
        setups=("mlp-digits", "conv-mnist", "mlp-housing", "conv-speech", "autoencoder-fashion"),
        loops=("mlp-mnist", "dear-houses"),
    ),
    Fault(
        cause="dropout_misuse",
        broken=partial(always_dropped, p=0.5),
        fixed=partial(dropped, p=0.5),
        setups=("mlp-digits", "conv-mnist", "mlp-housing"),
        loops=("conv-speech",),
    ),
    Fault(
        cause="dropout_misuse",
        broken=dropped_outputs,
        variant="outputs",
        setups=("conv-oil", "lstm-oil"),
        loops=("counts-molecules",),
    ),
)
