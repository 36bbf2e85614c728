"""What the CIFAR-10 recipe varies: the usual flip, crop of four pixels and cut-out."""

from __future__ import annotations

from leadline.recipes.cifar10 import RECIPE


def test_the_variations_are_the_usual_ones() -> None:
    augmentation = RECIPE.augmentation
    assert augmentation.flip
    assert augmentation.crop == 4  # He et al. 2015, section 4.2
    assert augmentation.cutout <= 16  # DeVries and Taylor 2017, the best for CIFAR-10
    assert augmentation.rotation == 0, "the sky is above"


def test_mixing_is_off_where_there_are_few_epochs() -> None:
    assert not RECIPE.augmentation.mixes or RECIPE.budget.epochs > 50
