"""Tests of a step's numbers: fetched together, and read as a table."""

from __future__ import annotations

import math

import pytest
import torch

from leadline.measure.watching.step_sample import COLUMNS, Layout, StepSample, fetch, joined


def make_sample(value: float = 1.0) -> StepSample:
    layout = Layout(
        calls=(("a", 4, 2), ("a", 12, 2), ("relu", 8, 4)),
        owners=("a", "a", "b"),
        with_gradient=(0, 2),
    )
    first = [value, 2.0, 4, 2, 0]  # mean, deviation, nonzero values, live units, non-finite units
    second = [value + 4, 1.0, 6, 1, 1]
    third = [0.0, 0.0, 0, 0, 0]
    weights, updates, gradients = [3.0, 4.0, 0.0], [0.3, 0.4, 0.5], [2.0, 6.0]
    values = torch.tensor([*first, *second, *third, *weights, *updates, *gradients, 0.25])
    return StepSample(layout=layout, values=values, rates=(0.5, None, math.nan))


def test_a_step_is_a_table_with_pooled_calls_and_pooled_parameters() -> None:
    profile = make_sample().to_profile()
    assert profile.layers == ("a", "relu", "b")
    assert tuple(profile.values) == COLUMNS
    found = profile.at("a")
    assert found["mean"] == pytest.approx((4 * 1 + 12 * 5) / 16)
    assert found["std"] == pytest.approx(math.sqrt((4 + 1 + 4 * 3**2 + 12 * 1**2) / 16))
    assert found["zeros"] == pytest.approx(6 / 16)
    assert (found["dead"], found["nonfinite"]) == (0.25, 0.25)
    assert (found["weight_norm"], found["gradient_norm"]) == (5.0, 2.0)
    assert found["update_ratio"] == pytest.approx(0.1)
    assert found["lr"] == 0.5
    assert (profile.at("relu")["zeros"], profile.at("relu")["dead"]) == (1.0, 1.0)


def test_weights_of_length_zero_that_move_have_an_infinite_ratio() -> None:
    found = make_sample().to_profile().at("b")
    assert found["update_ratio"] == math.inf
    assert math.isnan(found["lr"]) and math.isnan(found["mean"])


def test_samples_are_fetched_together_and_stay_apart() -> None:
    samples = [make_sample(value) for value in (1.0, 2.0, 3.0)]
    fetched = fetch(samples)
    assert [sample.to_profile().at("a")["mean"] for sample in fetched] == [4.0, 5.0, 6.0]
    samples[0].values.zero_()
    assert fetched[0].to_profile().at("a")["mean"] == 4.0
    assert fetch([]) == []


def test_numbers_of_any_kind_are_joined() -> None:
    row = joined([torch.tensor(3), torch.tensor([True]), torch.tensor(0.5, dtype=torch.float64)])
    assert row.dtype == torch.float32 and row.tolist() == [3.0, 1.0, 0.5]
    assert joined([]).numel() == 0
