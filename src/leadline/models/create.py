"""Models by name: the list of all, their captions, and one function that builds any of them."""

from __future__ import annotations

import dataclasses

from torch import nn

from leadline.core.errors import ModelError
from leadline.core.names import look_up
from leadline.models import convnet, mlp, resnet_cifar, resnet_imagenet
from leadline.models.architecture import Architecture, Blueprint, Family, Images, fill_in
from leadline.nn.initialisation import initialise

FAMILIES: dict[str, Family] = {
    "mlp": Family(
        caption="multilayer perceptron: depth = hidden layers, width = units in each",
        build=mlp.MLP,
        defaults=mlp.DEFAULTS,
        problems=mlp.problems,
        final_size=None,
        residual_from=None,
        preactivation=False,
    ),
    "convnet": Family(
        caption="small, fast convolutional net for small images: depth = convolutions in each of "
        "3 stages, width = channels of the first stage",
        build=convnet.ConvNet,
        defaults=convnet.DEFAULTS,
        problems=convnet.problems,
        final_size=convnet.final_size,
        residual_from=convnet.RESIDUAL_FROM,
        preactivation=False,
    ),
    **{
        f"resnet{depth}": Family(
            caption=f"ResNet-{depth}, CIFAR form for small images: depth = layers (6n + 2), "
            "width = channels of the first stage",
            build=resnet_cifar.ResNetCifar,
            defaults=dataclasses.replace(resnet_cifar.DEFAULTS, depth=depth),
            problems=resnet_cifar.problems,
            final_size=resnet_cifar.final_size,
            residual_from=1,
            preactivation=True,
        )
        for depth in resnet_cifar.DEPTHS
    },
    **{
        f"resnet{depth}": Family(
            caption=f"ResNet-{depth}, ImageNet form for large images: depth = layers "
            f"({', '.join(map(str, resnet_imagenet.PLANS))}), width = planes of the first stage",
            build=resnet_imagenet.ResNetImageNet,
            defaults=dataclasses.replace(resnet_imagenet.DEFAULTS, depth=depth),
            problems=resnet_imagenet.problems,
            final_size=resnet_imagenet.final_size,
            residual_from=1,
            preactivation=True,
        )
        for depth in resnet_imagenet.PLANS
    },
}


def create_model(
    architecture: Architecture | str, *, num_classes: int, in_chans: int, image_size: int
) -> nn.Module:
    """Build and initialise a model; its weights follow from the global random state alone.

    It maps images (batch, `in_chans`, height, width) to logits (batch, `num_classes`).
    `image_size` is the side of the square images; an MLP accepts no other, the convolutional
    families accept any. Raises UnknownNameError for an unknown model, ConfigError with every
    choice that the family cannot honour, ModelError when the images are too small for the choices.

    >>> model = create_model("resnet20", num_classes=10, in_chans=3, image_size=32)
    >>> sum(parameter.numel() for parameter in model.parameters())
    269722
    """
    if isinstance(architecture, str):
        architecture = Architecture(model=architecture)
    family = look_up(architecture.model, FAMILIES, kind="model")
    blueprint = fill_in(architecture, family=family)
    images = Images(num_classes=num_classes, in_chans=in_chans, image_size=image_size)
    _check_size(architecture.model, family=family, blueprint=blueprint, images=images)
    model = family.build(blueprint, images)
    initialise(model, scheme=blueprint.init, activation=blueprint.activation)
    return model


def resolve(architecture: Architecture | str) -> Blueprint:
    """The choices with which `architecture` will be built; raises what `create_model` would.

    >>> resolve("resnet56").depth
    56
    """
    if isinstance(architecture, str):
        architecture = Architecture(model=architecture)
    return fill_in(architecture, family=look_up(architecture.model, FAMILIES, kind="model"))


def list_models() -> tuple[str, ...]:
    """The names of all models, each family from its smallest to its largest."""
    return tuple(FAMILIES)


def describe_model(name: str) -> str:
    """One line on the model called `name`, with the units of its depth and width.

    >>> describe_model("mlp")
    'multilayer perceptron: depth = hidden layers, width = units in each'
    """
    return look_up(name, FAMILIES, kind="model").caption


def _check_size(name: str, *, family: Family, blueprint: Blueprint, images: Images) -> None:
    if blueprint.norm != "instance" or family.final_size is None:
        return
    if family.final_size(images) < 2:
        side = images.image_size
        raise ModelError(
            expected=f"maps larger than one pixel, over which instance norm can average, in {name}",
            received=f"images of {side} x {side} pixels, which end as one",
            remedy="choose larger images, another norm, or convnet, which pools less",
        )
