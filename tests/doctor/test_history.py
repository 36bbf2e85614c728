"""Tests of the history: evenly thinned, bounded, the newest always there."""

from __future__ import annotations

import math

import pytest
import torch

from leadline.core.errors import UnknownNameError
from leadline.doctor.history import MOST, KeptSamples, WatchHistory
from leadline.doctor.losses import Losses
from leadline.measure.watching.step_sample import Layout, StepSample


def make_sample(value: float, layer: str = "a") -> StepSample:
    layout = Layout(calls=(), owners=(layer,), with_gradient=())
    return StepSample(layout=layout, values=torch.tensor([1.0, value]), rates=(0.1,))


def test_few_samples_are_all_kept() -> None:
    samples = KeptSamples()
    for step in range(1, MOST + 1):
        samples.add(step, make_sample(step), None)
    assert [kept.step for kept in samples.fetch()] == list(range(1, MOST + 1))


def test_many_samples_are_thinned_evenly_and_the_newest_is_kept() -> None:
    samples = KeptSamples()
    for step in range(3_001):
        samples.add(step, make_sample(step), None)
        assert len(samples.kept) <= MOST + 1
        assert samples.kept[-1].step == step
    steps = [kept.step for kept in samples.fetch()]
    assert steps[:-1] == list(range(0, 3_001, 8))[: len(steps) - 1]
    assert len(steps) > MOST / 2
    assert samples.kept[3].sample.layout is samples.kept[4].sample.layout


def test_samples_are_fetched_once_and_told_after_a_step() -> None:
    samples = KeptSamples()
    for step in (1, 2, 4):
        samples.add(step, make_sample(step), None)
    first = samples.fetch(after=1)
    assert [kept.step for kept in first] == [2, 4]
    assert all(kept.fetched for kept in samples.kept)
    assert samples.fetch(after=1)[0].sample is first[0].sample


def test_a_column_over_time_has_nan_where_a_layer_was_not_there() -> None:
    profiles = (make_sample(0.5).to_profile(), make_sample(2.0, "b").to_profile())
    history = WatchHistory(steps=(1, 2), profiles=profiles, losses=Losses().read())
    assert history.layers == ("a", "b")
    ratios = history.over_time("update_ratio")
    assert ratios["a"][0] == 0.5 and math.isnan(ratios["a"][1])
    assert math.isnan(ratios["b"][0]) and ratios["b"][1] == 2.0
    with pytest.raises(UnknownNameError, match="did you mean 'update_ratio'"):
        history.over_time("update_ration")
