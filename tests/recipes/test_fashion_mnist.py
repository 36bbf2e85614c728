"""What the Fashion-MNIST recipe varies: clothes keep their meaning in a mirror, not upside down."""

from __future__ import annotations

from leadline.recipes.fashion_mnist import RECIPE


def test_clothes_are_mirrored_but_not_turned() -> None:
    assert RECIPE.augmentation.flip
    assert RECIPE.augmentation.rotation == 0


def test_what_is_cut_out_leaves_most_of_the_picture() -> None:
    assert RECIPE.augmentation.cutout**2 < 28**2 / 4
    assert RECIPE.augmentation.crop <= 4


def test_the_test_set_is_not_touched_by_choosing_epochs() -> None:
    assert 0 < RECIPE.data.val_fraction < 0.2
