"""Every optimizer: torch's own with the right options, exactly resumable under every schedule."""

import copy
import json

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from leadline.core.config import from_json, to_json
from leadline.core.errors import ConfigError, ModelError
from leadline.core.state import FlatState, flatten_state, restore_state
from leadline.optim.muon import MuonAdamW
from leadline.optim.optimizers import OptimizerOptions, make_optimizer, match_layout
from leadline.optim.schedules import ScheduleOptions, make_schedule

NAMES = ["sgd", "rmsprop", "adam", "adamw", "muon"]
SCHEDULES = ["constant", "cosine", "linear", "step", "one_cycle"]


def network(layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),  # a norm follows: no gradient but noise
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 2),
    )
    return model.to(memory_format=layout)


def train(model: nn.Module, optimizer, seeds: range, schedule=None) -> None:
    for seed in seeds:
        inputs = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


def through_files(state: dict) -> dict:
    flat = flatten_state(state)
    text = json.dumps(flat.plain, allow_nan=False)
    return restore_state(FlatState(tensors=load(save(flat.tensors)), plain=json.loads(text)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("name", NAMES)
def test_resuming_equals_never_stopping_bit_for_bit(name: str, schedule_name: str, layout):
    options = OptimizerOptions(optimizer=name, lr=0.01)
    schedule_options = ScheduleOptions(schedule=schedule_name, warmup=0.2)

    def begin():
        model = network(layout)
        optimizer = make_optimizer(model, options)
        return model, optimizer, make_schedule(optimizer, schedule_options, total_steps=8)

    straight, optimizer, schedule = begin()
    train(straight, optimizer, range(8), schedule)

    model, optimizer, schedule = begin()
    train(model, optimizer, range(3), schedule)
    saved = through_files(
        {
            "model": dict(model.state_dict()),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        }
    )
    resumed, optimizer, schedule = begin()
    resumed.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    match_layout(optimizer)
    schedule.load_state_dict(saved["schedule"])
    train(resumed, optimizer, range(3, 8), schedule)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": True, "fused": True}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.8, "eps": 1e-7}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.9), "eps": 1e-7, "fused": True}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.9), "eps": 1e-7, "fused": True}),
        ("muon", MuonAdamW, {"momentum": 0.8, "nesterov": True, "method": "muon"}),
    ],
)
def test_the_options_reach_torchs_own_optimizer(name: str, kind: type, expected: dict):
    options = OptimizerOptions(
        optimizer=name, lr=0.01, momentum=0.8, betas=(0.8, 0.9), weight_decay=0.3, eps=1e-7
    )
    optimizer = make_optimizer(network(), options)
    assert type(optimizer) is kind
    first = optimizer.param_groups[0]
    assert {key: first[key] for key in expected} == expected
    assert first["lr"] == 0.01
    for group in optimizer.param_groups:
        vectors = {parameter.ndim <= 1 for parameter in group["params"]}
        assert vectors == {group["weight_decay"] == 0.0}


@pytest.mark.parametrize("name", NAMES)
def test_one_step_down_a_slope_is_the_closed_form(name: str):
    """From zero moments, with gradient 4 on a weight of 2 and no decay."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    options = OptimizerOptions(optimizer=name, lr=0.1, weight_decay=0.0)
    optimizer = make_optimizer(model, options)
    model.weight.grad = torch.full((1, 1), 4.0)
    optimizer.step()
    moved = {
        "sgd": 0.1 * (4 + 0.9 * 4),  # Nesterov: the gradient and the first momentum, which is it
        "rmsprop": 0.1 * 4 / (0.01 * 16) ** 0.5,
        "adam": 0.1,  # the corrected moments are 4 and 16
        "adamw": 0.1,
        "muon": 0.3 * 0.1,  # the only weight is input layer and head: AdamW at its share of lr
    }
    assert model.weight.item() == pytest.approx(2.0 - moved[name], rel=1e-5)


@pytest.mark.parametrize(("name", "lr"), [(n, 0.05 if n == "sgd" else 0.01) for n in NAMES])
def test_every_optimizer_learns_a_small_task(name: str, lr: float):
    torch.manual_seed(0)
    inputs, model = torch.randn(64, 4), nn.Sequential(nn.Linear(4, 16), nn.Tanh())
    model.extend([nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)])
    targets = inputs.prod(dim=1, keepdim=True).sign()
    optimizer = make_optimizer(model, OptimizerOptions(optimizer=name, lr=lr))
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_a_schedule_scales_muon_and_its_adamw_alike():
    optimizer = make_optimizer(network(), OptimizerOptions(optimizer="muon", lr=0.01))
    options = ScheduleOptions(schedule="linear", warmup=0.0)
    schedule = make_schedule(optimizer, options, total_steps=4)
    optimizer.step()
    schedule.step()
    rates = {group["method"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"muon": 0.0075, "adamw": 0.00225})


def test_nesterov_without_momentum_is_plain_descent():
    model = nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer(model, OptimizerOptions(momentum=0.0, nesterov=True))
    assert optimizer.param_groups[0]["nesterov"] is False


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_trainable_parameters_is_refused(name: str):
    with pytest.raises(ModelError, match="at least one trainable parameter"):
        make_optimizer(nn.ReLU(), OptimizerOptions(optimizer=name))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_without_a_fused_kernel_get_the_ordinary_one(name: str):
    model = nn.Linear(2, 2, device="meta")
    optimizer = make_optimizer(model, OptimizerOptions(optimizer=name))
    assert not optimizer.param_groups[0].get("fused")


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_moments_saved_from_one_layout_load_into_another(name: str):
    """A fused kernel ignores strides: without the relayout it pairs moments and weights wrongly."""
    options = OptimizerOptions(optimizer=name, lr=0.01)
    plain = network()
    optimizer = make_optimizer(plain, options)
    train(plain, optimizer, range(3))
    other = network(torch.channels_last)
    other.load_state_dict(plain.state_dict())
    other_optimizer = make_optimizer(other, options)
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    match_layout(other_optimizer)
    for parameter, state in other_optimizer.state.items():
        for value in state.values():
            if value.shape == parameter.shape:
                assert value.stride() == parameter.stride()
    train(plain, optimizer, range(3, 5))
    train(other, other_optimizer, range(3, 5))
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)


def test_match_layout_changes_no_value():
    kernel = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD([kernel], lr=0.1, momentum=0.9)
    moment = torch.randn(4, 3, 2, 2)
    optimizer.state[kernel] = {"momentum_buffer": moment}
    match_layout(optimizer)
    received = optimizer.state[kernel]["momentum_buffer"]
    assert torch.equal(received, moment)
    assert received.stride() == kernel.stride()


def test_options_out_of_range_are_all_named_at_once():
    with pytest.raises(ConfigError) as caught:
        OptimizerOptions(
            lr=0.0, momentum=1.0, betas=(-0.1, 1.0), weight_decay=float("inf"), eps=-1.0
        )
    assert caught.value.problems == (
        "lr must be > 0, received 0.0",
        "momentum must be >= 0 and < 1, received 1.0",
        "betas[0] must be >= 0 and < 1, received -0.1",
        "betas[1] must be >= 0 and < 1, received 1.0",
        "weight_decay must be >= 0, received inf",
        "eps must be >= 0, received -1.0",
    )


def test_an_unknown_optimizer_is_refused_with_a_hint(without_type_checks: None):
    with pytest.raises(ConfigError, match=r"received 'adamm' \(did you mean 'adam'\?\)"):
        OptimizerOptions(optimizer="adamm")


def test_options_go_through_json():
    options = OptimizerOptions(optimizer="muon", betas=(0.8, 0.95))
    assert from_json(OptimizerOptions, to_json(options)) == options
