"""Which model some weights are of: names and shapes of tensors compared with those of every model.

The likeness of two sets of tensors is the share of what either has that both have (Jaccard 1901),
a tensor being its name and its shape. The heads are left out, since they depend on the data, and
batch norm's counters, which old files lack.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.core.errors import LeadlineError
from leadline.models.create import create_model, list_models, resolve
from leadline.models.foreign import key_tables, translate
from leadline.models.weights import COUNTER, strip_prefix

LIKE = 0.3  # likeness from which on a model is worth naming


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """A model's name, and the share of its tensors and the file's that are in both."""

    name: str
    share: float

    def __str__(self) -> str:
        return f"{self.name} ({self.share:.0%} of the tensors alike)"


def recognise(state: Mapping[str, Tensor], *, names: Iterable[str] = ()) -> tuple[Likeness, ...]:
    """The models whose tensors are like these, the likest first; all models unless some are named.

    >>> from leadline.models.create import create_model
    >>> state = create_model("resnet20", num_classes=10).state_dict()
    >>> str(recognise(state, names=["mlp", "resnet20", "resnet32"])[0])
    'resnet20 (100% of the tensors alike)'
    """
    plain = strip_prefix(state)
    found = []
    shapes = {key: torch.empty_like(value, device="meta") for key, value in plain.items()}
    for name in names or list_models():
        own, heads = _own(name)
        try:
            ours = translate(shapes, own, key_tables(name, resolve(name)))
        except LeadlineError:
            ours = shapes
        share = _jaccard(_signature(ours, heads), _signature(own, heads))
        found.append(Likeness(name=name, share=share))
    likely = [likeness for likeness in found if likeness.share >= LIKE]
    return tuple(sorted(likely, key=lambda likeness: -likeness.share))


@functools.cache
def _own(name: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a model without their numbers, and the beginnings of its heads' names."""
    with torch.device("meta"):
        model = create_model(name)
    return dict(model.state_dict()), tuple(f"{head}." for head in model.heads)


def _signature(
    state: Mapping[str, Tensor], heads: tuple[str, ...]
) -> set[tuple[str, tuple[int, ...]]]:
    return {
        (key, tuple(value.shape))
        for key, value in state.items()
        if not key.startswith(heads) and not key.endswith(COUNTER)
    }


def _jaccard(
    first: set[tuple[str, tuple[int, ...]]], second: set[tuple[str, tuple[int, ...]]]
) -> float:
    either = first | second
    return len(first & second) / len(either) if either else 0.0
