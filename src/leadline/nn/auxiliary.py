"""Auxiliary heads: classifiers on earlier maps, which bring the gradient to them by a short way.

In training a network with such heads gives the logits of all of them; in evaluation those of the
main head alone, and the others cost nothing. Szegedy et al. 2014 (arXiv:1409.4842, section 5) add
0.3 of each auxiliary loss to the main one.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class WithAuxiliary(NamedTuple):
    """The logits (B, K) of the main head, and those of the auxiliary ones in the order of depth."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
