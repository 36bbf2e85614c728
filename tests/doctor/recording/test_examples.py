"""Tests that batches are copied up to a limit, and examples numbered by what they hold."""

from __future__ import annotations

import torch
from torch import Tensor

from leadline.doctor.recording.examples import Examples, row_numbers


def test_batches_are_copies_and_end_at_the_limit() -> None:
    examples = Examples(limit=1000)
    inputs = torch.zeros(10, 10)  # 400 bytes, and as much room for targets
    number = examples.keep((inputs,), {}, model=0, epoch=0, grad=True)
    inputs += 1
    assert number == 0 and not examples.batches[0].args[0].any()
    assert examples.keep((inputs,), {}, model=0, epoch=0, grad=True) is None
    assert examples.full


def test_targets_are_taken_once() -> None:
    examples = Examples()
    number = examples.keep((torch.zeros(2, 2),), {}, model=0, epoch=0, grad=True)
    examples.complete(number, torch.ones(2))
    examples.complete(number, torch.zeros(2))
    assert examples.batches[0].targets.tolist() == [1, 1]


def test_equal_rows_have_equal_numbers_in_batches_of_any_length(
    digits: tuple[Tensor, Tensor],
) -> None:
    images = digits[0]
    whole = row_numbers(images)
    assert torch.equal(whole[100:], row_numbers(images[100:]))
    assert torch.equal(whole, row_numbers(images.reshape(-1, 8, 8)))


def test_rows_that_differ_have_different_numbers(digits: tuple[Tensor, Tensor]) -> None:
    images = digits[0]  # whole sixteenths: the lower bits of each are zeros
    different = len(torch.unique(images, dim=0))
    assert len(torch.unique(row_numbers(images))) == different
    tokens = torch.randint(0, 4, (2000, 12))
    assert len(torch.unique(row_numbers(tokens))) == len(torch.unique(tokens, dim=0))
