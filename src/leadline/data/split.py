"""Training, validation and test parts that keep every class's share, the same every time.

Stratified: each class is divided by itself, so a rare class is in every part. The order within a
class comes from a hash of (split seed, class, position), not from a library's random generator:
those may change between versions, and then yesterday's test images would be today's training
images. The seed is the recipe's: where no test set is given, runs with five seeds are tested on
five held-out parts, so that their mean does not hang on the luck of one (see the log).

The one surprising choice: a fraction is a wish. A class of two or more images always keeps one in
training and gives one to the test; a class of three or more gives one to validation as well.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

SPLIT_SEED = 20_240_607  # any number; added to the seed, and changing it changes every split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Which examples are held out, as sorted indices; together they are all examples, once."""

    kept: Tensor
    held_out: Tensor


def stratified_split(targets: Int64[Tensor, "N"], *, fraction: float, seed: int = 0) -> Split:
    """Hold out `fraction` of every class (N examples); a class of one stays in the kept part.

    >>> split = stratified_split(torch.tensor([0] * 10 + [1] * 5), fraction=0.2)
    >>> len(split.kept), len(split.held_out)
    (12, 3)
    """
    labels = targets.cpu().numpy()
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = len(members)
        if count < 2:
            continue
        wanted = int(np.floor(count * fraction + 0.5))
        wanted = min(max(wanted, 1), count - 1)
        ranks = _hash(np.arange(count, dtype=np.uint64), label=int(label), seed=seed)
        held_out[members[np.argsort(ranks, kind="stable")[:wanted]]] = True
    return Split(
        kept=torch.from_numpy(np.flatnonzero(~held_out)),
        held_out=torch.from_numpy(np.flatnonzero(held_out)),
    )


def _hash(positions: np.ndarray, *, label: int, seed: int) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood 2014) of the seed, the class and the position."""
    with np.errstate(over="ignore"):
        value = positions + np.uint64((((SPLIT_SEED + seed) << 20) + (label << 40)) % (1 << 64))
        value = value * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(value ^ (value >> np.uint64(31)))
