"""The data of the rebuilt programs, from LEADLINE_DATA, scikit-learn or a published recipe.

Pictures come as float32 in [0, 1]. CIFAR-10 is the JPEG copy: its 60,000 files are decoded once and
kept in the temporary folder of the machine. Reuters is not at hand: `articles` builds a set of the
same kind and shape from WikiText-2.
"""

from __future__ import annotations

import collections
import functools
import io
import lzma
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from leadline.core.errors import DataError
from leadline.data.idx import read_idx

Split = Literal["train", "test"]
MNIST_NAMES = {"train": "train", "test": "t10k"}
WORDS = 10_000  # of Reuters in Keras: the most frequent ones
CLASSES = 46  # of Reuters
CHUNK = 50  # words of an article that make one example


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Inputs and targets, as many of each."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, part: slice | Tensor) -> Examples:
        return Examples(inputs=self.inputs[part], targets=self.targets[part])

    def flat(self) -> Examples:
        """The same with one row of numbers per example."""
        return Examples(inputs=self.inputs.flatten(1), targets=self.targets)

    def times(self, factor: float) -> Examples:
        """The same with every input times `factor`."""
        return Examples(inputs=self.inputs * factor, targets=self.targets)

    def one_hot(self, classes: int = 10) -> Examples:
        """The same with a row of zeros and a one for every class number."""
        rows = torch.nn.functional.one_hot(self.targets, classes).float()
        return Examples(inputs=self.inputs, targets=rows)


def rows_of(inputs: object, targets: object) -> Examples:
    """Examples of two arrays or lists, as float32."""
    return Examples(
        inputs=torch.as_tensor(np.asarray(inputs), dtype=torch.float32),
        targets=torch.as_tensor(np.asarray(targets), dtype=torch.float32),
    )


def column(inputs: object, targets: object) -> Examples:
    """Examples of one number each."""
    return rows_of(np.asarray(inputs)[:, None], np.asarray(targets)[:, None])


class Shuffled:
    """Batches in a new order each epoch, drawn from torch's generator, without a loader's cost."""

    def __init__(self, examples: Examples, *, batch_size: int, shuffle: bool = True) -> None:
        self._examples = examples
        self._batch_size = batch_size
        self._shuffle = shuffle

    def __len__(self) -> int:
        return -(-len(self._examples) // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self._examples)
        order = torch.randperm(count) if self._shuffle else torch.arange(count)
        for part in order.split(self._batch_size):
            batch = self._examples[part]
            yield batch.inputs, batch.targets


def loader(examples: Examples, *, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    """Batches as a user of PyTorch makes them."""
    data = TensorDataset(examples.inputs, examples.targets)
    return DataLoader(data, batch_size=batch_size, shuffle=True)


def mnist(split: Split, *, count: int) -> Examples:
    """The first `count` digits, [N, 1, 28, 28] in [0, 1], with their class numbers."""
    return _pictures(*_mnist_bytes(split), count)


def cifar(split: Split, *, count: int) -> Examples:
    """`count` pictures in a fixed mixed order, [N, 3, 32, 32] in [0, 1], with their numbers."""
    return _pictures(*_cifar_bytes(split), count)


def articles(split: Split, *, count: int) -> Examples:
    """Chunks of about 50 words, as a binary bag of 10,000 words, with the article they are from.

    The 46 articles of WikiText-2's validation and test parts with the most chunks are the classes.
    """
    texts, labels = _chunks()
    border = len(texts) * 4 // 5
    part = slice(0, border) if split == "train" else slice(border, None)
    texts, labels = texts[part][:count], labels[part][:count]
    bags = torch.zeros(len(texts), WORDS)
    for row, words in enumerate(texts):
        bags[row, list(words)] = 1
    return Examples(inputs=bags, targets=torch.tensor(labels))


def _pictures(pictures: np.ndarray, labels: np.ndarray, count: int) -> Examples:
    return Examples(
        inputs=torch.from_numpy(pictures[:count]).float() / 255,
        targets=torch.from_numpy(labels[:count]),
    )


@functools.cache
def _mnist_bytes(split: Split) -> tuple[np.ndarray, np.ndarray]:
    folder = _folder() / "mnist"
    images = read_idx(folder / f"{MNIST_NAMES[split]}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{MNIST_NAMES[split]}-labels-idx1-ubyte.gz")
    return images[:, None], labels.astype(np.int64)


@functools.cache
def _cifar_bytes(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """All pictures [N, 3, 32, 32] as bytes and their labels, in one fixed mixed order."""
    kept = Path(tempfile.gettempdir()) / f"leadline-faults-{os.getuid()}" / f"cifar10_{split}.npz"
    if not kept.exists():
        source = _folder() / "cifar10_jpeg" / f"cifar10_jpeg_{split}.npz.xz"
        packed = np.load(io.BytesIO(lzma.decompress(source.read_bytes())))
        stream, offsets = packed["jpeg"].tobytes(), packed["offset"]
        order = np.random.default_rng(0).permutation(len(packed["label"]))
        pictures = np.stack(
            [np.asarray(Image.open(io.BytesIO(stream[offsets[i] : offsets[i + 1]]))) for i in order]
        )
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        partial = kept.with_name(f"{os.getpid()}.npz")
        np.savez(
            partial,
            pictures=pictures.transpose(0, 3, 1, 2),
            labels=packed["label"][order].astype(np.int64),
        )
        partial.replace(kept)  # another process may be reading: it sees all or nothing
    with np.load(kept) as arrays:
        return arrays["pictures"], arrays["labels"]


@functools.cache
def _chunks() -> tuple[list[set[int]], list[int]]:
    folder = _folder() / "wikitext2_valtest"
    text = "".join((folder / f"{part}.txt").read_text("utf-8") for part in ("valid", "test"))
    # A title stands between single equal signs, a section's between two or more.
    bodies = [body.split() for body in re.split(r"\n = [^=\n]+ = \n", text)]
    chunks = [[body[i : i + CHUNK] for i in range(0, len(body), CHUNK)] for body in bodies]
    longest = sorted(chunks, key=len, reverse=True)[:CLASSES]
    counts = collections.Counter(word for article in longest for part in article for word in part)
    numbers = {word: i for i, (word, _) in enumerate(counts.most_common(WORDS))}
    rows = [
        ({numbers[word] for word in part if word in numbers}, label)
        for label, article in enumerate(longest)
        for part in article
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[i][0] for i in order], [rows[i][1] for i in order]


def _folder() -> Path:
    folder = Path(os.environ.get("LEADLINE_DATA", ""))
    if not os.environ.get("LEADLINE_DATA") or not folder.is_dir():
        raise DataError(
            expected="the folder of data sets in the environment variable LEADLINE_DATA",
            received=repr(os.environ.get("LEADLINE_DATA", "")),
            remedy="set it to the folder that holds mnist, cifar10_jpeg and wikitext2_valtest",
        )
    return folder
