"""Weights under other names: torchvision's, timm's and Hugging Face's keys as tables to ours.

Most families have the names of their original, and need no table. Where two originals differ, ours
are the first one's and the others come through a table of beginnings, made for the depth at hand:

    vit_b_16 from torchvision   encoder.layers.encoder_layer_0.ln_1 -> blocks.0.norm1

`leadline import --keys NAME` prints them. A number in brackets, `attn.qkv[1]`, is the place of a
tensor among those that are joined to one. The surprising choice: a tensor of the same numbers in
another shape (a factor per channel, a dense layer written as a convolution) is reshaped silently,
since the numbers can only mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from leadline.core.errors import ModelError
from leadline.models.convnext import stage_counts
from leadline.models.efficientnet import COUNTS as EFFICIENT
from leadline.models.mobilenet_v2 import COUNTS as MOBILE
from leadline.models.resnet_block import Bottleneck
from leadline.models.resnet_imagenet import PLANS
from leadline.nn.repeats import repeats

Table = tuple[tuple[str, str], ...]

_PLACE = re.compile(r"\[(\d+)\]")
EXPANDED = (  # timm's names in an inverted bottleneck
    ("conv_pw", "0.0"), ("bn1", "0.1"), ("conv_dw", "1.0"), ("bn2", "1.1"),
)  # fmt: skip
PLAIN = (("conv_dw", "0.0"), ("bn1", "0.1"))


def key_tables(name: str, blueprint: Any) -> dict[str, Table]:
    """The tables of a model, by library: pairs of the beginning of their keys and that of ours.

    >>> from leadline.models.create import resolve
    >>> key_tables("vit_b_16", resolve("vit_b_16"))["torchvision"][0]
    ('conv_proj', 'patch_embed.proj')
    >>> key_tables("resnet20", resolve("resnet20"))
    {}
    """
    for beginning, makers in TABLES.items():
        if name.startswith(beginning):
            return {library: make(blueprint) for library, make in makers.items()}
    return {}


def translate(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], tables: Mapping[str, Table]
) -> dict[str, Tensor]:
    """The tensors under our names and in our shapes; unchanged where no table has all of them.

    `own` is the state dict of the model they are for.

    >>> own = {"head.weight": torch.zeros(2, 3)}
    >>> theirs = {"fc.weight": torch.zeros(2, 3, 1, 1)}
    >>> translate(theirs, own, {"timm": (("fc", "head"),)})["head.weight"].shape
    torch.Size([2, 3])
    """
    renamed = dict(state)
    if not set(own) <= set(state):
        for table in tables.values():
            names = {key: _renamed(key, table) for key in state}
            if all(names.values()):
                renamed = _joined({cast(str, names[key]): value for key, value in state.items()})
                break
    return {key: _reshaped(value, own.get(key)) for key, value in renamed.items()}


def _renamed(key: str, table: Table) -> str | None:
    for theirs, ours in table:
        if key == theirs or key.startswith(f"{theirs}."):
            place = _PLACE.search(ours)
            rest = key[len(theirs) :]
            return f"{_PLACE.sub('', ours)}{rest}{place[0] if place else ''}"
    return None


def _joined(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names end in a place, joined along their first axis in that order."""
    whole = {key: value for key, value in named.items() if not _PLACE.search(key)}
    parts: dict[str, dict[int, Tensor]] = {}
    for key, value in named.items():
        if place := _PLACE.search(key):
            parts.setdefault(_PLACE.sub("", key), {})[int(place[1])] = value
    for key, pieces in parts.items():
        if sorted(pieces) != list(range(len(pieces))):
            raise ModelError(
                expected=f"all the tensors that are joined to {key}",
                received=f"the places {', '.join(map(str, sorted(pieces)))}",
                remedy="take the whole file; it was cut",
            )
        whole[key] = torch.cat([pieces[place] for place in sorted(pieces)])
    return whole


def _reshaped(value: Tensor, own: Tensor | None) -> Tensor:
    if own is None or value.shape == own.shape or value.ndim == 0 or own.ndim == 0:
        return value
    same = value.numel() == own.numel() and value.shape[0] == own.shape[0]
    return value.reshape(own.shape) if same else value


def _vit_torchvision(blueprint: Any) -> Table:
    rows: list[tuple[str, str]] = [
        ("conv_proj", "patch_embed.proj"),
        ("class_token", "cls_token"),
        ("encoder.pos_embedding", "pos_embed"),
        ("encoder.ln", "norm"),
        ("heads.head", "head"),
    ]
    for i in range(blueprint.depth):
        theirs, ours = f"encoder.layers.encoder_layer_{i}", f"blocks.{i}"
        rows += [
            (f"{theirs}.ln_1", f"{ours}.norm1"),
            (f"{theirs}.self_attention.in_proj_weight", f"{ours}.attn.qkv.weight"),
            (f"{theirs}.self_attention.in_proj_bias", f"{ours}.attn.qkv.bias"),
            (f"{theirs}.self_attention.out_proj", f"{ours}.attn.proj"),
            (f"{theirs}.ln_2", f"{ours}.norm2"),
            (f"{theirs}.mlp.0", f"{ours}.mlp.fc1"),
            (f"{theirs}.mlp.3", f"{ours}.mlp.fc2"),
        ]
    return tuple(rows)


def _vit_transformers(blueprint: Any) -> Table:
    rows: list[tuple[str, str]] = [
        ("vit.embeddings.cls_token", "cls_token"),
        ("vit.embeddings.position_embeddings", "pos_embed"),
        ("vit.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("vit.layernorm", "norm"),
        ("classifier", "head"),
    ]
    for i in range(blueprint.depth):
        theirs, ours = f"vit.encoder.layer.{i}", f"blocks.{i}"
        rows += [
            (f"{theirs}.layernorm_before", f"{ours}.norm1"),
            (f"{theirs}.layernorm_after", f"{ours}.norm2"),
            *(
                (f"{theirs}.attention.attention.{part}", f"{ours}.attn.qkv[{place}]")
                for place, part in enumerate(("query", "key", "value"))
            ),
            (f"{theirs}.attention.output.dense", f"{ours}.attn.proj"),
            (f"{theirs}.intermediate.dense", f"{ours}.mlp.fc1"),
            (f"{theirs}.output.dense", f"{ours}.mlp.fc2"),
        ]
    return tuple(rows)


def _convnext(
    blueprint: Any, *, stem: Table, halved: str, block: str, names: Table, head: Table
) -> Table:
    rows = [*stem, *head]
    for stage, count in enumerate(stage_counts(blueprint.depth)):
        if stage:
            rows += [
                (f"{halved.format(stage=stage)}.{i}", f"features.{2 * stage}.{i}") for i in (0, 1)
            ]
        for b in range(count):
            theirs, ours = block.format(stage=stage, b=b), f"features.{2 * stage + 1}.{b}"
            rows += [(f"{theirs}.{their}", f"{ours}.{our}") for their, our in names]
    return tuple(rows)


def _convnext_timm(blueprint: Any) -> Table:
    return _convnext(
        blueprint,
        stem=(("stem.0", "features.0.0"), ("stem.1", "features.0.1")),
        halved="stages.{stage}.downsample",
        block="stages.{stage}.blocks.{b}",
        names=(
            ("gamma", "layer_scale"),
            ("conv_dw", "block.0"),
            ("norm", "block.2"),
            ("mlp.fc1", "block.3"),
            ("mlp.fc2", "block.5"),
        ),
        head=(("head.norm", "classifier.0"), ("head.fc", "classifier.2")),
    )


def _convnext_transformers(blueprint: Any) -> Table:
    return _convnext(
        blueprint,
        stem=(
            ("convnext.embeddings.patch_embeddings", "features.0.0"),
            ("convnext.embeddings.layernorm", "features.0.1"),
        ),
        halved="convnext.encoder.stages.{stage}.downsampling_layer",
        block="convnext.encoder.stages.{stage}.layers.{b}",
        names=(
            ("layer_scale_parameter", "layer_scale"),
            ("dwconv", "block.0"),
            ("layernorm", "block.2"),
            ("pwconv1", "block.3"),
            ("pwconv2", "block.5"),
        ),
        head=(("convnext.layernorm", "classifier.0"), ("classifier", "classifier.2")),
    )


def _resnet_transformers(blueprint: Any) -> Table:
    plan = PLANS[blueprint.depth]
    rows = [
        ("resnet.embedder.embedder.convolution", "conv1"),
        ("resnet.embedder.embedder.normalization", "bn1"),
        ("classifier.1", "fc"),
    ]
    for stage, count in enumerate(plan.counts):
        for b in range(count):
            theirs = f"resnet.encoder.stages.{stage}.layers.{b}"
            ours = f"layer{stage + 1}.{b}"
            rows += [
                (f"{theirs}.shortcut.convolution", f"{ours}.downsample.0"),
                (f"{theirs}.shortcut.normalization", f"{ours}.downsample.1"),
            ]
            for i in range(3 if plan.block is Bottleneck else 2):
                rows += [
                    (f"{theirs}.layer.{i}.convolution", f"{ours}.conv{i + 1}"),
                    (f"{theirs}.layer.{i}.normalization", f"{ours}.bn{i + 1}"),
                ]
    return tuple(rows)


def _efficientnet_timm(blueprint: Any) -> Table:
    rows = [
        ("conv_stem", "features.0.0"),
        ("bn1", "features.0.1"),
        ("conv_head", "features.8.0"),
        ("bn2", "features.8.1"),
        ("classifier", "classifier.1"),
    ]
    for stage, count in enumerate(repeats(EFFICIENT, blueprint.depth) or ()):
        begin = PLAIN if stage == 0 else EXPANDED
        se, last = (1, 2) if stage == 0 else (2, 3)
        end = ("conv_pw", "bn2") if stage == 0 else ("conv_pwl", "bn3")
        names = (
            *begin,
            ("se.conv_reduce", f"{se}.fc1"),
            ("se.conv_expand", f"{se}.fc2"),
            (end[0], f"{last}.0"),
            (end[1], f"{last}.1"),
        )
        for b in range(count):
            theirs, ours = f"blocks.{stage}.{b}", f"features.{stage + 1}.{b}.block"
            rows += [(f"{theirs}.{their}", f"{ours}.{our}") for their, our in names]
    return tuple(rows)


def _mobilenet_timm(blueprint: Any) -> Table:
    counts = repeats(MOBILE, blueprint.depth) or ()
    last = sum(counts) + 1
    rows = [
        ("conv_stem", "features.0.0"),
        ("bn1", "features.0.1"),
        ("conv_head", f"features.{last}.0"),
        ("bn2", f"features.{last}.1"),
        ("classifier", "classifier.1"),
    ]
    number = 0
    for stage, count in enumerate(counts):
        begin = PLAIN if stage == 0 else EXPANDED
        first = 1 if stage == 0 else 2
        end = ("conv_pw", "bn2") if stage == 0 else ("conv_pwl", "bn3")
        names = (*begin, (end[0], str(first)), (end[1], str(first + 1)))
        for b in range(count):
            number += 1
            theirs, ours = f"blocks.{stage}.{b}", f"features.{number}.conv"
            rows += [(f"{theirs}.{their}", f"{ours}.{our}") for their, our in names]
    return tuple(rows)


def _vgg_timm(blueprint: Any) -> Table:
    return (
        ("features", "features"),
        ("pre_logits.fc1", "classifier.0"),
        ("pre_logits.fc2", "classifier.3"),
        ("head.fc", "classifier.6"),
    )


TABLES: dict[str, dict[str, Callable[[Any], Table]]] = {
    "vit_": {"torchvision": _vit_torchvision, "transformers": _vit_transformers},
    "convnext_": {"timm": _convnext_timm, "transformers": _convnext_transformers},
    "efficientnet_": {"timm": _efficientnet_timm},
    "mobilenet_v2": {"timm": _mobilenet_timm},
    "vgg": {"timm": _vgg_timm},
    **{f"resnet{depth}": {"transformers": _resnet_transformers} for depth in PLANS},
}
"""The makers of tables, by the beginning of a model's name and by library."""
