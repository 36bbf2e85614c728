"""Examples: what one split is, in memory or on the disk; and Dataset, three of them with names.

`Examples` is the one thing the loader needs: targets, a shape, and `take`, which returns the
pictures of given indices. It is final twice: `ArrayExamples` holds all pixels in one tensor
(small data, which also lives on the accelerator), `FileExamples` decodes files when asked (data
too big for memory).
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import threading
import warnings
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from leadline.core.errors import DataError
from leadline.data.decode import Colour, decode_images


class Examples(abc.ABC):
    """One split: N pictures of one shape (C channels, H x W pixels) with a class number each."""

    targets: Tensor  # int64 [N]
    shape: tuple[int, int, int]  # (C, H, W)

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.targets)

    @abc.abstractmethod
    def take(self, indices: Int64[Tensor, "B"]) -> Shaped[Tensor, "B C H W"]:
        """The pictures at `indices`: uint8 in 0..255, or float32 in the data's own scale."""

    @abc.abstractmethod
    def label(self, index: int) -> str:
        """What to call example `index` in a report: its file's path, or 'index i'."""

    @abc.abstractmethod
    def subset(self, indices: Int64[Tensor, "M"]) -> Examples:
        """The M examples at `indices` as examples of their own."""


@final
class ArrayExamples(Examples):
    """Examples whose pixels are all in one tensor, uint8 or float32 `[N, C, H, W]`.

    >>> examples = ArrayExamples(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 0]))
    >>> examples.take(torch.tensor([2])).shape, examples.label(2)
    (torch.Size([1, 1, 2, 2]), 'index 2')
    """

    def __init__(
        self,
        images: Shaped[Tensor, "N C H W"],
        targets: Int64[Tensor, "N"],
        *,
        labels: Sequence[str] | None = None,
        numbers: Int64[Tensor, "N"] | None = None,
    ) -> None:
        assert images.dim() == 4
        assert len(images) == len(targets)
        self.images = images.contiguous()
        self.targets = targets
        self.shape = (images.shape[1], images.shape[2], images.shape[3])
        self._labels = labels
        self._numbers = numbers  # the places in the whole, for examples that are a part of it

    def take(self, indices: Int64[Tensor, "B"]) -> Shaped[Tensor, "B C H W"]:
        """The pictures at `indices`, on the device where the pixels are."""
        return self.images.index_select(0, indices.to(self.images.device))

    def label(self, index: int) -> str:
        """The file's path where there is one, otherwise the place in the array it came from."""
        number = index if self._numbers is None else int(self._numbers[index])
        return f"index {number}" if self._labels is None else self._labels[number]

    def subset(self, indices: Int64[Tensor, "M"]) -> ArrayExamples:
        """The examples at `indices`, copied."""
        numbers = indices if self._numbers is None else self._numbers[indices]
        return ArrayExamples(
            self.images[indices], self.targets[indices], labels=self._labels, numbers=numbers
        )

    def to(self, device: torch.device | str) -> ArrayExamples:
        """The same examples with their pixels on `device`; themselves where they are there."""
        images = self.images.to(device)
        if images is self.images:
            return self
        return ArrayExamples(images, self.targets, labels=self._labels, numbers=self._numbers)


@final
class FileExamples(Examples):
    """Examples decoded from picture files on demand, by a pool of threads.

    A file that turns out to be unreadable is named in a warning, once, and the next readable
    file of the same class stands in for it, so that a long training goes on.
    """

    def __init__(
        self,
        paths: Sequence[str],
        targets: Int64[Tensor, "N"],
        *,
        colour: Colour,
        size: int,
        threads: int | None = None,
    ) -> None:
        assert len(paths) == len(targets)
        self.paths = tuple(paths)
        self.targets = targets
        self.shape = (1 if colour == "L" else 3, size, size)
        self.unreadable: dict[int, str] = {}
        self._colour: Colour = colour
        self._threads = threads
        self._lock = threading.Lock()

    def take(self, indices: Int64[Tensor, "B"]) -> Shaped[Tensor, "B C H W"]:
        """Decode the files at `indices`, uint8 on the CPU."""
        places = [int(index) for index in indices]
        decoded = decode_images(
            [self.paths[place] for place in places],
            colour=self._colour,
            size=self.shape[1],
            threads=self._threads,
        )
        for row, reason in decoded.problems.items():
            decoded.images[row] = self._stand_in(places[row], reason)
        return decoded.images

    def label(self, index: int) -> str:
        """The file's path."""
        return self.paths[index]

    def subset(self, indices: Int64[Tensor, "M"]) -> FileExamples:
        """The examples at `indices`; no file is opened."""
        return FileExamples(
            [self.paths[int(index)] for index in indices],
            self.targets[indices],
            colour=self._colour,
            size=self.shape[1],
            threads=self._threads,
        )

    def _stand_in(self, index: int, reason: str) -> Tensor:
        with self._lock:
            known = index in self.unreadable
            self.unreadable[index] = reason
        if not known:
            warnings.warn(
                f"{self.paths[index]} is unreadable ({reason}); another picture of its class "
                "stands in for it",
                stacklevel=3,
            )
        same = (self.targets == self.targets[index]).nonzero().flatten().tolist()
        at = same.index(index)
        for other in same[at + 1 :] + same[:at]:
            if other in self.unreadable:
                continue
            decoded = decode_images(
                [self.paths[other]], colour=self._colour, size=self.shape[1], threads=1
            )
            if not decoded.problems:
                return decoded.images[0]
        raise DataError(
            expected="at least one readable picture in every class",
            received=f"{self.paths[index]}: {reason}, and so are the {len(same)} of its class",
            remedy="replace these files; they were readable when the training began",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Training, validation and test examples, with what was found out about them.

    - `class_names[k]` is the name of class k; `notes` are sentences about the source: what was
      found, what was skipped and why, which rule made the split.
    - `mean` and `std` are per channel and come from the training examples alone; for uint8
      pixels they are in units of the full scale (0 to 1), for float pixels in the data's own.
      The std of a constant channel is taken as 1.
    """

    name: str
    train: Examples
    val: Examples
    test: Examples
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one picture."""
        return self.train.shape

    @property
    def fingerprint(self) -> str:
        """A hash of what is in which split, with its labels, size and normalisation.

        It differs when a file was added, renamed or became unreadable; a run that resumes or
        reports on other data than it was trained on would test on training images.
        """
        digest = hashlib.sha256(repr((self.class_names, self.shape, self.mean, self.std)).encode())
        for part in (self.train, self.val, self.test):
            names = "\n".join(part.label(i) for i in range(len(part)))
            digest.update(f"{len(part)}\n{names}".encode())
            digest.update(part.targets.cpu().numpy().tobytes())
        return digest.hexdigest()
