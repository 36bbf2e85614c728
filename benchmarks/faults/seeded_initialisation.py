"""Faults of initialisation and of normalisation."""

from __future__ import annotations

from functools import partial

from fault import Fault
from healthy import small_resnet
from healthy_models import convnet, mlp, segmenter
from program import Program
from surgery import initialised, within
from torch import nn


def all_zero(program: Program) -> Program:
    """Every matrix of weights begins at 0."""
    return initialised(program, nn.init.zeros_)


def all_alike(program: Program) -> Program:
    """Every weight begins at 0.05: all units of a layer stay the same for ever."""
    return initialised(program, partial(nn.init.constant_, val=0.05))


def unit_normal(program: Program, *, std: float) -> Program:
    """Weights from a normal distribution whose deviation does not look at the layer's width."""
    return initialised(program, partial(nn.init.normal_, std=std))


DEEP = {
    "deep-mlp-mnist": (
        partial(mlp, 784, *[48] * 16, 10, norm=True),
        partial(mlp, 784, *[48] * 16, 10, norm=False),
    ),
    "resnet-cifar": (small_resnet, partial(small_resnet, "none")),
    "conv-fashion": (
        partial(convnet, 8, 16, 32, classes=10, per_stage=4),
        partial(convnet, 8, 16, 32, classes=10, per_stage=4, norm=False),
    ),
    "segmenter-membrane": (
        partial(segmenter, per_stage=3),
        partial(segmenter, per_stage=3, norm=False),
    ),
    "pairs-of-digits": (
        partial(convnet, 8, 16, 32, classes=10, per_stage=4),
        partial(convnet, 8, 16, 32, classes=10, per_stage=4, norm=False),
    ),
}
"""A network deep enough to need its norms, with them and without."""


def deep(program: Program) -> Program:
    """The recipe with a deep network and norms."""
    return program.but(model=DEEP[program.name][0])


def deep_without_norms(program: Program) -> Program:
    """The recipe with a deep network, its norms left out."""
    return program.but(model=DEEP[program.name][1])


def statistics(program: Program, *, momentum: float) -> Program:
    """Running statistics that follow with another momentum: 0 never, 0.001 too late."""

    def changed(model: nn.Module) -> None:
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.momentum = momentum

    return within(program, changed)


FAULTS = (
    Fault(
        cause="init_constant",
        broken=all_zero,
        setups=("mlp-digits", "conv-mnist", "mlp-housing", "lstm-oil"),
        loops=("keras-mnist",),
    ),
    Fault(
        cause="init_constant",
        broken=all_alike,
        variant="alike",
        setups=("mlp-digits", "autoencoder-fashion"),
        loops=("mlp-housing",),
    ),
    Fault(
        cause="init_bad_scale",
        broken=partial(unit_normal, std=1.0),
        setups=("keras-mnist", "conv-mnist", "autoencoder-fashion"),
        loops=("mlp-mnist", "lstm-shakespeare"),
    ),
    Fault(
        cause="init_bad_scale",
        broken=partial(unit_normal, std=0.003),
        variant="small",
        setups=("mlp-mnist", "gru-speech", "autoencoder-fashion"),
        loops=("conv-mnist",),
    ),
    Fault(
        cause="norm_missing",
        base=deep,
        broken=deep_without_norms,
        setups=("deep-mlp-mnist", "resnet-cifar", "conv-fashion"),
        loops=("segmenter-membrane", "pairs-of-digits"),
        also=("init_bad_scale",),
        notes="another initialisation would carry the signal as well",
    ),
    Fault(
        cause="norm_eval_stats_broken",
        broken=partial(statistics, momentum=0.0),
        setups=("conv-fashion", "deep-mlp-mnist"),
        loops=("conv-speech",),
    ),
    Fault(
        cause="norm_eval_stats_broken",
        broken=partial(statistics, momentum=1e-4),
        variant="slow",
        setups=("resnet-cifar", "pairs-of-digits"),
    ),
)
