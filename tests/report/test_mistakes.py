"""Tests of the worst mistakes and their pictures."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from leadline.data.examples import ArrayExamples
from leadline.report.mistakes import LARGEST_SIDE, mistakes_section, picture, worst_mistakes


def opened(uri: str) -> Image.Image:
    """The picture in a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_the_surest_mistake_comes_first_and_right_answers_do_not_come(logits: Tensor) -> None:
    found = worst_mistakes(logits, torch.tensor([1, 1, 0, 2]))
    assert [(m.index, m.true, m.answer) for m in found] == [(2, 0, 2), (0, 1, 0)]
    assert found[1].confidence == pytest.approx(np.exp(3) / (np.exp(3) + 2))
    assert found[1].true_confidence == pytest.approx(1 / (np.exp(3) + 2))


def test_no_more_mistakes_are_shown_than_asked_for(logits: Tensor) -> None:
    assert len(worst_mistakes(logits, torch.tensor([1, 1, 0, 2]), most=1)) == 1


def test_the_order_is_that_of_a_sort_over_everything() -> None:
    outputs = torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(7, (500,), generator=torch.Generator().manual_seed(1))
    shares = torch.exp(outputs) / torch.exp(outputs).sum(dim=1, keepdim=True)
    wrong = [i for i in range(500) if int(shares[i].argmax()) != int(targets[i])]
    oracle = sorted(wrong, key=lambda i: -float(shares[i].max()))[:24]
    assert [m.index for m in worst_mistakes(outputs, targets)] == oracle


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_holds_every_pixel_as_it_is(channels: int) -> None:
    image = torch.arange(channels * 20, dtype=torch.uint8).view(channels, 4, 5)
    pixels = np.asarray(opened(picture(image)))
    expected = image[0].numpy() if channels == 1 else image.permute(1, 2, 0).numpy()
    assert np.array_equal(pixels, expected)


def test_other_numbers_of_channels_are_shown_as_their_mean() -> None:
    image = torch.stack([torch.full((2, 2), v, dtype=torch.uint8) for v in (10, 30)])
    assert np.asarray(opened(picture(image))).tolist() == [[20, 20], [20, 20]]


def test_floats_from_zero_to_one_are_shown_as_they_are() -> None:
    image = torch.tensor([[[0.0, 0.2], [0.4, 0.6]]])
    assert np.asarray(opened(picture(image))).tolist() == [[0, 51], [102, 153]]


def test_floats_of_another_scale_are_stretched_from_lowest_to_highest() -> None:
    image = torch.tensor([[[-3.0, 0.0], [1.0, 2.0]]])
    assert np.asarray(opened(picture(image))).tolist() == [[0, 153], [204, 255]]


def test_a_constant_picture_of_any_scale_can_be_shown() -> None:
    assert opened(picture(torch.full((1, 2, 2), 7.0))).size == (2, 2)


def test_a_large_picture_is_reduced_and_keeps_its_proportions() -> None:
    image = torch.zeros(3, 300, 600, dtype=torch.uint8)
    assert opened(picture(image)).size == (LARGEST_SIDE, LARGEST_SIDE // 2)


def test_the_gallery_shows_each_mistake_with_its_classes_and_its_file(logits: Tensor) -> None:
    targets = torch.tensor([1, 1, 0, 2])
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    examples = ArrayExamples(images, targets, labels=[f"dir/<{i}>.png" for i in range(4)])
    drawn = mistakes_section(
        worst_mistakes(logits, targets), examples=examples, class_names=("a&", "b", "c"), wrong=2
    )
    assert drawn.count("<img ") == 2
    assert "<b>a&amp; → c</b>" in drawn
    assert "dir/&lt;2&gt;.png" in drawn
    assert "All 2 wrong answers in 4 test images" in drawn


def test_when_there_are_more_mistakes_than_pictures_it_says_so(logits: Tensor) -> None:
    targets = torch.tensor([1, 1, 0, 2])
    examples = ArrayExamples(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), targets)
    shown = worst_mistakes(logits, targets, most=1)
    drawn = mistakes_section(shown, examples=examples, class_names="abc", wrong=2)
    assert "The 1 surest of 2 wrong answers" in drawn


def test_a_network_without_mistakes_is_told_so(logits: Tensor) -> None:
    targets = logits.argmax(dim=1)
    examples = ArrayExamples(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), targets)
    found = worst_mistakes(logits, targets)
    drawn = mistakes_section(found, examples=examples, class_names="abc", wrong=0)
    assert "All 4 test images are right." in drawn
