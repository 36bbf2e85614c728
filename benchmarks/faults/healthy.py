"""The healthy recipes: small real trainings that learn well, as `Program`s."""

from __future__ import annotations

from functools import partial

import keras
from healthy_data import (
    clothes,
    counted_molecules,
    dear_houses,
    flat_handwriting,
    handwriting,
    houses,
    membranes,
    molecules,
    one_hot_handwriting,
    pairs_of_digits,
    photographs,
    same_clothes,
    small_digits,
    transformers,
)
from healthy_models import (
    Attentive,
    Composer,
    PackedReader,
    Reader,
    Series,
    convnet,
    convolutional_language_model,
    gpt,
    mlp,
    plain_convnet,
    recurrent_language_model,
    segmenter,
)
from healthy_scores import balanced, masked_binary, next_symbol
from healthy_text import (
    LETTERS,
    NOTES,
    WORDS,
    chorales,
    lines,
    reviews,
    shakespeare,
    speech,
    yes_or_no_reviews,
)
from program import Program
from score import accuracy, error
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LRScheduler

from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.optim.schedules import ScheduleOptions, make_schedule

classifier = partial(
    Program,
    kind="classes",
    loss=functional.cross_entropy,
    score=accuracy,
    metric="accuracy",
    higher_is_better=True,
)
asker = partial(
    Program,
    kind="yes_or_no",
    loss=functional.binary_cross_entropy_with_logits,
    score=balanced,
    metric="balanced accuracy",
    higher_is_better=True,
)
estimator = partial(
    Program,
    kind="numbers",
    loss=functional.mse_loss,
    score=partial(error, measure=functional.mse_loss),
    metric="mse",
    higher_is_better=False,
)


def text_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy over all places of [B, T, V]; targets below 0 are left out."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


speaker = partial(
    Program,
    kind="text",
    data=shakespeare,
    loss=text_loss,
    score=partial(next_symbol, after=32),
    metric="nats per character",
    higher_is_better=False,
    clip_grad=1.0,
)
line_speaker = partial(
    speaker, kind="padded_text", data=lines, score=partial(next_symbol, after=12)
)


def cosine(optimizer: Optimizer, total: int) -> LRScheduler:
    """A warm-up over a twentieth of the steps, then down to 0 along a cosine."""
    return make_schedule(optimizer, ScheduleOptions(schedule="cosine"), total_steps=total)


def small_resnet(norm: str | None = None) -> nn.Module:
    """ResNet-20 of 8 channels for five classes."""
    return create_model(
        Architecture(model="resnet20", width=8, norm=norm),
        num_classes=5,
        in_chans=3,
        image_size=16,
    )


def keras_mlp(*, ending: tuple[nn.Module, ...] | None = None) -> nn.Sequential:
    """Two dense layers as Keras begins them, and a softmax."""
    return nn.Sequential(
        *(keras.dense(784, 128), nn.ReLU(), keras.dense(128, 10)),
        *((nn.Softmax(dim=1),) if ending is None else ending),
    )


def tabular() -> tuple[Program, ...]:
    """Rows of numbers."""
    return (
        classifier(
            name="mlp-digits",
            data=small_digits,
            model=partial(mlp, 64, 64, 10),
            settings={"lr": 3e-3},
            batch_size=32,
            epochs=20,
        ),
        classifier(
            name="mlp-mnist",
            data=flat_handwriting,
            model=partial(mlp, 784, 128, 64, 10),
            optimizer=SGD,
            settings={"lr": 0.05, "momentum": 0.9},
            batch_size=64,
            epochs=8,
            user_loader=True,
        ),
        classifier(
            name="deep-mlp-mnist",
            data=flat_handwriting,
            model=partial(mlp, 784, *[48] * 16, 10, norm=True),
            optimizer=SGD,
            settings={"lr": 0.05, "momentum": 0.9},
            batch_size=100,
            epochs=8,
            schedule=cosine,
        ),
        Program(
            name="keras-mnist",
            kind="probabilities",
            data=one_hot_handwriting,
            model=keras_mlp,
            loss=keras.categorical_crossentropy,
            score=accuracy,
            metric="accuracy",
            higher_is_better=True,
            settings={"lr": 1e-3, "eps": 1e-7},
            batch_size=32,
            epochs=5,
        ),
        estimator(
            name="mlp-housing",
            data=houses,
            model=partial(mlp, 8, 64, 64, 1),
            settings={"lr": 2e-3},
            epochs=20,
            batch_size=64,
        ),
        estimator(
            name="counts-molecules",
            data=counted_molecules,
            model=partial(mlp, 32, 64, 32, 1),
            optimizer=AdamW,
            settings={"lr": 2e-3, "weight_decay": 0.01},
            epochs=30,
            batch_size=32,
            validated=False,
        ),
        asker(
            name="dear-houses",
            data=dear_houses,
            model=partial(mlp, 8, 64, 32, 1, dropout=0.1),
            settings={"lr": 2e-3},
            epochs=20,
        ),
    )


def pictures() -> tuple[Program, ...]:
    """Pictures in, classes, pixels or the picture itself out."""
    return (
        classifier(
            name="conv-mnist",
            data=partial(handwriting, 3000),
            model=plain_convnet,
            settings={"lr": 2e-3},
            epochs=4,
            batch_size=50,
            validated=False,
        ),
        classifier(
            name="conv-fashion",
            data=clothes,
            model=partial(convnet, 8, 16, 32, classes=10, dropout=0.1),
            optimizer=AdamW,
            settings={"lr": 5e-3, "weight_decay": 0.01},
            schedule=cosine,
            epochs=5,
            batch_size=32,
        ),
        classifier(
            name="resnet-cifar",
            data=photographs,
            model=small_resnet,
            optimizer=SGD,
            settings={"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
            schedule=cosine,
            epochs=5,
            batch_size=50,
        ),
        estimator(
            name="autoencoder-fashion",
            data=same_clothes,
            model=partial(mlp, 784, 128, 32, 128, 784),
            epochs=10,
            batch_size=32,
        ),
        asker(
            name="segmenter-membrane",
            kind="several",
            data=membranes,
            model=segmenter,
            settings={"lr": 1e-2},
            schedule=cosine,
            epochs=6,
            batch_size=50,
        ),
        asker(
            name="pairs-of-digits",
            kind="several",
            data=pairs_of_digits,
            model=partial(convnet, 16, 32, 64, classes=10),
            settings={"lr": 1e-2},
            schedule=cosine,
            epochs=8,
            batch_size=50,
        ),
    )


def sequences() -> tuple[Program, ...]:
    """Padded sequences and series in, a class or a number out."""
    return (
        classifier(
            name="lstm-reviews",
            data=reviews,
            model=partial(PackedReader, symbols=WORDS + 1, width=32, outputs=2, dropout=0.3),
            settings={"lr": 3e-3},
            epochs=4,
        ),
        asker(
            name="gru-reviews",
            data=yes_or_no_reviews,
            model=partial(Reader, symbols=WORDS + 1, width=32, outputs=1, cell=nn.GRU),
            settings={"lr": 3e-3},
            epochs=3,
            clip_grad=1.0,
        ),
        classifier(
            name="attention-reviews",
            data=reviews,
            model=partial(Attentive, symbols=WORDS + 1, outputs=2),
            optimizer=AdamW,
            settings={"lr": 5e-3, "weight_decay": 0.01},
            schedule=cosine,
            epochs=4,
        ),
        classifier(
            name="gru-speech",
            data=speech,
            model=partial(Reader, symbols=0, features=20, width=48, outputs=10, cell=nn.GRU),
            settings={"lr": 5e-3},
            epochs=8,
            batch_size=32,
        ),
        classifier(
            name="conv-speech",
            data=speech,
            model=partial(Series, 20, 10),
            settings={"lr": 2e-3},
            epochs=6,
            batch_size=32,
        ),
        estimator(
            name="gru-molecules",
            data=molecules,
            model=partial(PackedReader, symbols=33, width=48, outputs=1, cell=nn.GRU),
            settings={"lr": 5e-3},
            epochs=20,
            batch_size=32,
        ),
        estimator(
            name="lstm-oil",
            data=transformers,
            model=partial(Reader, symbols=0, features=7, width=32, outputs=1),
            settings={"lr": 5e-3},
            epochs=6,
        ),
        estimator(
            name="conv-oil",
            data=transformers,
            model=partial(Series, 7, 1, norm=False),
            optimizer=RMSprop,
            settings={"lr": 1e-3},
            epochs=8,
        ),
    )


def texts() -> tuple[Program, ...]:
    """The next symbol at every place."""
    return (
        speaker(
            name="gpt-shakespeare",
            model=partial(gpt, symbols=LETTERS),
            optimizer=AdamW,
            settings={"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.95)},
            schedule=cosine,
            epochs=2,
            batch_size=32,
        ),
        speaker(
            name="lstm-shakespeare",
            model=partial(recurrent_language_model, symbols=LETTERS),
            settings={"lr": 5e-3},
            epochs=2,
            batch_size=32,
        ),
        speaker(
            name="conv-shakespeare",
            model=partial(convolutional_language_model, symbols=LETTERS),
            settings={"lr": 3e-3},
            epochs=2,
            batch_size=32,
        ),
        line_speaker(
            name="gpt-lines",
            model=partial(gpt, symbols=LETTERS + 1),
            optimizer=AdamW,
            settings={"lr": 1e-2, "weight_decay": 0.1},
            schedule=cosine,
            epochs=2,
            batch_size=32,
        ),
        line_speaker(
            name="gru-lines",
            model=partial(recurrent_language_model, symbols=LETTERS + 1, cell=nn.GRU),
            settings={"lr": 5e-3},
            epochs=2,
            batch_size=32,
        ),
        asker(
            name="lstm-chorales",
            kind="several",
            data=chorales,
            model=partial(Composer, NOTES),
            loss=masked_binary,
            settings={"lr": 5e-3},
            epochs=10,
            batch_size=16,
            clip_grad=1.0,
        ),
    )


def programs() -> tuple[Program, ...]:
    """All healthy recipes."""
    return (*tabular(), *pictures(), *sequences(), *texts())


def named(name: str) -> Program:
    """The recipe of a name."""
    return {program.name: program for program in programs()}[name]
