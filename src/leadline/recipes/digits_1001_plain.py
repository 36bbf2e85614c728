"""Digits by 1001 layers without residual paths: the control experiment, which does not learn.

leadline train digits_1001_plain

It ends at its first step: on its way back through a thousand batch norms the gradient overflows
float32 (Yang et al. 2019, arXiv:1902.08129: it grows by a fifth a layer), and the layer is named.
The same layers, data, rate and order as `digits_1001`; only the shortcuts are gone.
"""

from __future__ import annotations

import dataclasses

from leadline.recipes import digits_1001

RECIPE = dataclasses.replace(
    digits_1001.RECIPE, model=dataclasses.replace(digits_1001.RECIPE.model, residual=False)
)
