"""Real digits, and a loop around them."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test begins with the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """320 pictures of 8 by 8 pixels, from 0 to 1, and which digit each shows."""
    data = load_digits()
    images = torch.tensor(data.data[:320], dtype=torch.float32) / 16
    return images, torch.tensor(data.target[:320])
