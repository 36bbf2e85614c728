"""Which data, at which size, split how: the options of a data set."""

from __future__ import annotations

import dataclasses

from leadline.core.config import check, in_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What to load and how to split it.

    >>> DataOptions(data="digits").val_fraction
    0.1
    """

    data: str
    """a known data set (see leadline list) or the path of a folder of images"""
    image_size: int | None = None
    """side of the square images in pixels; None chooses it from the data"""
    val_fraction: float = 0.1
    """share of the training images held out for validation, where the source has no such split"""
    test_fraction: float = 0.2
    """share of all images held out for the test, where the source has no such split"""

    def __post_init__(self) -> None:
        check(
            self,
            None if self.data else "data must be a name or a path, received ''",
            in_range("image_size", self.image_size, 1, 4096),
            *fraction_problems(self.val_fraction, self.test_fraction),
        )


def fraction_problems(val_fraction: float, test_fraction: float) -> list[str | None]:
    """What is wrong with the two fractions, one sentence or None each."""
    problems = [
        in_range(name, value, 0, 1, open_low=True, open_high=True)
        for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction))
    ]
    if problems == [None, None] and val_fraction + test_fraction >= 1:
        problems.append(
            "val_fraction and test_fraction must leave something to train on, "
            f"received {val_fraction} + {test_fraction} = {val_fraction + test_fraction:g}"
        )
    return problems
