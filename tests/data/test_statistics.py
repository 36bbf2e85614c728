"""Tests of mean and spread against numpy in double precision."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leadline.data import statistics
from leadline.data.examples import ArrayExamples, FileExamples
from leadline.data.statistics import channel_statistics


def test_bytes_are_measured_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 3, 4, 5), dtype=np.uint8)
    found = channel_statistics(
        ArrayExamples(torch.from_numpy(pixels), torch.zeros(5000, dtype=torch.int64))
    )
    for channel in range(3):
        values = pixels[:, channel].astype(np.int64)
        mean = Fraction(int(values.sum()), values.size * 255)
        assert found.mean[channel] == float(mean)
        expected = (values / 255).std()
        assert found.std[channel] == pytest.approx(expected, rel=1e-12)
    assert found.constant == ()


def test_floats_are_measured_in_double_precision() -> None:
    pixels = np.random.default_rng(0).normal(1000, 0.1, (400, 2, 4, 4)).astype(np.float32)
    pixels[:, 1] = -3.0
    found = channel_statistics(
        ArrayExamples(torch.from_numpy(pixels), torch.zeros(400, dtype=torch.int64))
    )
    exact = pixels[:, 0].astype(np.float64)
    assert found.mean == pytest.approx((exact.mean(), -3.0), rel=1e-12)
    assert found.std == pytest.approx((exact.std(), 1.0), rel=1e-9)
    assert found.constant == (1,)


def test_many_files_are_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLE", 100)
    for value in (0, 255):
        Image.new("L", (1, 1), value).save(tmp_path / f"{value}.bmp")
    count = 390
    paths = [str(tmp_path / f"{255 * (index // 4 % 2)}.bmp") for index in range(count)]
    files = FileExamples(paths, torch.zeros(count, dtype=torch.int64), colour="L", size=1)
    found = channel_statistics(files)
    assert found.measured == 98
    assert found.mean[0] == pytest.approx(0.5, abs=0.02)
