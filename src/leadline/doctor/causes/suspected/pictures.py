"""A fault of preprocessing: held-out pictures that are turned, mirrored or inverted.

Mean and spread of all pixels do not tell a picture from one that lies on its side. The mean picture
does: where that of the held-out ones differs from that of the training ones by far more than chance
leaves, and no more than chance once it is turned back, the two were prepared otherwise.

    distance of two mean pictures, over what chance makes of it:
    sum (M - H)^2 / sum (var M / n + var H / m)         about 1 for pictures of one kind
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedies.batches import Mapped
from leadline.doctor.remedy import Remedy
from leadline.training.setup import Setup

APART = 8.0
"""Distance of the mean pictures, over chance, from which on they are of different kinds."""

CLOSER = 0.25
"""Part of that distance that may be left when the pictures are turned back."""

FEWEST = 40
"""Pictures on either side without which nothing is said."""


def certain(patient: Patient) -> Iterator[Finding]:
    """Held-out pictures that match those in training once they are turned."""
    if patient.gathered is None or not patient.held_out:
        return
    shown = patient.gathered[0]
    parts = [x for x, _ in patient.probe.held_out if isinstance(x, Tensor)]
    if shown.ndim != 4 or not shown.is_floating_point() or not parts:
        return
    if any(part.shape[1:] != shown.shape[1:] for part in parts):
        return
    held = torch.cat([part.detach().cpu() for part in parts]).float()
    if min(len(shown), len(held)) < FEWEST:
        return
    found = _turned(shown.float(), held)
    if found is None:
        return
    name, before, after = found
    yield Finding(
        cause="preprocess_train_test_mismatch",
        severity="error",
        summary=f"the held-out pictures are {name}, compared with those in training",
        evidence=(
            Evidence(
                quantity="distance of the mean pictures, over that by chance",
                measured=before,
                expected="about 1",
            ),
            Evidence(
                quantity="the same when the held-out ones are turned back",
                measured=after,
                expected=f"{before:.3g}, if nothing were wrong",
            ),
        ),
        remedy="read and prepare both alike: the same library, order of channels and axes",
        source="OpenCV reads blue, green, red; Pillow reads red, green, blue",
        change=_turned_back(name),
        proven=True,
    )


def _inverted(pictures: Tensor) -> Tensor:
    low, high = float(pictures.min()), float(pictures.max())
    return low + high - pictures


WAYS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "in another order of the channels": lambda x: x.flip(1),
    "transposed": lambda x: x.transpose(2, 3),
    "upside down": lambda x: x.flip(2),
    "mirrored": lambda x: x.flip(3),
    "inverted": _inverted,
}
"""What may have been done to pictures, each its own inverse."""


def _turned(shown: Tensor, held: Tensor) -> tuple[str, float, float] | None:
    """How held-out pictures were turned, with their distances before and after turning back."""
    before = _distance(shown, held)
    if before < APART:
        return None
    after = {
        name: _distance(shown, way(held))
        for name, way in WAYS.items()
        if way(held).shape == held.shape and (held.shape[1] > 1 or "channels" not in name)
    }
    name = min(after, key=after.__getitem__)
    return (name, before, after[name]) if after[name] < CLOSER * before else None


def _distance(shown: Tensor, held: Tensor) -> float:
    gap = (shown.mean(dim=0) - held.mean(dim=0)).square().sum()
    chance = shown.var(dim=0).sum() / len(shown) + held.var(dim=0).sum() / len(held)
    return float(gap / chance.clamp_min(1e-12))


def _turned_back(name: str) -> Remedy:
    def change(inputs: Any, targets: Any) -> tuple[Any, Any]:
        return WAYS[name](inputs), targets

    def apply(setup: Setup) -> Setup:
        assert setup.validation is not None, "its pictures were looked at"
        return replace(setup, validation=Mapped(setup.validation, change))

    code = {
        "in another order of the channels": "pictures.flip(1)",
        "transposed": "pictures.transpose(2, 3)",
        "upside down": "pictures.flip(2)",
        "mirrored": "pictures.flip(3)",
        "inverted": "1 - pictures",
    }[name]
    return Remedy(
        title="prepare the held-out pictures as those in training",
        apply=apply,
        lines=(f"+ pictures = {code}  # of the validation set only",),
    )
