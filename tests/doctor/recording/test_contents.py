"""Tests that a change of what a data set holds is seen, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from leadline.doctor.recording.contents import arrays, digest


class Holding:
    def __init__(self) -> None:
        self.images = np.ones((5, 3), dtype=np.float32)
        self.labels = np.arange(5)
        self.name = "five"


def test_arrays_of_floating_numbers_are_found_and_not_copied() -> None:
    data = Holding()
    ((name, tensor),) = arrays(data)
    tensor += 1
    assert name == "images" and data.images[0, 0] == 2


def test_a_change_is_seen_through_a_part_of_the_data() -> None:
    whole = TensorDataset(torch.ones(300, 2), torch.zeros(300))
    part = Subset(whole, [0, 1])
    before = digest(part)
    assert digest(part) == before
    whole.tensors[0][-1] = 3
    after = digest(part)
    assert [name for name in before if before[name] != after[name]] == ["tensors.0"]


def test_a_data_set_without_arrays_has_none() -> None:
    assert digest([1, 2, 3]) == {} and digest(None) == {}


def test_of_whole_numbers_only_what_has_a_row_for_each_example_counts() -> None:
    class Sentences(Holding):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.counts = torch.arange(10).view(5, 2), torch.zeros(3, dtype=torch.long)

        def __len__(self) -> int:
            return 5

    assert [name for name, _ in arrays(Sentences())] == ["images", "labels", "tokens"]


@pytest.mark.parametrize(
    "value", [np.arange(6, dtype=">f4"), np.ones(6)[::-1], np.array(["a"] * 6)]
)
def test_arrays_that_torch_cannot_share_are_passed_over(value: Any) -> None:
    data = Holding()
    data.images = value
    assert digest(data) == {}
