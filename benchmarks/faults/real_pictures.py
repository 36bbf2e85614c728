"""Published programs on CIFAR-10: DeepCrime's mutants, Stack Overflow's (by Theia), UMLAUT's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import keras
from case import Case, pick
from keras import adam, conv, dense, rmsprop
from networks import Scale, cifar_cnn
from real_program import PICTURES, program
from score import accuracy
from torch import nn
from torch.optim import Optimizer

from data import Examples, Shuffled, cifar
from leadline.training.setup import Setup

JPEG = "CIFAR-10 in its JPEG copy"


def one_epoch() -> Case:
    def run(seed: int, epochs: int) -> Setup:
        return program(
            seed,
            model=cifar_cnn,
            examples=_train(quick=5000),
            loss=keras.sparse_categorical_crossentropy,
            optimizer=adam(),
            batch_size=64,
            epochs=epochs,
            validation=0.1,
        )

    return _case(
        "dc-C2",
        faults=("epochs_too_few",),
        buggy=partial(run, epochs=1),
        fixed=partial(run, epochs=pick(quick=8, full=50)),
        notes="quick: 8 epochs in place of 50",
    )


def kernel_of_ones() -> Case:
    def run(seed: int, second: keras.Initializer) -> Setup:
        return program(
            seed,
            model=lambda: cifar_cnn(second=second),
            examples=_train(quick=5000),
            loss=keras.sparse_categorical_crossentropy,
            optimizer=adam(),
            batch_size=64,
            epochs=pick(quick=8, full=50),
            validation=0.1,
        )

    return _case(
        "dc-C3",
        faults=("init_constant",),
        buggy=partial(run, second=keras.ones),
        fixed=partial(run, second=keras.glorot_uniform),
    )


def no_regularisation() -> Case:
    def run(seed: int, pools: float, hidden: float) -> Setup:
        def dropout(rate: float) -> list[nn.Module]:
            return [nn.Dropout(rate)] if rate else []

        def model() -> nn.Module:
            return nn.Sequential(
                *(conv(3, 256, 3, same=True), nn.ReLU(), nn.MaxPool2d(3), *dropout(pools)),
                *(conv(256, 128, 3, same=True), nn.ReLU(), nn.MaxPool2d(3), *dropout(pools)),
                *(nn.Flatten(), dense(1152, 384), nn.ReLU(), *dropout(hidden)),
                *(dense(384, 192), nn.ReLU(), *dropout(hidden)),
                *(dense(192, 10), nn.Softmax(dim=1)),
            )

        return program(
            seed,
            model=model,
            examples=_train(quick=500).one_hot(),
            loss=keras.categorical_crossentropy,
            optimizer=adam(),
            batch_size=32,
            epochs=pick(quick=15, full=30),
            validation=0.1,
        )

    return _case(
        "th-37229086",
        faults=("reg_missing",),
        buggy=partial(run, pools=0.0, hidden=0.0),
        fixed=partial(run, pools=0.25, hidden=0.5),
        notes="the published fix is not stored: dropout of 0.25 after each pooling and 0.5 after "
        "each hidden dense layer, as in Keras' own example; the quick scale is too short for it",
    )


def raw_pictures() -> Case:
    def run(seed: int, fixed: bool) -> Setup:
        def model() -> nn.Module:
            return nn.Sequential(
                *([Scale(1 / 255)] if fixed else []),
                *(conv(3, 128, 3), nn.ReLU(), nn.MaxPool2d(2)),
                *(conv(128, 64, 2), *([nn.ReLU()] if fixed else []), nn.MaxPool2d(2)),
                *(nn.Flatten(), dense(3136, 64), nn.ReLU()),
                *(dense(64, 10), nn.Softmax(dim=1)),
            )

        return program(
            seed,
            model=model,
            examples=_train(quick=4000).times(255).one_hot(),
            loss=keras.categorical_crossentropy,
            optimizer=adam(),
            batch_size=32,
            epochs=pick(quick=4, full=30),
            validation=0.1,
        )

    return _case(
        "th-63027146",
        faults=("input_not_normalized", "activation_missing"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        test=_test().times(255),
        notes="the fixed twin scales in its model, so that both take bytes from 0 to 255",
    )


def yes_or_no_head() -> Case:
    def run(seed: int, fixed: bool) -> Setup:
        def model() -> nn.Module:
            return nn.Sequential(
                *(conv(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
                *(dense(7200, 64), nn.ReLU(), nn.Dropout(0.5)),
                *(dense(64, 10), nn.Softmax(dim=1) if fixed else nn.Sigmoid()),
            )

        return program(
            seed,
            model=model,
            examples=_train(quick=6000).one_hot(),
            loss=keras.categorical_crossentropy if fixed else keras.binary_crossentropy,
            optimizer=rmsprop(),
            batch_size=128,
            epochs=pick(quick=6, full=10),
            validation=0.1,
        )

    return _case(
        "th-63311327",
        faults=("output_activation_wrong", "loss_wrong", "output_units_wrong"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        notes="10 classes, as the source advises for a port; dropout 0.5, which it leaves open; "
        "accuracy of the class named, not of the ten yes-or-no answers",
    )


def high_rate() -> Case:
    def run(seed: int, fixed: bool) -> Setup:
        def model() -> nn.Module:
            return nn.Sequential(
                *(conv(3, 25, 3), nn.ReLU(), nn.MaxPool2d(2)),
                *(conv(25, 50, 3), nn.ReLU(), nn.MaxPool2d(2)),
                *(conv(50, 100, 3), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Flatten(), dense(400, 100), nn.ReLU(), *([] if fixed else [nn.ReLU()])),
                *(dense(100, 10), nn.Softmax(dim=1)),
            )

        return program(
            seed,
            model=model,
            examples=_train(quick=4000).one_hot(),
            loss=keras.categorical_crossentropy if fixed else keras.binary_crossentropy,
            optimizer=adam(0.001 if fixed else 0.1),
            batch_size=10,
            epochs=pick(quick=5, full=30),
            validation=0.1,
        )

    return _case(
        "th-64522751",
        faults=("lr_too_high", "loss_wrong", "activation_extra"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
    )


def negative_rate() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        made = adam()(model)
        for group in made.param_groups:
            group["lr"] = -1e3  # torch refuses it in the constructor, Keras does not
        return made

    def run(seed: int, fixed: bool) -> Setup:
        def hidden() -> list[nn.Module]:
            return [nn.ReLU()] if fixed else []

        def model() -> nn.Module:
            return nn.Sequential(
                *(conv(3, 64, 3), *hidden(), conv(64, 64, 3), *hidden()),
                *(nn.MaxPool2d(2), nn.Dropout(0.2)),
                *(conv(64, 128, 3), *hidden(), conv(128, 128, 3), *hidden()),
                *(nn.MaxPool2d(2), nn.Dropout(0.2), nn.Flatten()),
                *(dense(3200, 128), *hidden(), dense(128, 128), *hidden()),
                *(nn.Dropout(0.2), dense(128, 10)),
            )

        examples = _train(quick=2000)
        setup = program(
            seed,
            model=model,
            examples=examples,
            loss=nn.functional.cross_entropy,
            optimizer=adam() if fixed else optimizer,
            batch_size=128,
            epochs=pick(quick=3, full=10),
            validation=0.1 if fixed else 0.0,
        )
        if fixed:
            return setup
        return replace(setup, validation=Shuffled(examples[:100], batch_size=100, shuffle=False))

    return _case(
        "umlaut-b",
        faults=("lr_negative", "activation_missing", "validation_leak"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        notes="the rate is set on the optimizer's groups, since torch's constructor refuses it",
    )


def _case(
    name: str,
    *,
    faults: tuple[str, ...],
    buggy: Callable[[int], Setup],
    fixed: Callable[[int], Setup],
    test: Examples | None = None,
    notes: str = "",
) -> Case:
    return Case(
        name=name,
        origin="real",
        faults=faults,
        buggy=buggy,
        fixed=fixed,
        score=accuracy(_test() if test is None else test, PICTURES),
        higher_is_better=True,
        metric="accuracy",
        execution=PICTURES,
        notes=f"{JPEG}; {notes}" if notes else JPEG,
    )


def _train(*, quick: int) -> Examples:
    return cifar("train", count=pick(quick=quick, full=50_000))


def _test() -> Examples:
    return cifar("test", count=pick(quick=1000, full=10_000))


CASES = (
    *(one_epoch, kernel_of_ones, no_regularisation, raw_pictures),
    *(yes_or_no_head, high_rate, negative_rate),
)
