"""What the control experiment must be: the same in everything but the residual paths."""

from __future__ import annotations

import dataclasses

from leadline.recipes import digits_1001, digits_1001_plain


def test_only_the_residual_paths_differ() -> None:
    model = dataclasses.replace(digits_1001_plain.RECIPE.model, residual=None)
    assert dataclasses.replace(digits_1001_plain.RECIPE, model=model) == digits_1001.RECIPE
    assert digits_1001_plain.RECIPE.model.residual is False
