"""Tests that workers report their streams, and that the loader's own function stays."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from leadline.doctor.recording.workers import Reports, streams


def test_each_worker_reports_once_and_the_loader_is_left_as_it_was() -> None:
    loader = DataLoader(TensorDataset(torch.ones(4, 1)), num_workers=2)
    reports = Reports(loader)
    with reports.asked():
        batches = list(loader)
    arrived = dict(reports.arrived())
    assert sorted(arrived) == [0, 1] and len(batches) == 4
    assert arrived[0]["torch's generator"] != arrived[1]["torch's generator"]
    assert loader.worker_init_fn is None


def test_a_generator_is_told_of_only_where_examples_draw_from_it() -> None:
    class Drawing:
        def __init__(self) -> None:
            self.used, self.idle = np.random.default_rng(0), np.random.default_rng(0)

        def __getitem__(self, index: int) -> float:
            return self.used.normal()

    data = Drawing()
    found = streams(data)
    assert "the data set's 'used'" in found and "the data set's 'idle'" not in found
    assert streams(data) == found  # nothing was drawn from the original
