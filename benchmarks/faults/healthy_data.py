"""The data of the healthy recipes: small real sets, each split into train, validation and test.

All are read from LEADLINE_DATA once per process and come in a fixed order, mixed by seed 0; the
digits of 8 by 8 pixels are scikit-learn's. Pictures are float32 in [0, 1], tables standardised with
the figures of their training part, text is numbers of characters or words with 0 for padding.
"""

from __future__ import annotations

import csv
import functools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from data import Examples, cifar, mnist
from leadline.core.errors import DataError
from leadline.data.idx import read_idx


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """What a recipe learns from, watches, and is judged by."""

    train: Examples
    validation: Examples
    test: Examples


def split(inputs: Tensor, targets: Tensor, *, counts: tuple[int, int, int]) -> Material:
    """Mix by seed 0 and cut off so many examples for training, validation and test."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    whole = Examples(inputs=inputs, targets=targets)
    train, validation, test = order[: sum(counts)].split(counts)
    return Material(train=whole[train], validation=whole[validation], test=whole[test])


def standardised(material: Material, *, targets: bool = False) -> Material:
    """Inputs, on request targets too, minus the training part's mean over its deviation."""

    def scaled(part: Examples) -> Examples:
        return Examples(
            inputs=_scaled(part.inputs, material.train.inputs),
            targets=_scaled(part.targets, material.train.targets) if targets else part.targets,
        )

    parts = (material.train, material.validation, material.test)
    train, validation, test = map(scaled, parts)
    return Material(train=train, validation=validation, test=test)


@functools.cache
def small_digits() -> Material:
    """8 x 8 digits as 64 numbers."""
    digits = load_digits()
    inputs = torch.from_numpy(digits.data).float() / 16
    targets = torch.from_numpy(digits.target).long()
    return split(inputs, targets, counts=(1200, 200, 397))


@functools.cache
def handwriting(count: int = 4000) -> Material:
    """MNIST, [N, 1, 28, 28]."""
    train = mnist("train", count=count + 500)
    return Material(train=train[:count], validation=train[count:], test=mnist("test", count=1000))


@functools.cache
def flat_handwriting(count: int = 4000) -> Material:
    """MNIST as 784 numbers."""
    whole = handwriting(count)
    return Material(
        train=whole.train.flat(), validation=whole.validation.flat(), test=whole.test.flat()
    )


@functools.cache
def one_hot_handwriting() -> Material:
    """MNIST as 784 numbers, with rows of zeros and a one for targets, as Keras takes them."""
    whole = flat_handwriting()
    return Material(
        train=whole.train.one_hot(),
        validation=whole.validation.one_hot(),
        test=whole.test.one_hot(),
    )


@functools.cache
def clothes(count: int = 3000) -> Material:
    """Fashion-MNIST, [N, 1, 28, 28]."""
    inputs, targets = _fashion("train")
    test_inputs, test_targets = _fashion("t10k")
    train = Examples(inputs=inputs[: count + 500], targets=targets[: count + 500])
    test = Examples(inputs=test_inputs[:1000], targets=test_targets[:1000])
    return Material(train=train[:count], validation=train[count:], test=test)


@functools.cache
def same_clothes(count: int = 3000) -> Material:
    """Fashion-MNIST as 784 numbers, which are the targets too."""

    def own_targets(part: Examples) -> Examples:
        return Examples(inputs=part.inputs.flatten(1), targets=part.inputs.flatten(1))

    whole = clothes(count)
    return Material(
        train=own_targets(whole.train),
        validation=own_targets(whole.validation),
        test=own_targets(whole.test),
    )


@functools.cache
def photographs(count: int = 2500) -> Material:
    """Five classes of CIFAR-10 at half the size, [N, 3, 16, 16], normalised.

    They are aeroplane, car, bird, frog and ship.
    """
    kept = torch.tensor([0, 1, 2, 6, 8])
    mean = torch.tensor([0.491, 0.482, 0.447]).view(3, 1, 1)
    std = torch.tensor([0.247, 0.243, 0.262]).view(3, 1, 1)

    def chosen(part: Examples) -> Examples:
        rows = torch.isin(part.targets, kept)
        numbers = torch.searchsorted(kept, part.targets[rows])
        return Examples(inputs=(_halved(part.inputs[rows]) - mean) / std, targets=numbers)

    train = chosen(cifar("train", count=3 * count))
    return Material(
        train=train[:count],
        validation=train[count : count + 400],
        test=chosen(cifar("test", count=1600)),
    )


@functools.cache
def whole_photographs(count: int = 400) -> Material:
    """The same classes at full size, [N, 3, 32, 32], normalised as the checkpoints want it."""
    kept = torch.tensor([0, 1, 2, 6, 8])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def chosen(part: Examples, wanted: int) -> Examples:
        rows = torch.isin(part.targets, kept).nonzero()[:wanted, 0]
        numbers = torch.searchsorted(kept, part.targets[rows])
        return Examples(inputs=(part.inputs[rows] - mean) / std, targets=numbers)

    train = chosen(cifar("train", count=1500), count + 100)
    return Material(
        train=train[:count], validation=train[count:], test=chosen(cifar("test", count=1000), 400)
    )


@functools.cache
def pairs_of_digits(count: int = 3000) -> Material:
    """Two MNIST digits side by side at half the size, [N, 1, 14, 28].

    Targets are 10 times yes or no: which digits are there.
    """

    def paired(part: Examples) -> Examples:
        half = len(part) // 2
        left, right = part[:half], part[half : 2 * half]
        named = [torch.nn.functional.one_hot(x.targets, 10) for x in (left, right)]
        return Examples(
            inputs=_halved(torch.cat([left.inputs, right.inputs], dim=3)),
            targets=(named[0] | named[1]).float(),
        )

    train = paired(mnist("train", count=2 * count + 800))
    test = paired(mnist("test", count=1600))
    return Material(train=train[:count], validation=train[count:], test=test)


@functools.cache
def membranes() -> Material:
    """Pieces of 32 x 32 pixels of electron micrographs; 1 where a pixel is no membrane."""
    folder = data_folder() / "isbi_membrane" / "data" / "membrane" / "train"
    images, labels = (
        torch.from_numpy(
            np.stack([np.asarray(Image.open(folder / kind / f"{i}.png")) for i in range(30)])
        )
        for kind in ("image", "label")
    )
    pieces = [
        x.unfold(1, 32, 32).unfold(2, 32, 32).flatten(1, 2).float() / 255 for x in (images, labels)
    ]
    count = pieces[0].shape[1]
    order = torch.randperm(24 * count, generator=torch.Generator().manual_seed(0))
    inputs = (pieces[0] - 0.5) / 0.18  # mean and deviation of all pictures
    targets = (pieces[1] > 0.5).float()
    train = Examples(
        inputs=inputs[:24].flatten(0, 1)[:, None], targets=targets[:24].flatten(0, 1)[:, None]
    )[order[:1700]]
    test = Examples(
        inputs=inputs[24:].flatten(0, 1)[:, None], targets=targets[24:].flatten(0, 1)[:, None]
    )[torch.arange(0, 6 * count, 5)]
    return Material(train=train[:1500], validation=train[1500:], test=test)


@functools.cache
def raw_houses(count: int = 4000) -> Material:
    """California housing: 8 numbers of a district as they are; the median value in dollars."""
    with (data_folder() / "california_housing" / "housing.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["total_bedrooms"]]
    names = [n for n in rows[0] if n not in ("median_house_value", "ocean_proximity")]
    inputs = torch.tensor([[float(row[name]) for name in names] for row in rows])
    targets = torch.tensor([[float(row["median_house_value"])] for row in rows])
    return split(inputs, targets, counts=(count, 500, 1500))


@functools.cache
def houses(count: int = 4000) -> Material:
    """The same, standardised."""
    return standardised(raw_houses(count), targets=True)


@functools.cache
def dear_houses(count: int = 4000) -> Material:
    """The same inputs; 1 where the value is above $180,000, the median, else 0."""
    raw, whole = raw_houses(count), houses(count)

    def asked(part: Examples, dollars: Examples) -> Examples:
        return Examples(inputs=part.inputs, targets=(dollars.targets > 180_000).float())

    return Material(
        train=asked(whole.train, raw.train),
        validation=asked(whole.validation, raw.validation),
        test=asked(whole.test, raw.test),
    )


@functools.cache
def transformers() -> Material:
    """ETTh1: 24 hours of 7 readings, [N, 24, 7]; the oil temperature 6 hours later."""
    path = data_folder() / "etth1" / "ETTh1.csv"
    table = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 8), dtype=np.float32)
    values = torch.from_numpy(table)
    values = (values - values[:8640].mean(0)) / values[:8640].std(0)
    windows = values.unfold(0, 30, 1).transpose(1, 2)  # [N, 30, 7]
    inputs, targets = windows[:, :24], windows[:, 29, 6:]

    def part(begin: int, end: int, step: int) -> Examples:
        rows = torch.arange(begin, end, step)
        return Examples(inputs=inputs[rows], targets=targets[rows])

    return Material(
        train=part(0, 8640, 3), validation=part(8670, 11_520, 6), test=part(11_550, 14_400, 3)
    )


@functools.cache
def molecules() -> Material:
    """ESOL: a molecule as characters, [N, 56] with 0 behind its end; its log solubility."""
    with (data_folder() / "molecules_dev" / "delaney-processed.csv").open() as file:
        rows = list(csv.DictReader(file))
    texts = [row["smiles"].strip() for row in rows]
    targets = torch.tensor([[float(r["measured log solubility in mols per litre"])] for r in rows])
    inputs = numbered([list(text) for text in texts], length=56, words=32)
    whole = split(inputs, targets, counts=(860, 100, 168))
    scaled = [
        Examples(inputs=x.inputs, targets=_scaled(x.targets, whole.train.targets))
        for x in (whole.train, whole.validation, whole.test)
    ]
    return Material(train=scaled[0], validation=scaled[1], test=scaled[2])


@functools.cache
def counted_molecules() -> Material:
    """The same molecules as how often each of 32 characters comes, standardised."""

    def counts(part: Examples) -> Examples:
        rows = torch.nn.functional.one_hot(part.inputs, 33)[:, :, 1:].sum(1).float()
        return Examples(inputs=rows, targets=part.targets)

    whole = molecules()
    return standardised(
        Material(
            train=counts(whole.train), validation=counts(whole.validation), test=counts(whole.test)
        )
    )


def numbered(texts: list[list[str]], *, length: int, words: int) -> Tensor:
    """Rows of numbers from 1 in order of frequency; rare words share the last, 0 fills up."""
    common = Counter(word for text in texts for word in text).most_common(words - 1)
    numbers = {word: i + 1 for i, (word, _) in enumerate(common)}
    rows = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        known = torch.tensor([numbers.get(word, words) for word in text[:length]])
        row[: len(known)] = known
    return rows


def data_folder() -> Path:
    """Where LEADLINE_DATA points."""
    folder = Path(os.environ.get("LEADLINE_DATA", ""))
    if not os.environ.get("LEADLINE_DATA") or not folder.is_dir():
        raise DataError(
            expected="the folder of data sets in the environment variable LEADLINE_DATA",
            received=repr(os.environ.get("LEADLINE_DATA", "")),
            remedy="set it to the folder that holds mnist, fashion_mnist and the others",
        )
    return folder


def _halved(pictures: Tensor) -> Tensor:
    """The mean of every 2 x 2 pixels."""
    return torch.nn.functional.avg_pool2d(pictures, 2)


def _scaled(values: Tensor, training: Tensor) -> Tensor:
    return (values - training.mean(0)) / training.std(0).clamp(min=1e-6)


@functools.cache
def _fashion(name: str) -> tuple[Tensor, Tensor]:
    folder = data_folder() / "fashion_mnist"
    images = read_idx(folder / f"{name}-images-idx3-ubyte.gz").astype(np.float32)
    labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz").astype(np.int64)
    return torch.from_numpy(images)[:, None] / 255, torch.from_numpy(labels)
