"""Data that look like a recipe's own, made up on the spot, and caches that nobody else sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leadline.data.arrays import from_arrays
from leadline.data.examples import Dataset


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEADLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def noise() -> Callable[..., Dataset]:
    """Make `examples` square pictures of noise in `classes` classes."""

    def make(*, examples: int, size: int, channels: int = 1, classes: int = 10) -> Dataset:
        shape = (examples, channels, size, size)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return from_arrays(pixels, [number % classes for number in range(examples)])

    return make
