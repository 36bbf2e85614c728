"""leadline import FILE --as NAME: weights of torchvision, timm or Hugging Face as a model of ours.

FILE is a safetensors file, or one of torch.save, read as weights only in a process with limits.

What is written is a model.safetensors like that of a run: predict with it, or train on from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from leadline.cli.options import parse
from leadline.core.errors import ConfigError, FileError
from leadline.models.adopt import adopt, read_weights
from leadline.models.create import resolve
from leadline.models.foreign import key_tables
from leadline.models.recognise import recognise
from leadline.training.trained import Description, save_model

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""What torchvision's, timm's and most others' weights were normalised with, per colour."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """The words after `leadline import`."""

    file: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="FILE")] = None
    """the weights"""
    as_: Annotated[str, tyro.conf.arg(name="as", metavar="NAME")] = ""
    """the model that they are of (see leadline list); nothing: say which it could be"""
    options: tuple[str, ...] = ()
    """the family's own choices, each as name=value (see leadline list NAME)"""
    out: Path | None = None
    """where to write; FILE with the ending .safetensors, or NAME.safetensors beside it"""
    classes: Path | None = None
    """a text file with the name of a class on each line; numbered where there is none"""
    mean: tuple[float, ...] = ()
    """of each channel in the training of these weights; ImageNet's where they have three"""
    std: tuple[float, ...] = ()
    """the standard deviation of each channel there"""
    keys: bool = False
    """print the tables from the names of other libraries to ours, and read nothing"""


def run(words: list[str], *, as_json: bool) -> int:
    """Import; the exit code."""
    options = parse(ImportOptions, words, verb="import", caption=__doc__ or "")
    if options.keys:
        return _print_keys(options.as_, as_json=as_json)
    if options.file is None:
        raise ConfigError(
            expected="a file of weights, and --as NAME",
            received="no file",
            remedy="try: leadline import resnet50.pth --as resnet50",
        )
    if not options.as_:
        return _print_likeness(options.file, as_json=as_json)
    return _import(options, options.file, as_json=as_json)


def _import(options: ImportOptions, file: Path, *, as_json: bool) -> int:
    out = _out(options, file)
    adopted = adopt(read_weights(file), options.as_, options=options.options)
    channels, size = adopted.in_chans, adopted.image_size
    description = Description(
        architecture=adopted.architecture,
        shape=(channels, size, size),
        mean=options.mean or _usual(IMAGENET_MEAN, channels, 0.5),
        std=options.std or _usual(IMAGENET_STD, channels, 0.5),
        class_names=_class_names(options.classes, adopted.num_classes),
    )
    save_model(out, adopted.model, description)
    count = sum(parameter.numel() for parameter in adopted.model.parameters())
    told = {
        "model": str(out),
        "as": options.as_,
        "parameters": count,
        "num_classes": adopted.num_classes,
        "in_chans": channels,
        "image_size": size,
    }
    if as_json:
        print(json.dumps(told))
        return 0
    print(
        f"model     {options.as_}: {count:,} parameters, {adopted.num_classes:,} classes, "
        f"{channels} channels, {size} x {size} pixels"
    )
    print(f"written   {out}")
    print(f"try       leadline train PATH --from {out} --freeze stem")
    return 0


def _out(options: ImportOptions, file: Path) -> Path:
    out = options.out or file.with_suffix(".safetensors")
    if options.out is None and out == file:
        out = file.with_name(f"{options.as_}.safetensors")
    if out.exists() and out.resolve() == file.resolve():
        raise FileError(
            expected="a file to write that is not the one to read",
            received=f"{out} for both",
            remedy="name another: --out NAME.safetensors",
        )
    return out


def _usual(values: tuple[float, ...], channels: int, other: float) -> tuple[float, ...]:
    return values if channels == len(values) else (other,) * channels


def _class_names(place: Path | None, count: int) -> tuple[str, ...]:
    if place is None:
        return tuple(f"class {number}" for number in range(count))
    try:
        names = tuple(line.strip() for line in place.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            expected=f"a text file with a class on each line at {place}",
            received=str(error),
            remedy="check the path",
        ) from error
    if len(names) != count:
        raise ConfigError(
            expected=f"{count} names of classes in {place}, one for each output of the weights",
            received=f"{len(names)} lines",
            remedy="add what is missing, in the order in which they were trained",
        )
    return names


def _print_keys(name: str, *, as_json: bool) -> int:
    tables = key_tables(name, resolve(name))
    if as_json:
        print(json.dumps(tables))
        return 0
    if not tables:
        print(f"{name} has the names of its original: no table is needed")
    for library, table in tables.items():
        print(f"{library} -> {name}")
        for theirs, ours in table:
            print(f"  {theirs:<56}{ours}")
    return 0


def _print_likeness(file: Path, *, as_json: bool) -> int:
    found = recognise(read_weights(file))[:5]
    if as_json:
        print(json.dumps({"file": str(file), "like": {like.name: like.share for like in found}}))
    elif not found:
        print(f"{file} is like no model here; see leadline list")
    else:
        print(f"{file} looks like {', '.join(map(str, found))}")
        print(f"try       leadline import {file} --as {found[0].name}")
    return 0 if found else 1
