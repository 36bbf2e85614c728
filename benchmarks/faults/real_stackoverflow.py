"""Stack Overflow's small programs in Keras: labels, noise, blobs, a line, bits, the iris."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
from case import Case, pick
from keras import adam, dense, rmsprop, sgd
from networks import Standardize
from real_program import program
from score import accuracy, error, one_percent, yes_or_no
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.model_selection import train_test_split
from torch import nn

from data import Examples, column, rows_of
from leadline.training.setup import Setup


def multilabel() -> Case:
    count = pick(quick=6000, full=48_000)
    rows = rows_of(
        *make_multilabel_classification(60_000, n_features=20, n_classes=3, random_state=0)
    )

    def run(seed: int, fixed: bool) -> Setup:
        def model() -> nn.Module:
            return nn.Sequential(
                *(dense(20, 20), nn.ReLU(), nn.Dropout(0.5)),
                *(dense(20, 20), nn.ReLU(), nn.Dropout(0.5)),
                *(dense(20, 3), nn.Sigmoid() if fixed else nn.Softmax(dim=1)),
            )

        return program(
            seed,
            model=model,
            examples=rows[:count],
            loss=keras.binary_crossentropy if fixed else keras.mean_squared_error,
            optimizer=sgd(0.01),
            batch_size=20,
            epochs=pick(quick=10, full=20),
            validation=0.1,
        )

    return Case(
        name="so-38648195",
        origin="real",
        faults=("output_activation_wrong", "loss_wrong"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        score=yes_or_no(rows[50_000:54_000]),
        higher_is_better=True,
        metric="accuracy",
        notes="accuracy over the single labels, at 0.5; raw counts as inputs, as published",
    )


def noise() -> Case:
    def rows(count: int, *, seed: int) -> Examples:
        return rows_of(*np.random.default_rng(seed).uniform(0, 1, (2, count, 5, 1)))

    def run(seed: int, output: Callable[[], nn.Module]) -> Setup:
        return program(
            seed,
            model=lambda: nn.Sequential(
                *(dense(1, 60), nn.ReLU()), *(dense(60, 50), nn.ReLU()), *(dense(50, 1), output())
            ),
            examples=rows(1000, seed=0),
            loss=keras.binary_crossentropy,
            optimizer=adam(),
            batch_size=1,
            epochs=5,
            validation=0.1,
            user_loader=True,
        )

    return Case(
        name="so-45337371",
        origin="real",
        faults=("output_activation_wrong",),
        buggy=partial(run, output=partial(nn.Softmax, dim=-1)),
        fixed=partial(run, output=nn.Sigmoid),
        score=error(rows(500, seed=1), keras.binary_crossentropy),
        higher_is_better=False,
        metric="binary cross entropy",
        notes="the targets are independent of the inputs: ln 2 is the best that can be reached",
    )


def threshold() -> Case:
    feature = np.random.default_rng(0).normal(0, 1, 2500)
    classes = (feature > np.quantile(feature, 0.6)).astype(float)
    rows = rows_of(feature[:, None], np.stack([1 - classes, classes], 1))

    def run(seed: int, fixed: bool) -> Setup:
        def model() -> nn.Module:
            if fixed:
                return nn.Sequential(dense(1, 1), nn.ReLU(), dense(1, 2), nn.Sigmoid())
            return nn.Sequential(dense(1, 1), nn.Sigmoid(), dense(1, 2), nn.Softmax(dim=1))

        return program(
            seed,
            model=model,
            examples=rows[:2000],
            loss=keras.mean_squared_error if fixed else keras.mean_absolute_error,
            optimizer=adam() if fixed else rmsprop(),
            batch_size=500 if fixed else 200,
            epochs=100 if fixed else 10,
            validation=0.1,
            user_loader=True,
        )

    return Case(
        name="so-45442843",
        origin="real",
        faults=(
            "loss_wrong",
            "optimizer_wrong",
            "hidden_activation_wrong",
            "output_activation_wrong",
            "epochs_too_few",
            "batch_size_too_small",
        ),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        score=accuracy(rows[2000:]),
        higher_is_better=True,
        metric="accuracy",
        notes="the table is not published: 2,500 standard normal numbers, class 1 above their 60 % "
        "quantile, so that a constant answer scores the published 0.596",
    )


def square() -> Case:
    numbers = np.linspace(-10, 10, 201)
    order = np.random.default_rng(0).permutation(201)
    rows = column(numbers[order], numbers[order] ** 2)

    def run(seed: int, bounded: bool) -> Setup:
        def model() -> nn.Module:
            ending = [nn.Sigmoid()] if bounded else []
            return nn.Sequential(dense(1, 5), nn.Sigmoid(), dense(5, 1), *ending)

        return program(
            seed,
            model=model,
            examples=rows[:150],
            loss=keras.mean_squared_error,
            optimizer=sgd(0.01),
            batch_size=150,
            epochs=1000,
        )

    return Case(
        name="so-48221692",
        origin="real",
        faults=("output_activation_wrong",),
        buggy=partial(run, bounded=True),
        fixed=partial(run, bounded=False),
        score=error(rows[150:], keras.mean_squared_error),
        higher_is_better=False,
        metric="mse",
        enough=one_percent(rows),
        notes="x from -10 to 10 in 201 points, y = x^2: a constant 1 then scores about the "
        "published 1788",
    )


def blobs() -> Case:
    draw = np.random.default_rng(0)
    inputs = np.concatenate([draw.uniform(0.2, 0.4, (200, 2)), draw.uniform(0.5, 0.7, (200, 2))])
    targets = np.repeat(np.eye(2), 200, axis=0)
    order = draw.permutation(400)
    rows = rows_of(inputs[order], targets[order])

    def run(seed: int, fixed: bool) -> Setup:
        def model() -> nn.Module:
            output = nn.Sigmoid() if fixed else nn.Softmax(dim=1)
            return nn.Sequential(dense(2, 2), nn.Sigmoid(), dense(2, 2), output)

        return program(
            seed,
            model=model,
            examples=rows[:160],
            loss=keras.binary_crossentropy if fixed else keras.categorical_crossentropy,
            optimizer=adam(0.1 if fixed else 0.001),
            batch_size=32,
            epochs=100 if fixed else 5,
            validation=0.1,
            user_loader=True,
        )

    return Case(
        name="so-50306988",
        origin="real",
        faults=("lr_too_low", "epochs_too_few", "loss_wrong", "output_activation_wrong"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        score=accuracy(rows[200:]),
        higher_is_better=True,
        metric="accuracy",
        notes="200 test rows beside the published 200, of which 160 are for training",
    )


def five_times() -> Case:
    numbers = np.random.default_rng(0).permutation(np.linspace(1, 2, 100))
    rows = column(numbers, 5 * numbers)

    def run(seed: int, lr: float) -> Setup:
        return program(
            seed,
            model=lambda: nn.Sequential(dense(1, 1)),
            examples=rows[:80],
            loss=keras.mean_squared_error,
            optimizer=rmsprop(lr),
            batch_size=32,
            epochs=200,
            validation=0.1,
        )

    return Case(
        name="so-51181393",
        origin="real",
        faults=("lr_too_low",),
        buggy=partial(run, lr=0.001),
        fixed=partial(run, lr=0.1),
        score=error(rows[80:], keras.mean_absolute_error),
        higher_is_better=False,
        metric="mae",
        enough=0.01 * float(rows.targets.std()),
    )


def iris() -> Case:
    inputs, targets = load_iris(return_X_y=True)
    parts = train_test_split(inputs, targets, test_size=0.5, random_state=2)
    train, test = (
        rows_of(x, np.eye(3)[y]) for x, y in ((parts[0], parts[2]), (parts[1], parts[3]))
    )

    def run(seed: int, fixed: bool) -> Setup:
        weights = keras.normal(0.05)

        def model() -> nn.Module:
            scaling = [Standardize(train.inputs)] if fixed else []
            output = nn.Softmax(dim=1) if fixed else nn.Sigmoid()
            layers = (dense(4, 4, weights=weights), nn.ReLU(), dense(4, 3, weights=weights))
            return nn.Sequential(*scaling, *layers, output)

        return program(
            seed,
            model=model,
            examples=train,
            loss=keras.categorical_crossentropy,
            optimizer=adam(),
            batch_size=5,
            epochs=50,
            user_loader=True,
        )

    return Case(
        name="so-51930566",
        origin="real",
        faults=("output_activation_wrong", "input_not_normalized"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        score=accuracy(test),
        higher_is_better=True,
        metric="accuracy",
        notes="the fixed twin standardises in its model, so that both take the raw centimetres",
    )


def bits() -> Case:
    digits = np.random.default_rng(0).integers(0, 2, (10_000, 20))
    rest = (digits @ (2 ** np.arange(20))) % 7
    rows = rows_of(digits, (rest[:, None] >> np.arange(20)) & 1)

    def run(seed: int, optimizer: keras.OptimizerFactory) -> Setup:
        def model() -> nn.Module:
            return nn.Sequential(
                *(dense(20, 20), nn.ReLU()),
                *(dense(20, 20), nn.ReLU()),
                *(dense(20, 20), nn.Softmax(dim=1)),
            )

        return program(
            seed,
            model=model,
            examples=rows[:8000],
            loss=keras.categorical_crossentropy,
            optimizer=optimizer,
            batch_size=50,
            epochs=10,
            validation=0.1,
        )

    return Case(
        name="so-56380303",
        origin="real",
        faults=("optimizer_wrong", "lr_too_low", "loss_wrong"),
        buggy=partial(run, optimizer=sgd(0.01)),
        fixed=partial(run, optimizer=adam(0.0001)),
        score=accuracy(rows[8000:]),
        higher_is_better=True,
        metric="accuracy",
        notes="Keras' accuracy: whether the largest output stands at the first of the targets' "
        "ones; the published fix is known not to help",
    )


CASES = (
    *(multilabel, noise, threshold, square),
    *(blobs, five_times, iris, bits),
)
