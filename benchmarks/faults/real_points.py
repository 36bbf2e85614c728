"""AUTOTRAINER's circle, and TheDeepChecker's programs with a handful of numbers."""

from __future__ import annotations

import itertools
from functools import partial

import keras
import numpy as np
import torch
from case import Case
from keras import adam, dense, sgd
from networks import KeepProbability, Line, Parabola, Scale
from real_program import program
from score import error, one_percent, yes_or_no
from sklearn.datasets import make_circles
from torch import nn

from data import Examples, column, rows_of
from leadline.training.setup import Setup


def gradient_vanish() -> Case:
    inputs, targets = make_circles(n_samples=1000, noise=0.1, random_state=1)
    rows = rows_of(inputs, targets[:, None])

    def model(activation: type[nn.Module], weights: keras.Initializer) -> nn.Module:
        sizes = [2] + [5] * 8
        hidden = [
            layer
            for i, o in itertools.pairwise(sizes)
            for layer in (dense(i, o, weights=weights), activation())
        ]
        return nn.Sequential(*hidden, dense(5, 1, weights=weights), nn.Sigmoid())

    def run(seed: int, activation: type[nn.Module], weights: keras.Initializer) -> Setup:
        return program(
            seed,
            model=lambda: model(activation, weights),
            examples=rows[:700],
            loss=keras.binary_crossentropy,
            optimizer=adam(1e-3),
            batch_size=128,
            epochs=300,
            validation=0.1,
        )

    return Case(
        name="at-gradient-vanish",
        origin="real",
        faults=("hidden_activation_wrong",),
        buggy=partial(run, activation=nn.Sigmoid, weights=keras.he_uniform),
        fixed=partial(run, activation=nn.SELU, weights=keras.lecun_normal),
        score=yes_or_no(rows[700:]),
        higher_is_better=True,
        metric="accuracy",
        notes="of the published remedies (relu, selu, batch norm) selu with LeCun's weights: it is "
        "the one with which the authors' own log reaches its target",
    )


def inverted_dropout() -> Case:
    train, test = _shifted_rows(100, seed=20180130), _shifted_rows(1000, seed=1)
    low, high = train.inputs.amin(0), train.inputs.amax(0)
    train, test = (
        Examples(inputs=(part.inputs - low) / (high - low), targets=part.targets)
        for part in (train, test)
    )

    def run(seed: int, dropout: type[nn.Module], std: float | None) -> Setup:
        weights = keras.he_normal if std is None else keras.truncated_normal(std)

        def model() -> nn.Module:
            sizes = (14, 20, 20, 15)
            hidden = [
                layer
                for i, o in itertools.pairwise(sizes)
                for layer in (dense(i, o, weights=weights), nn.ReLU(), dropout())
            ]
            return nn.Sequential(*hidden, dense(15, 1, weights=weights))

        return program(
            seed,
            model=model,
            examples=train,
            loss=nn.functional.binary_cross_entropy_with_logits,
            optimizer=adam(0.005, eps=1e-8),
            batch_size=32,
            epochs=200,
            user_loader=True,
        )

    return Case(
        name="ips-12",
        origin="real",
        faults=("dropout_misuse", "init_bad_scale", "metric_on_logits"),
        buggy=partial(run, dropout=KeepProbability, std=0.5),
        fixed=partial(run, dropout=nn.Dropout, std=None),
        score=yes_or_no(test),
        higher_is_better=True,
        metric="accuracy",
        notes="batch size and epochs were open: 32 and 200; the accuracy that takes logits for "
        "probabilities is the program's own print and has no place in a Setup: scores are taken "
        "at logit 0 for both; test rows are 1,000 new ones of the same recipe",
    )


def growing_time() -> Case:
    time = torch.arange(100.0)[:, None]

    def rows(seed: int) -> Examples:
        noise = 10 * torch.rand(100, 1, generator=torch.Generator().manual_seed(seed))
        return Examples(
            inputs=torch.cat([time, torch.ones(100, 1)], 1), targets=2 * time + 4 + noise
        )

    def run(seed: int, scale: float) -> Setup:
        def model() -> nn.Module:
            scaled = [Scale(scale, 1.0)] if scale != 1 else []
            return nn.Sequential(*scaled, dense(2, 1, weights=keras.zeros, bias=None))

        return program(
            seed,
            model=model,
            examples=rows(0),
            loss=lambda outputs, targets: (outputs - targets).square().sum() / (2 * len(targets)),
            optimizer=sgd(0.5),
            batch_size=100,
            epochs=1000,
        )

    return Case(
        name="ips-15",
        origin="real",
        faults=("lr_too_high", "input_not_normalized"),
        buggy=partial(run, scale=1.0),
        fixed=partial(run, scale=1 / 100),
        score=error(rows(1), keras.mean_squared_error),
        higher_is_better=False,
        metric="mse",
        notes="1,000 full-batch steps, the source leaves them open; fixed by scaling t to [0, 1) "
        "in the model; test noise is drawn anew",
    )


def parabola() -> Case:
    rows = column([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 4.0, 9.0])

    def run(seed: int, lr: float) -> Setup:
        return program(
            seed,
            model=Parabola,
            examples=rows,
            loss=lambda outputs, targets: (outputs - targets).square().sum(),
            optimizer=sgd(lr),
            batch_size=4,
            epochs=1000,
        )

    return Case(
        name="ips-17",
        origin="real",
        faults=("lr_too_high", "loss_reduction_wrong"),
        buggy=partial(run, lr=0.01),
        fixed=partial(run, lr=0.005),
        score=error(rows, keras.mean_squared_error),
        higher_is_better=False,
        metric="mse",
        enough=one_percent(rows),
        notes="1,000 steps, the source leaves them open; the four points are training and test",
    )


def eight_points() -> Case:
    generator = torch.Generator().manual_seed(0)
    points = torch.linspace(-8, 8, 8)[:, None]
    noise = 2 * torch.rand(8, 1, generator=generator) - 1
    rows = Examples(inputs=points, targets=2 * points + 1 + noise)
    between = torch.linspace(-8, 8, 100)[:, None]

    def run(seed: int, lr: float) -> Setup:
        return program(
            seed,
            model=Line,
            examples=rows,
            loss=keras.mean_squared_error,
            optimizer=sgd(lr),
            batch_size=8,
            epochs=1000,
        )

    return Case(
        name="ips-5",
        origin="real",
        faults=("lr_too_high",),
        buggy=partial(run, lr=0.1),
        fixed=partial(run, lr=0.01),
        score=error(Examples(inputs=between, targets=2 * between + 1), keras.mean_squared_error),
        higher_is_better=False,
        metric="mse",
        notes="w = 2, b = 1 and 1,000 steps, the source leaves them open; test points lie on the "
        "line without noise",
    )


def _shifted_rows(count: int, *, seed: int) -> Examples:
    """ips-12's recipe: two rows in three are of class 0, moved as a whole by -1, 0 or 1."""
    draw = np.random.default_rng(seed)
    inputs = draw.normal(0, 0.1, (count, 14))
    targets = (draw.uniform(0, 3, count) <= 1).astype(float)
    inputs += ((1 - targets) * draw.integers(-1, 2, count))[:, None]
    return rows_of(inputs, targets[:, None])


CASES = (gradient_vanish, inverted_dropout, growing_time, parabola, eight_points)
