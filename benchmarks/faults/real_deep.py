"""TheDeepChecker's VGG-like network on CIFAR-10 with one fault at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
from case import Case, pick
from keras import OptimizerFactory, adam, sgd
from networks import deep_cnn
from real_program import PICTURES, program
from score import accuracy
from torch import Tensor, nn

from data import Examples, cifar
from leadline.training.setup import Setup

PLAIN = sgd(0.001, momentum=0.9)
OPEN = "batch 32 and 20 epochs (quick: 4 of 1,800), which the source leaves to its checker"


def frozen_statistics() -> Case:
    return _case(
        "bn_stats_frozen",
        faults=("norm_eval_stats_broken",),
        buggy=partial(_run, model=lambda: deep_cnn(momentum=0.0)),
        notes="momentum 0: batch statistics in training, untouched running ones in evaluation",
    )


def constant_weights() -> Case:
    same = keras.constant(0.01)
    return _case(
        "const_init",
        faults=("init_constant",),
        buggy=partial(_run, model=lambda: deep_cnn(weights=same, last=same)),
    )


def hidden_softmax() -> Case:
    return _case(
        "hidden_softmax",
        faults=("hidden_activation_wrong",),
        buggy=partial(_run, model=lambda: deep_cnn(softmax=True)),
    )


def high_rate() -> Case:
    def model() -> nn.Module:
        return deep_cnn(weights=keras.he_uniform)

    return _case(
        "high_lr",
        faults=("lr_too_high",),
        buggy=partial(_run, model=model, optimizer=sgd(0.1, momentum=0.9)),
        fixed=partial(_run, model=model),
    )


def low_epsilon() -> Case:
    def model() -> nn.Module:
        return deep_cnn(weights=keras.he_uniform)

    return _case(
        "low_adam_eps",
        faults=("optimizer_params_wrong", "lr_too_high"),
        buggy=partial(_run, model=model, optimizer=adam(0.01, eps=1e-16)),
        fixed=partial(_run, model=model, optimizer=adam(0.001, eps=1e-8)),
    )


def squared_error() -> Case:
    rows = _train().one_hot()
    return _case(
        "mse_for_class",
        faults=("loss_wrong",),
        buggy=partial(
            _run,
            model=lambda: nn.Sequential(deep_cnn(), nn.Softmax(dim=1)),
            examples=rows,
            loss=keras.mean_squared_error,
        ),
        notes="the fixed twin takes logits and class numbers",
    )


def much_dropout() -> Case:
    return _case(
        "over_dropout",
        faults=("dropout_too_high",),
        buggy=partial(_run, model=lambda: deep_cnn(after_convs=0.5, after_pools=(0.5, 0.5, 0.5))),
    )


def wide_weights() -> Case:
    wide = keras.normal(0.25)
    return _case(
        "random_init",
        faults=("init_bad_scale",),
        buggy=partial(_run, model=lambda: deep_cnn(weights=wide, last=wide)),
    )


def _run(
    seed: int,
    *,
    model: Callable[[], nn.Module] = deep_cnn,
    examples: Examples | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    optimizer: OptimizerFactory = PLAIN,
) -> Setup:
    return program(
        seed,
        model=model,
        examples=_train() if examples is None else examples,
        loss=loss,
        optimizer=optimizer,
        batch_size=32,
        epochs=pick(quick=4, full=20),
    )


def _case(
    fault: str,
    *,
    faults: tuple[str, ...],
    buggy: Callable[[int], Setup],
    fixed: Callable[[int], Setup] = _run,
    notes: str = "",
) -> Case:
    return Case(
        name=f"tdc-deep-{fault}",
        origin="real",
        faults=faults,
        buggy=buggy,
        fixed=fixed,
        score=accuracy(cifar("test", count=pick(quick=1000, full=10_000)), PICTURES),
        higher_is_better=True,
        metric="accuracy",
        execution=PICTURES,
        notes=f"{notes}; {OPEN}" if notes else OPEN,
    )


def _train() -> Examples:
    return cifar("train", count=pick(quick=1800, full=50_000))


CASES = (
    *(frozen_statistics, constant_weights, hidden_softmax, high_rate),
    *(low_epsilon, squared_error, much_dropout, wide_weights),
)
