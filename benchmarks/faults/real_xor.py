"""Stack Overflow's smallest programs in Keras: XOR twice, and two constant rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
from case import Case
from keras import adam, dense, rmsprop, sgd
from real_program import program
from score import yes_or_no
from torch import nn

from data import Examples, rows_of
from leadline.training.setup import Setup


def xor_absolute() -> Case:
    rows = rows_of([[1, 1], [1, 0], [0, 0], [0, 1]], [[0], [1], [0], [1]])

    def run(seed: int, fixed: bool) -> Setup:
        return program(
            seed,
            model=lambda: nn.Sequential(dense(2, 4), nn.Sigmoid(), dense(4, 1), nn.Sigmoid()),
            examples=rows,
            loss=keras.mean_squared_error if fixed else keras.mean_absolute_error,
            optimizer=adam() if fixed else sgd(0.05, momentum=0.11, nesterov=True),
            schedule=None if fixed else keras.decay(1e-6),
            batch_size=4,
            epochs=10_000 if fixed else 1000,
        )

    return Case(
        name="so-31556268",
        origin="real",
        faults=("loss_wrong", "lr_too_low", "optimizer_wrong", "epochs_too_few"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        score=yes_or_no(rows),
        higher_is_better=True,
        metric="accuracy",
        notes="the fix of DeepLocalize: squared error, Adam, 10,000 epochs; the four points are "
        "training and test",
    )


def constant_rows() -> Case:
    def rows(each: int) -> Examples:
        return rows_of(
            np.repeat([[1.0], [0.0]], each, axis=0) * np.ones(128),
            np.repeat([[1.0], [0.0]], each, axis=0),
        )

    def run(seed: int, output: Callable[[], nn.Module]) -> Setup:
        def model() -> nn.Module:
            return nn.Sequential(
                *(dense(128, 50), nn.ReLU(), nn.Dropout(0.2)),
                *(dense(50, 50), nn.ReLU(), nn.Dropout(0.2)),
                *(dense(50, 1), output()),
            )

        return program(
            seed,
            model=model,
            examples=rows(10_000),
            loss=keras.binary_crossentropy,
            optimizer=rmsprop(),
            batch_size=32,
            epochs=1,
        )

    return Case(
        name="so-31880720",
        origin="real",
        faults=("output_activation_wrong", "epochs_too_few"),
        buggy=partial(run, output=partial(nn.Softmax, dim=1)),
        fixed=partial(run, output=nn.Sigmoid),
        score=yes_or_no(rows(100)),
        higher_is_better=True,
        metric="accuracy",
    )


def xor_softmax() -> Case:
    rows = rows_of([[1, 1], [0, 0], [1, 0], [0, 1], [1, 1], [0, 0]], [[0], [0], [1], [1], [0], [0]])

    def run(seed: int, fixed: bool) -> Setup:
        weights = keras.uniform(0.05)

        def model() -> nn.Module:
            return nn.Sequential(
                *(dense(2, 2, weights=weights), nn.Sigmoid()),
                *(dense(2, 3, weights=weights), nn.Sigmoid()),
                *(dense(3, 1, weights=weights), nn.Sigmoid() if fixed else nn.Softmax(dim=1)),
            )

        return program(
            seed,
            model=model,
            examples=rows,
            loss=keras.mean_squared_error,
            optimizer=sgd(0.1 if fixed else 0.001, momentum=0.9, nesterov=True),
            schedule=keras.decay(1e-6),
            batch_size=4 if fixed else 32,
            epochs=10_000 if fixed else 20,
        )

    return Case(
        name="so-34311586",
        origin="real",
        faults=(
            "output_activation_wrong",
            "lr_too_low",
            "epochs_too_few",
            "init_bad_scale",
            "batch_size_too_large",
        ),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        score=yes_or_no(rows),
        higher_is_better=True,
        metric="accuracy",
        notes="the published fix leaves the weights at U(-0.05, 0.05); the rows are training and "
        "test",
    )


CASES = (xor_absolute, constant_rows, xor_softmax)
