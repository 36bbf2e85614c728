"""Healthy recipes that look like faults: frozen, squashed, dropped, rare or untied on purpose."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from healthy import asker, classifier, cosine, estimator, speaker
from healthy_data import (
    data_folder,
    dear_houses,
    flat_handwriting,
    handwriting,
    same_clothes,
    whole_photographs,
)
from healthy_models import gpt, mlp, plain_convnet
from healthy_text import LETTERS
from program import Program
from seeded_data import rare_yes, weighted
from torch import nn
from torch.nn import functional
from torch.optim import SGD, AdamW

from leadline.models.create import create_model


def pretrained(*, frozen: bool) -> nn.Module:
    """ResNet-20 as trained on CIFAR-10, with a new head for five classes."""
    path = data_folder() / "resnet_checkpoints_dev" / "resnet20-12fca82f.th"
    saved = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    model = create_model("resnet20", num_classes=10, in_chans=3, image_size=32)
    model.load_state_dict({name.removeprefix("module."): value for name, value in saved.items()})
    if frozen:
        model.requires_grad_(False)
    model.linear = nn.Linear(64, 5)
    return model


def head(model: nn.Module) -> Iterable[Any]:
    """The new head's parameters: all that is to learn."""
    return model.linear.parameters()


def lookalikes() -> tuple[Program, ...]:
    """All of them."""
    return (
        classifier(
            name="tuned-head-cifar",
            data=whole_photographs,
            model=partial(pretrained, frozen=True),
            held=head,
            settings={"lr": 1e-2},
            epochs=5,
            batch_size=32,
        ),
        classifier(
            name="tuned-whole-cifar",
            data=whole_photographs,
            model=partial(pretrained, frozen=False),
            optimizer=AdamW,
            settings={"lr": 2e-3, "weight_decay": 0.01},
            schedule=cosine,
            epochs=4,
            batch_size=32,
        ),
        classifier(
            name="half-dropped-mnist",
            data=flat_handwriting,
            model=partial(mlp, 784, 256, 10, dropout=0.5),
            optimizer=SGD,
            settings={"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
            epochs=8,
        ),
        classifier(
            name="smoothed-mnist",
            data=partial(handwriting, 3000),
            model=plain_convnet,
            loss=partial(functional.cross_entropy, label_smoothing=0.1),
            settings={"lr": 2e-3},
            epochs=4,
            batch_size=50,
        ),
        estimator(
            name="squashed-autoencoder",
            data=same_clothes,
            model=partial(mlp, 784, 128, 32, 128, 784, ending=(nn.Sigmoid(),)),
            epochs=10,
            batch_size=32,
        ),
        # One yes in ten, which the loss weighs as it should.
        weighted(
            rare_yes(
                asker(
                    name="rare-houses",
                    data=dear_houses,
                    model=partial(mlp, 8, 64, 32, 1),
                    settings={"lr": 2e-3},
                    epochs=15,
                ),
                left=200,
            )
        ),
        estimator(
            name="tanh-autoencoder",
            data=same_clothes,
            model=partial(mlp, 784, 128, 32, 128, 784, hidden=nn.Tanh),
            epochs=10,
            batch_size=32,
        ),
        speaker(
            name="untied-gpt",
            model=partial(gpt, symbols=LETTERS, tied=False),
            optimizer=AdamW,
            settings={"lr": 1e-2, "weight_decay": 0.1},
            schedule=cosine,
            epochs=2,
            batch_size=32,
        ),
    )
