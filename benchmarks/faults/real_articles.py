"""DeepCrime's mutants of Keras' Reuters example: a bag of words, one hidden layer, 46 classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
from case import Case, pick
from keras import OptimizerFactory, adam, dense, sgd
from real_program import program
from score import accuracy
from torch import Tensor, nn

from data import CLASSES, WORDS, articles
from leadline.training.setup import Setup

INSTEAD = (
    "Reuters is not at hand: 46 articles of WikiText-2 in chunks of about 50 words, a binary bag "
    "of the 10,000 most frequent ones"
)
ABSOLUTE = 0.01  # Keras' factor for the name 'l1'


class Penalised:
    """A loss plus the absolute weights of the first layer of the model it made last.

    A loss sees no model: this object is the model's factory, too.
    """

    def __init__(
        self, model: Callable[[], nn.Sequential], loss: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self._model = model
        self._loss = loss
        self._last: nn.Sequential | None = None

    def make(self) -> nn.Sequential:
        """A new model, whose weights count from now on."""
        self._last = self._model()
        return self._last

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = self._loss(outputs, targets)
        if self._last is None:
            raise RuntimeError("expected a model from `make` before the loss is asked")
        return loss + ABSOLUTE * self._last[0].weight.abs().sum()


def network(output: nn.Module | None = None) -> nn.Sequential:
    """Keras' example with another output than its softmax, or none."""
    ending = [] if output is None else [output]
    return nn.Sequential(
        *(dense(WORDS, 512), nn.ReLU(), nn.Dropout(0.5), dense(512, CLASSES)), *ending
    )


def with_softmax() -> nn.Sequential:
    """Keras' example as it is."""
    return network(nn.Softmax(dim=1))


def absolute_penalty() -> Case:
    def run(seed: int) -> Setup:
        penalised = Penalised(with_softmax, keras.categorical_crossentropy)
        return _run(seed, model=penalised.make, loss=penalised)

    return _case(
        "dc-R1",
        fault="reg_too_strong",
        buggy=run,
        notes="the factor is Keras' 0.01, since the source gives none",
    )


def softsign_output() -> Case:
    return _case(
        "dc-R2",
        fault="output_activation_wrong",
        buggy=partial(_run, model=lambda: network(nn.Softsign())),
    )


def hinge_loss() -> Case:
    return _case("dc-R4", fault="loss_wrong", buggy=partial(_run, loss=keras.hinge))


def plain_descent() -> Case:
    return _case("dc-R5", fault="optimizer_wrong", buggy=partial(_run, optimizer=sgd(0.01)))


def no_output_activation() -> Case:
    return _case("dc-R7", fault="output_activation_wrong", buggy=partial(_run, model=network))


def _run(
    seed: int,
    *,
    model: Callable[[], nn.Module] = with_softmax,
    loss: Callable[[Tensor, Tensor], Tensor] = keras.categorical_crossentropy,
    optimizer: OptimizerFactory | None = None,
) -> Setup:
    return program(
        seed,
        model=model,
        examples=articles("train", count=pick(quick=4000, full=10_000)).one_hot(CLASSES),
        loss=loss,
        optimizer=optimizer or adam(),
        batch_size=32,
        epochs=3,
        validation=0.1,
    )


def _case(name: str, *, fault: str, buggy: Callable[[int], Setup], notes: str = "") -> Case:
    return Case(
        name=name,
        origin="real",
        faults=(fault,),
        buggy=buggy,
        fixed=_run,
        score=accuracy(articles("test", count=10_000)),
        higher_is_better=True,
        metric="accuracy",
        notes=f"{INSTEAD}; {notes}" if notes else INSTEAD,
    )


CASES = (absolute_penalty, softsign_output, hinge_loss, plain_descent, no_output_activation)
