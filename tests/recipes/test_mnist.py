"""What the MNIST recipe must never do: mirror a digit, or crop one away."""

from __future__ import annotations

from leadline.recipes.mnist import RECIPE

MARGIN = 4  # pixels of background around MNIST's digits, which fill 20 of 28 (LeCun et al. 1998)


def test_no_digit_is_mirrored_for_a_mirrored_digit_is_another_sign() -> None:
    assert not RECIPE.augmentation.flip
    assert RECIPE.augmentation.rotation <= 20, "a six turned far enough is a nine"


def test_no_part_of_a_digit_is_cropped_away_or_cut_out() -> None:
    assert RECIPE.augmentation.crop <= MARGIN
    assert RECIPE.augmentation.cutout == 0
