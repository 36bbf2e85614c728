"""Every schedule against its closed form, torch's own schedulers, and itself resumed."""

import json
import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, OneCycleLR

from leadline.core.errors import ConfigError
from leadline.optim.schedules import ScheduleOptions, make_schedule, schedule_factor

NAMES = ["constant", "cosine", "linear", "step", "one_cycle"]


def optimizer_at(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(optimizer: torch.optim.Optimizer, schedule, count: int) -> list[float]:
    collected = []
    for _ in range(count):
        collected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return collected


def ours(options: ScheduleOptions, total: int, count: int) -> list[float]:
    optimizer = optimizer_at(0.3)
    return rates(optimizer, make_schedule(optimizer, options, total_steps=total), count)


def test_constant_stays_at_the_peak():
    assert ours(ScheduleOptions(schedule="constant", warmup=0.0), 7, 9) == [0.3] * 9


def test_cosine_is_that_of_torch():
    optimizer = optimizer_at(0.3)
    expected = rates(optimizer, CosineAnnealingLR(optimizer, T_max=20, eta_min=0.03), 21)
    received = ours(ScheduleOptions(schedule="cosine", warmup=0.0, lr_min=0.1), 20, 21)
    assert received == pytest.approx(expected, rel=1e-9)


def test_linear_is_that_of_torch():
    optimizer = optimizer_at(0.3)
    scheduler = LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=20)
    expected = rates(optimizer, scheduler, 25)
    received = ours(ScheduleOptions(schedule="linear", warmup=0.0, lr_min=0.1), 20, 25)
    assert received == pytest.approx(expected, rel=1e-9)


def test_step_is_that_of_torch():
    optimizer = optimizer_at(0.3)
    expected = rates(optimizer, MultiStepLR(optimizer, [6, 14], gamma=0.2), 25)
    options = ScheduleOptions(
        schedule="step", warmup=0.0, step_milestones=(0.3, 0.7), step_gamma=0.2
    )
    assert ours(options, 20, 25) == pytest.approx(expected, rel=1e-9)


def test_one_cycle_is_that_of_torch():
    # torch's cycle ends at the last of its steps and peaks one step before the share of pct_start
    optimizer = optimizer_at(0.3)
    scheduler = OneCycleLR(
        optimizer,
        max_lr=0.3,
        total_steps=21,
        pct_start=7 / 21,
        div_factor=25,
        final_div_factor=40,
        cycle_momentum=False,
    )
    expected = [scheduler.get_last_lr()[0]]
    for _ in range(20):
        optimizer.step()
        scheduler.step()
        expected.append(scheduler.get_last_lr()[0])
    options = ScheduleOptions(schedule="one_cycle", warmup=0.3, lr_min=1 / 1000)
    assert ours(options, 20, 21) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "step"])
def test_warm_up_rises_evenly_to_the_peak(name: str):
    received = ours(ScheduleOptions(schedule=name, warmup=0.25), 20, 7)
    expected = [0.3 * n / 6 for n in (1, 2, 3, 4, 5, 6)]
    assert received[:6] == pytest.approx(expected, rel=1e-12)
    assert received[6] <= 0.3


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_decay_begins_where_warm_up_ends(name: str):
    warmed = ours(ScheduleOptions(schedule=name, warmup=0.2), 25, 26)
    plain = ours(ScheduleOptions(schedule=name, warmup=0.0), 20, 21)
    assert warmed[5:] == pytest.approx(plain, rel=1e-12)


def test_milestones_count_from_the_first_step_of_all():
    options = ScheduleOptions(schedule="step", warmup=0.1, step_milestones=(0.5,))
    received = ours(options, 20, 20)
    assert received[9] == pytest.approx(0.3)
    assert received[10] == pytest.approx(0.03)


@pytest.mark.parametrize("name", NAMES)
def test_beyond_the_last_step_the_rate_stays_at_its_end(name: str):
    received = ours(ScheduleOptions(schedule=name, lr_min=0.01), 20, 40)
    assert len(set(received[20:])) == 1
    ends = {"constant": 1.0, "step": 0.01}
    assert received[20] == pytest.approx(0.3 * ends.get(name, 0.01), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.99])
def test_a_single_step_runs_at_the_peak(name: str, warmup: float):
    assert ours(ScheduleOptions(schedule=name, warmup=warmup, step_milestones=()), 1, 1) == [0.3]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("total", [1, 2, 3, 10, 97])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.999999])
def test_the_factor_is_positive_and_at_most_one_at_every_step(name: str, total: int, warmup: float):
    options = ScheduleOptions(schedule=name, warmup=warmup)
    factors = [schedule_factor(options, t, total_steps=total) for t in range(total)]
    assert all(0 < factor <= 1 for factor in factors)


def test_every_group_is_scaled_from_its_own_rate():
    a, b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.25}])
    options = ScheduleOptions(schedule="linear", warmup=0.0)
    schedule = make_schedule(optimizer, options, total_steps=4)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.75, 0.1875]


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_schedule_goes_on_exactly(name: str):
    options = ScheduleOptions(schedule=name, warmup=0.2)
    straight = ours(options, 20, 20)
    optimizer = optimizer_at(0.3)
    schedule = make_schedule(optimizer, options, total_steps=20)
    rates(optimizer, schedule, 9)
    saved = json.dumps([optimizer.state_dict()["param_groups"], schedule.state_dict()])
    groups, state = json.loads(saved)
    optimizer = optimizer_at(0.3)
    schedule = make_schedule(optimizer, options, total_steps=20)
    optimizer.load_state_dict({"state": {}, "param_groups": groups})
    schedule.load_state_dict(state)
    assert rates(optimizer, schedule, 11) == straight[9:]


def test_options_out_of_range_are_all_named_at_once():
    with pytest.raises(ConfigError) as caught:
        ScheduleOptions(warmup=1.0, lr_min=2.0, step_milestones=(0.5, 1.5), step_gamma=math.nan)
    assert caught.value.problems == (
        "warmup must be >= 0 and < 1, received 1.0",
        "lr_min must be >= 0 and <= 1, received 2.0",
        "step_milestones[1] must be >= 0 and <= 1, received 1.5",
        "step_gamma must be > 0 and <= 1, received nan",
    )


def test_an_unknown_schedule_is_refused_with_a_hint(without_type_checks: None):
    with pytest.raises(ConfigError, match=r"received 'cosin' \(did you mean 'cosine'\?\)"):
        ScheduleOptions(schedule="cosin")


def test_less_than_one_step_is_refused():
    with pytest.raises(ConfigError, match="total_steps must be >= 1, received 0"):
        make_schedule(optimizer_at(0.1), ScheduleOptions(), total_steps=0)
