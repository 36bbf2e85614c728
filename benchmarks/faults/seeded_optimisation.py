"""Faults of optimisation: the rate, the optimizer and its settings, batches, epochs."""

from __future__ import annotations

from functools import partial
from typing import Any

from fault import Fault
from program import Program
from seeded_loss import with_sgd
from torch.optim import SGD, Adadelta, Adagrad, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def rate(program: Program, *, factor: float) -> Program:
    """The learning rate times `factor`."""
    return program.times_lr(factor).but(clip_grad=0.0)


def negative_rate(program: Program) -> Program:
    """A schedule whose factor is negative from the first step on: torch refuses no such rate."""

    def schedule(optimizer: Optimizer, total: int) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: -(1 - step / total))

    return program.but(schedule=schedule)


def set_negative_rate(program: Program) -> Program:
    """A rate set by hand, with the wrong sign."""

    class Negative(program.optimizer):
        def __init__(self, params: Any, *, lr: float, **settings: Any) -> None:
            super().__init__(params, lr=lr, **settings)
            for group in self.param_groups:
                group["lr"] = -lr

    return program.but(optimizer=Negative)


def other_optimizer(program: Program, *, optimizer: type[Optimizer]) -> Program:
    """Another optimizer, with the learning rate of the old one."""
    return program.but(optimizer=optimizer, settings={"lr": program.settings["lr"]})


def settings(program: Program, **changed: Any) -> Program:
    """Other settings of the optimizer."""
    return program.set(**changed)


def batches_of(program: Program, *, size: int, epochs: int | None = None) -> Program:
    """Another batch size; everything else as it was."""
    return program.but(batch_size=size, epochs=epochs or program.epochs)


def one_batch(program: Program) -> Program:
    """All examples in one batch."""
    return program.but(batch_size=len(program.data().train))


def epochs(program: Program, *, count: int) -> Program:
    """Fewer epochs."""
    return program.but(epochs=count)


FAULTS = (
    Fault(
        cause="lr_too_high",
        broken=partial(rate, factor=100.0),
        setups=("mlp-digits", "mlp-housing", "conv-mnist", "gru-speech"),
        loops=("gpt-lines",),
    ),
    Fault(
        cause="lr_too_high",
        broken=partial(rate, factor=30.0),
        variant="sgd",
        setups=("resnet-cifar", "deep-mlp-mnist"),
        loops=("mlp-mnist",),
    ),
    Fault(
        cause="lr_too_low",
        broken=partial(rate, factor=1e-3),
        setups=("mlp-digits", "conv-fashion", "lstm-shakespeare", "mlp-housing"),
        loops=("mlp-mnist", "gru-speech"),
    ),
    Fault(
        cause="lr_negative",
        broken=negative_rate,
        setups=("mlp-digits", "mlp-housing", "gru-speech"),
        loops=(),
        also=("gradient_sign_flipped",),
    ),
    Fault(
        cause="lr_negative",
        broken=set_negative_rate,
        setups=("conv-mnist",),
        loops=("mlp-mnist", "conv-oil"),
        also=("gradient_sign_flipped",),
    ),
    Fault(
        cause="optimizer_wrong",
        broken=partial(other_optimizer, optimizer=SGD),
        setups=("gpt-shakespeare", "gru-speech", "autoencoder-fashion"),
        loops=("mlp-housing", "keras-mnist"),
        also=("lr_too_low",),
        notes="plain gradient descent with Adam's rate: the optimizer or the rate is wrong",
    ),
    Fault(
        cause="optimizer_wrong",
        broken=partial(other_optimizer, optimizer=Adadelta),
        setups=("conv-mnist",),
        also=("lr_too_low",),
    ),
    Fault(
        cause="optimizer_wrong",
        broken=partial(other_optimizer, optimizer=Adagrad),
        setups=("lstm-shakespeare",),
        also=("lr_too_low",),
    ),
    Fault(
        cause="optimizer_params_wrong",
        broken=partial(settings, eps=1.0),
        setups=("mlp-digits", "conv-mnist"),
        loops=("lstm-shakespeare",),
        also=("lr_too_low",),
        notes="an epsilon far above the gradient's size leaves a tiny step",
    ),
    Fault(
        cause="optimizer_params_wrong",
        broken=partial(settings, betas=(0.999, 0.9)),
        variant="betas",
        setups=("mlp-housing", "conv-speech"),
        notes="the two betas exchanged",
    ),
    Fault(
        cause="optimizer_params_wrong",
        broken=partial(settings, momentum=0.999),
        variant="momentum",
        setups=("deep-mlp-mnist",),
        loops=("mlp-mnist",),
        also=("lr_too_high",),
    ),
    Fault(
        cause="batch_size_too_small",
        base=partial(with_sgd, lr=0.03),
        broken=partial(batches_of, size=1, epochs=2),
        setups=("mlp-mnist", "mlp-housing", "mlp-digits"),
        loops=("conv-speech", "keras-mnist"),
        also=("lr_too_high",),
        notes="one example per step at a batch's rate; fewer epochs, for time",
    ),
    Fault(
        cause="batch_size_too_small",
        broken=partial(batches_of, size=2, epochs=1),
        variant="norm",
        setups=("conv-speech",),
        loops=("deep-mlp-mnist",),
        notes="batch norm over two examples",
    ),
    Fault(
        cause="batch_size_too_large",
        broken=one_batch,
        setups=("mlp-digits", "conv-mnist", "mlp-housing", "gru-speech"),
        loops=("mlp-mnist", "lstm-oil"),
        also=("epochs_too_few",),
        notes="one step per epoch: the batches are too large or the epochs too few",
    ),
    Fault(
        cause="epochs_too_few",
        broken=partial(epochs, count=1),
        setups=("mlp-digits", "mlp-housing", "counts-molecules", "gru-speech"),
        loops=("dear-houses", "autoencoder-fashion"),
    ),
)
