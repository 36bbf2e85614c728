"""How often each stage repeats its block, when a network is made deeper or shallower as a whole.

Stage s of the original has n_s blocks; a factor m makes ceil(m n_s) of them (Tan and Le 2019,
EfficientNet, section 3.3). Every total that some m reaches belongs to one list of counts.
"""

from __future__ import annotations

from fractions import Fraction


def repeats(original: tuple[int, ...], total: int) -> tuple[int, ...] | None:
    """The counts of `total` blocks in the proportions of `original`; None where no factor gives it.

    >>> repeats((1, 2, 2, 3, 3, 4, 1), 23)  # EfficientNet-B1
    (2, 3, 3, 4, 4, 5, 2)
    >>> repeats((1, 1), 3) is None
    True
    """
    return next((counts for counts in _lists(original, total) if sum(counts) == total), None)


def repeat_problems(original: tuple[int, ...], total: int) -> list[str]:
    """What is wrong with a depth that no factor gives; it names those near it.

    >>> repeat_problems((1, 1), 3)
    ['depth: stages grow in proportion, which gives no 3 blocks; near it are 2 and 4']
    """
    if repeats(original, total) is not None:
        return []
    sums = [sum(counts) for counts in _lists(original, total)]
    below = max((s for s in sums if s <= total), default=sums[0])
    return [
        f"depth: stages grow in proportion, which gives no {total} blocks; "
        f"near it are {below} and {sums[-1]}"
    ]


def _lists(original: tuple[int, ...], total: int) -> list[tuple[int, ...]]:
    """Every list of counts, one for each factor at which it changes, to the first past `total`."""
    factors = sorted({Fraction(k, n) for n in original for k in range(1, total + 1)})
    found: list[tuple[int, ...]] = []
    for factor in factors:
        found.append(
            tuple(-(-(n * factor).numerator // (n * factor).denominator) for n in original)
        )
        if sum(found[-1]) > total:
            break
    return found
