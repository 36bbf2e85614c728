"""What the digits recipe must never do: mirror a digit, or need the network."""

from __future__ import annotations

import socket

import pytest

from leadline.data.load import load_dataset
from leadline.recipes.digits import RECIPE
from leadline.training.build import build_setup


def test_no_digit_is_mirrored_for_a_mirrored_digit_is_another_sign() -> None:
    assert not RECIPE.augmentation.flip
    assert RECIPE.augmentation.rotation <= 20, "a six turned far enough is a nine"


def test_the_offline_default_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the digits asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    dataset = load_dataset(RECIPE.data, seed=RECIPE.seed)
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 1797
    build_setup(RECIPE, dataset, device="cpu")
