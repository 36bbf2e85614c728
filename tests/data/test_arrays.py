"""Tests of arrays in memory: every layout, and every way they can be wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from leadline.core.errors import ConfigError, DataError
from leadline.data.arrays import from_arrays

LABELS = np.arange(30) % 3


def bytes_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def whole(data: Any) -> torch.Tensor:
    """All pictures back in the order of the array that was given."""
    parts = (data.train, data.val, data.test)
    numbers = [int(part.label(i).split()[1]) for part in parts for i in range(len(part))]
    pictures = torch.cat([part.take(torch.arange(len(part))) for part in parts])
    return pictures[torch.tensor(numbers).argsort()]


@pytest.mark.parametrize(
    ("shape", "expected", "layout"),
    [
        ((30, 8, 9), (1, 8, 9), "[N, H, W]"),
        ((30, 3, 8, 9), (3, 8, 9), "[N, C, H, W]"),
        ((30, 8, 9, 3), (3, 8, 9), "[N, H, W, C]"),
        ((30, 8, 9, 1), (1, 8, 9), "[N, H, W, C]"),
        ((30, 6, 20, 20), (6, 20, 20), "[N, C, H, W]"),
        ((30, 20, 20, 6), (6, 20, 20), "[N, H, W, C]"),
        ((30, 3, 2, 2), (3, 2, 2), "[N, C, H, W]"),
    ],
)
def test_the_layout_is_recognised(
    shape: tuple[int, ...], expected: tuple[int, ...], layout: str
) -> None:
    pixels = bytes_of(*shape)
    data = from_arrays(pixels, LABELS)
    assert data.shape == expected
    assert data.notes[0].endswith(f"in 3 classes, read as {layout}")
    oracle = pixels.transpose(0, 3, 1, 2) if layout == "[N, H, W, C]" else pixels
    np.testing.assert_array_equal(whole(data).numpy(), oracle.reshape(30, *expected))


def test_numbers_keep_their_scale() -> None:
    pixels = np.random.default_rng(0).normal(5, 2, (30, 1, 4, 4))
    data = from_arrays(torch.from_numpy(pixels), torch.from_numpy(LABELS))
    assert whole(data).dtype == torch.float32
    np.testing.assert_allclose(whole(data).numpy(), pixels, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.int64, np.int16, np.uint16, ">i4"])
def test_whole_numbers_that_are_bytes_become_bytes(kind: Any) -> None:
    pixels = bytes_of(30, 4, 4)
    found = whole(from_arrays(pixels.astype(kind), LABELS))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found[:, 0].numpy(), pixels)


def test_wider_whole_numbers_and_truth_values_are_taken() -> None:
    wide = bytes_of(30, 4, 4).astype(np.uint16) * 200
    np.testing.assert_array_equal(whole(from_arrays(wide, LABELS))[:, 0].numpy(), wide)
    truth = bytes_of(30, 4, 4)[:, ::-1] > 127
    np.testing.assert_array_equal(whole(from_arrays(truth, LABELS))[:, 0].numpy(), truth * 255)


def test_class_names_are_kept() -> None:
    data = from_arrays(bytes_of(30, 4, 4), LABELS, class_names=["a", "b", "c", "d"])
    assert data.class_names == ("a", "b", "c", "d")


def hurt(**changes: float) -> np.ndarray:
    pixels = np.zeros((30, 4, 4))
    pixels[:, 0, 0] = np.arange(30)
    for place, value in changes.items():
        pixels[int(place[1:]), 1, 2] = value
    return pixels


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (bytes_of(29, 4, 4), LABELS, "29 inputs and 30 targets"),
        (bytes_of(0, 4, 4), LABELS[:0], "0 inputs and 0 targets"),
        (bytes_of(30, 0, 4), LABELS, r"shape \[30, 0, 4\]"),
        (bytes_of(30, 16), LABELS, r"shape \[30, 16\].*\n.*reshape\(N, H, W\)"),
        (bytes_of(30, 4, 4), np.eye(3)[LABELS], r"shape \[30, 3\].*\n.*argmax"),
        (bytes_of(30, 4, 4), LABELS - 1, r"-1 at index 0 \(10 such targets\)"),
        (bytes_of(30, 4, 4), LABELS + 0.5, r"0\.5 at index 0 \(30 such targets\)"),
        (bytes_of(30, 4, 4), np.where(LABELS == 2, np.nan, 1.0), "nan at index 2"),
        (bytes_of(30, 4, 4), LABELS + 1, "3 different ones between 1 and 3"),
        (bytes_of(30, 4, 4), LABELS * 0, "at least two classes"),
        (bytes_of(30, 4, 4), ["cat", "dog", "emu"] * 10, "numbers as targets.*\n.*array of <U3"),
        (hurt() + 1j, LABELS, "complex128"),
        (
            hurt(i7=np.nan, i9=np.inf, i12=np.nan),
            LABELS,
            "2 NaN and 1 infinite values in 3 of 30 inputs, the first at index 7",
        ),
    ],
)
def test_wrong_arrays_are_refused(inputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays(inputs, targets)


def test_a_label_without_a_class_name_is_refused() -> None:
    with pytest.raises(DataError, match=r"from 0 to 1.*\nreceived 2 at index 2"):
        from_arrays(bytes_of(30, 4, 4), LABELS, class_names=["a", "b"])


def test_wrong_fractions_are_refused() -> None:
    with pytest.raises(ConfigError, match="val_fraction must be > 0"):
        from_arrays(bytes_of(30, 4, 4), LABELS, val_fraction=0.0)


def test_a_constant_channel_is_said_and_gets_a_std_of_one() -> None:
    pixels = bytes_of(30, 3, 4, 4)
    pixels[:, 1] = 51
    data = from_arrays(pixels, LABELS)
    assert data.mean[1] == pytest.approx(0.2)
    assert data.std[1] == 1.0
    assert any("channel 1 has the same value in every" in note for note in data.notes)


def test_the_given_arrays_are_not_changed() -> None:
    pixels, targets = bytes_of(30, 4, 4), LABELS.copy()
    data = from_arrays(pixels, targets)
    data.train.images.zero_()  # type: ignore[attr-defined]  # arrays become ArrayExamples
    np.testing.assert_array_equal(pixels, bytes_of(30, 4, 4))
