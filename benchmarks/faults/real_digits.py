"""Published programs on MNIST: TheDeepChecker's, DeepCrime's, Stack Overflow's, TensorFlow's."""

from __future__ import annotations

import itertools
from functools import partial

import keras
from case import Case, pick
from keras import adadelta, adam, conv, dense, sgd
from networks import Scale, keras_digits
from real_program import PICTURES, program
from score import accuracy
from torch import Tensor, nn

from data import Examples, mnist
from leadline.training.setup import Setup


def zero_kernel() -> Case:
    def run(seed: int, first: keras.Initializer) -> Setup:
        return program(
            seed,
            model=lambda: keras_digits(first=first),
            examples=mnist("train", count=pick(quick=3000, full=60_000)).one_hot(),
            loss=keras.categorical_crossentropy,
            optimizer=adadelta(1.0),
            batch_size=128,
            epochs=pick(quick=3, full=12),
            validation=0.1,
        )

    return Case(
        name="dc-M2",
        origin="real",
        faults=("init_constant",),
        buggy=partial(run, first=keras.zeros),
        fixed=partial(run, first=keras.glorot_uniform),
        score=accuracy(_test(), PICTURES),
        higher_is_better=True,
        metric="accuracy",
        execution=PICTURES,
    )


def rectified_logits() -> Case:
    def run(seed: int, rectified: bool) -> Setup:
        parts = {"weights": keras.truncated_normal(0.1), "bias": keras.constant(0.1)}

        def model() -> nn.Module:
            return nn.Sequential(
                *(conv(1, 32, 5, same=True, **parts), nn.ReLU(), nn.MaxPool2d(2)),
                *(conv(32, 64, 5, same=True, **parts), nn.ReLU(), nn.MaxPool2d(2)),
                nn.Flatten(),
                *(dense(3136, 1024, **parts), nn.ReLU()),
                dense(1024, 10, **parts),
                *([nn.ReLU()] if rectified else []),
            )

        return program(
            seed,
            model=model,
            examples=mnist("train", count=pick(quick=3000, full=60_000)),
            loss=nn.functional.cross_entropy,
            optimizer=adam(0.001, eps=1e-8),
            batch_size=100,
            epochs=pick(quick=3, full=10),
            validation=0.1,
            user_loader=True,
        )

    return Case(
        name="ips-11",
        origin="real",
        faults=("output_activation_wrong",),
        buggy=partial(run, rectified=True),
        fixed=partial(run, rectified=False),
        score=accuracy(_test(), PICTURES),
        higher_is_better=True,
        metric="accuracy",
        execution=PICTURES,
        notes="batch size and epochs were open: 100, as in the post, and 10",
    )


def summed_logarithm() -> Case:
    images = mnist("train", count=pick(quick=6000, full=60_000)).flat()

    def run(seed: int, fixed: bool) -> Setup:
        def summed(outputs: Tensor, targets: Tensor) -> Tensor:
            return -(targets * outputs.log()).sum()

        layer = partial(dense, 784, 10, weights=keras.truncated_normal(1.0))
        return program(
            seed,
            model=lambda: nn.Sequential(layer(), *([] if fixed else [nn.Softmax(dim=1)])),
            examples=images if fixed else images.one_hot(),
            loss=nn.functional.cross_entropy if fixed else summed,
            optimizer=sgd(0.01),
            batch_size=100,
            epochs=pick(quick=20, full=10),
        )

    return Case(
        name="ips-14",
        origin="real",
        faults=("loss_numerically_unstable", "loss_reduction_wrong", "lr_too_high"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        score=accuracy(_test(flat=True)),
        higher_is_better=True,
        metric="accuracy",
        notes="batch size and epochs were open: 100 and 10",
    )


def unit_normal_weights() -> Case:
    def run(seed: int, weights: keras.Initializer, bias: keras.Initializer) -> Setup:
        def model() -> nn.Module:
            sizes = (784, 500, 500, 500)
            hidden = [
                layer
                for i, o in itertools.pairwise(sizes)
                for layer in (dense(i, o, weights=weights, bias=bias), nn.ReLU())
            ]
            return nn.Sequential(*hidden, dense(500, 10, weights=weights, bias=bias))

        return program(
            seed,
            model=model,
            examples=mnist("train", count=pick(quick=6000, full=60_000)).flat(),
            loss=nn.functional.cross_entropy,
            optimizer=adam(0.003, eps=1e-8),
            batch_size=100,
            epochs=pick(quick=8, full=10),
            validation=0.1,
            user_loader=True,
        )

    return Case(
        name="ips-4",
        origin="real",
        faults=("init_bad_scale",),
        buggy=partial(run, weights=keras.normal(1.0), bias=keras.normal(1.0)),
        fixed=partial(run, weights=keras.he_normal, bias=keras.zeros),
        score=accuracy(_test(flat=True)),
        higher_is_better=True,
        metric="accuracy",
        notes="epochs were open: 10",
    )


def linear_stack() -> Case:
    def run(seed: int, fixed: bool) -> Setup:
        parts = {"weights": keras.normal(1.0), "bias": keras.normal(1.0)}

        def model() -> nn.Module:
            hidden, ending = ([nn.Sigmoid()], [nn.Softmax(dim=1)]) if fixed else ([], [])
            return nn.Sequential(
                *(dense(784, 30, **parts), *hidden), *(dense(30, 10, **parts), *ending)
            )

        return program(
            seed,
            model=model,
            examples=mnist("train", count=pick(quick=5000, full=60_000)).flat().one_hot(),
            loss=keras.categorical_crossentropy if fixed else keras.mean_squared_error,
            optimizer=sgd(0.1 if fixed else 3.0),
            batch_size=10,
            epochs=pick(quick=10, full=30),
            validation=0.1,
        )

    return Case(
        name="so-48385830",
        origin="real",
        faults=("activation_missing", "output_activation_wrong", "loss_wrong", "lr_too_high"),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        score=accuracy(_test(flat=True)),
        higher_is_better=True,
        metric="accuracy",
    )


def raw_digits() -> Case:
    def run(seed: int, fixed: bool) -> Setup:
        def model() -> nn.Module:
            layers = (dense(784, 784), dense(784, 50), nn.ReLU(), dense(50, 10))
            if fixed:
                return nn.Sequential(Scale(1 / 255), *layers, nn.Softmax(dim=1))
            return nn.Sequential(*layers, nn.Sigmoid())

        return program(
            seed,
            model=model,
            examples=mnist("train", count=5000).flat().times(255).one_hot(),
            loss=keras.categorical_crossentropy,
            optimizer=adam() if fixed else sgd(0.0001),
            batch_size=32,
            epochs=pick(quick=5, full=10),
            validation=0.1,
        )

    return Case(
        name="so-55328966",
        origin="real",
        faults=(
            "input_not_normalized",
            "output_activation_wrong",
            "activation_missing",
            "optimizer_wrong",
        ),
        buggy=partial(run, fixed=False),
        fixed=partial(run, fixed=True),
        score=accuracy(mnist("test", count=2000).flat().times(255)),
        higher_is_better=True,
        metric="accuracy",
        notes="the published fix leaves the first layer linear; Adam's rate is Keras' 1e-3",
    )


def summed_cross_entropy() -> Case:
    def run(seed: int, reduction: str) -> Setup:
        parts = {"weights": keras.normal(1.0), "bias": keras.normal(1.0)}

        def model() -> nn.Module:
            return nn.Sequential(
                *(dense(784, 256, **parts), nn.ReLU()),
                *(dense(256, 256, **parts), nn.ReLU()),
                dense(256, 10, **parts),
            )

        return program(
            seed,
            model=model,
            examples=mnist("train", count=pick(quick=6000, full=60_000)).flat(),
            loss=nn.CrossEntropyLoss(reduction=reduction),
            optimizer=sgd(0.01),
            batch_size=100,
            epochs=pick(quick=10, full=25),
            validation=0.1,
            user_loader=True,
        )

    return Case(
        name="tfe-bc09f95",
        origin="real",
        faults=("loss_reduction_wrong", "init_bad_scale"),
        buggy=partial(run, reduction="sum"),
        fixed=partial(run, reduction="mean"),
        score=accuracy(_test(flat=True)),
        higher_is_better=True,
        metric="accuracy",
        notes="biases from N(0, 1) as the weights",
    )


def slow_adadelta() -> Case:
    def run(seed: int, lr: float) -> Setup:
        return program(
            seed,
            model=keras_digits,
            examples=mnist("train", count=pick(quick=3000, full=60_000)).one_hot(),
            loss=keras.categorical_crossentropy,
            optimizer=adadelta(lr),
            batch_size=128,
            epochs=pick(quick=3, full=12),
            validation=0.1,
        )

    return Case(
        name="th-62033143",
        origin="real",
        faults=("lr_too_low", "optimizer_wrong"),
        buggy=partial(run, lr=0.001),
        fixed=partial(run, lr=1.0),
        score=accuracy(_test(), PICTURES),
        higher_is_better=True,
        metric="accuracy",
        execution=PICTURES,
        notes="of the two published fixes the nearer one: Adadelta at 1.0",
    )


def _test(*, flat: bool = False) -> Examples:
    examples = mnist("test", count=pick(quick=1000, full=10_000))
    return examples.flat() if flat else examples


CASES = (
    *(zero_kernel, rectified_logits, summed_logarithm, unit_normal_weights),
    *(linear_stack, raw_digits, summed_cross_entropy, slow_adadelta),
)
