"""Tests of stochastic depth against its definition."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ModelError
from leadline.nn.stochastic_depth import StochasticDepth, linear_rates


def test_whole_samples_are_dropped_and_the_others_scaled_by_the_survival() -> None:
    torch.manual_seed(0)
    out = StochasticDepth(rate=0.2)(torch.ones(1000, 3, 4))
    per_sample = out.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    assert set(per_sample[:, 0].tolist()) == {0.0, 1.25}


def test_the_expectation_is_the_input() -> None:
    torch.manual_seed(0)
    n, rate = 40_000, 0.3
    mean = StochasticDepth(rate=rate)(torch.ones(n, 1)).mean().item()
    standard_error = (rate / (1 - rate) / n) ** 0.5  # Var[b / p] = (1 - p) / p
    assert abs(mean - 1) < 4 * standard_error


def test_in_evaluation_it_is_the_identity_and_draws_nothing() -> None:
    signal = torch.randn(5, 2)
    state = torch.get_rng_state()
    assert StochasticDepth(rate=0.9).eval()(signal) is signal
    assert torch.equal(torch.get_rng_state(), state)


def test_at_rate_zero_training_draws_nothing() -> None:
    state = torch.get_rng_state()
    StochasticDepth(rate=0.0)(torch.ones(3, 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_rate_grows_linearly_to_the_full_rate_at_the_last_block() -> None:
    assert linear_rates(0.4, blocks=4) == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert linear_rates(0.5, blocks=1) == (0.5,)


@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_a_rate_outside_zero_to_one_is_refused(rate: float) -> None:
    with pytest.raises(ModelError) as caught:
        StochasticDepth(rate=rate)
    assert str(caught.value) == (
        "expected a stochastic depth rate of at least 0 and below 1\n"
        f"received {rate}\n"
        "do this  choose a rate such as 0.1"
    )
