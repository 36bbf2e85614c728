"""Tests of the watch: any loop, any wrapper, and never a trace in the training."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

import leadline
from leadline.core.errors import ConfigError, MeasurementError
from leadline.doctor import watch as watch_file
from leadline.doctor.watch import Watch

INPUTS = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(24) % 3


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Network(nn.Sequential):
    """Layers in a row, with a forward of its own: torch compiles none of its own files in place."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


def make_model() -> Network:
    """Everything that draws random numbers, keeps buffers or overwrites what it was given."""
    torch.manual_seed(0)
    return Network(
        nn.Linear(6, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Linear(16, 3),
    )


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def update(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(INPUTS).float(), TARGETS)
    loss.backward()
    optimizer.step()
    return loss


def hooks_on(model: nn.Module, *optimizers: torch.optim.Optimizer) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    ) + sum(len(o._optimizer_step_pre_hooks) for o in optimizers)


# ------------------------------------------------------------------ what the training is left with


@pytest.mark.parametrize("way", ["eager", "compiled", "compiled in place", "a part compiled"])
def test_a_training_is_bit_identical_with_and_without(way: str) -> None:
    """With dropout, batch norm, momentum, and every second step under autocast."""

    def train(*, watched: bool) -> tuple[dict[str, Tensor], list[float], Tensor, int]:
        torch.compiler.reset()
        counters.clear()
        model = make_model()
        called: Any = model
        if way == "compiled":
            called = torch.compile(model, backend="aot_eager")
        elif way == "compiled in place":
            model.compile(backend="eager")
        elif way == "a part compiled":
            model[0] = torch.compile(model[0], backend="eager")
        optimizer = make_optimizer(model)
        torch.manual_seed(7)
        watch = leadline.watch(called, optimizer, every=1) if watched else None
        losses = []
        for step in range(4):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step % 2 == 1):
                loss = update(called, optimizer)
            losses.append(loss.item())
            if watch is not None:
                watch.step(loss)
        if watch is not None:
            assert watch.history.steps == (1, 2, 3, 4)
            assert watch.profile().at("2")["zeros"] > 0.2
            watch.close()
        assert hooks_on(called, optimizer) == 0
        frames = counters["stats"]["unique_graphs"]
        return model.state_dict(), losses, torch.get_rng_state(), frames

    plain, watched = train(watched=False), train(watched=True)
    assert all(torch.equal(plain[0][name], watched[0][name]) for name in plain[0])
    assert plain[1] == watched[1]
    assert torch.equal(plain[2], watched[2])
    assert plain[3] == watched[3], "the watch made the model compile again"
    assert (plain[3] > 0) is (way != "eager")


def test_the_original_of_a_compiled_model_is_watched_at_one_compilation_more_at_most() -> None:
    counters.clear()
    model = make_model()
    compiled: Any = torch.compile(model, backend="eager")
    optimizer = make_optimizer(model)
    with leadline.watch(model, optimizer, every=1) as watch:
        for _ in range(4):
            watch.step(update(compiled, optimizer))
    assert counters["stats"]["unique_graphs"] <= 2
    assert watch.profile().at("4")["update_ratio"] > 0


def test_the_inputs_are_left_as_they_are_by_a_model_that_overwrites_them() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.mul_(0.5))

    model: Any = torch.compile(Overwriting(), backend="eager")
    inputs = torch.ones(4, 6)
    with leadline.watch(model, make_optimizer(model)) as watch:
        watch.step(model(inputs).sum())
    assert torch.equal(inputs, torch.full((4, 6), 0.5))
    assert watch.profile().layers == ("linear",)


def test_nothing_in_a_sampled_step_waits_for_the_device() -> None:
    class NoReading(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            read = ("_local_scalar_dense", "nonzero.default", "is_nonzero", "equal.default")
            assert not any(name in str(func) for name in read if "count" not in str(func)), func
            return func(*args, **(kwargs or {}))

    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with NoReading():
        watch = leadline.watch(model, optimizer, every=1)
        for _ in range(3):
            update(model, optimizer)
            watch.step()
    watch.close()
    assert watch.history.steps == (1, 2, 3)


def test_steps_that_are_not_sampled_have_no_hooks() -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    with leadline.watch(model, optimizer, every=5) as watch:
        hooked = []
        for _ in range(10):
            hooked.append(hooks_on(model, optimizer) > 0)
            watch.step(update(model, optimizer))
    assert [number for number, has in enumerate(hooked, start=1) if has] == [1, 5, 10]


def test_closing_leaves_no_hooks_and_a_step_after_it_is_refused() -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    watch = leadline.watch(model, optimizer)
    watch.step(update(model, optimizer))
    assert hooks_on(model, optimizer) > 0
    watch.close()
    watch.close()
    assert hooks_on(model, optimizer) == 0
    assert watch.history.steps == (1,)
    with pytest.raises(MeasurementError, match="a step after close"):
        watch.step(1.0)


def test_a_watch_that_is_forgotten_takes_its_hooks_along() -> None:
    model = make_model()
    watch = leadline.watch(model, make_optimizer(model))
    assert hooks_on(model) > 0
    del watch
    assert hooks_on(model) == 0


def test_a_model_can_be_copied_and_saved_between_steps() -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    with leadline.watch(model, optimizer, every=1) as watch:
        watch.step(update(model, optimizer))
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            other(INPUTS).sum().backward()
        watch.step()
    assert math.isnan(
        watch.profile().at("0")["update_ratio"]
    )  # nothing happened to the model itself


# --------------------------------------------------------------------------------- any loop at all


def test_the_cadence_sees_the_beginning() -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    with leadline.watch(model, optimizer) as watch:
        for _ in range(20):
            watch.step(update(model, optimizer))
    assert watch.history.steps[:4] == (1, 2, 4, 8)
    assert watch.share > 0


def test_accumulated_gradients_are_one_step_of_all_micro_batches() -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with leadline.watch(model, optimizer) as watch:
        optimizer.zero_grad()
        for part in INPUTS.split(6):
            model(part).square().mean().div(4).backward()
        optimizer.step()
        watch.step()
    whole = model(INPUTS)
    (gradient,) = torch.autograd.grad(whole.square().mean(), [model[0].weight], retain_graph=True)
    (bias,) = torch.autograd.grad(whole.square().mean(), [model[0].bias])
    found = watch.profile().at("0")
    assert found["std"] == pytest.approx(whole.std(correction=0).item(), rel=1e-5)
    assert found["mean"] == pytest.approx(whole.mean().item(), rel=1e-4)
    norm = math.hypot(gradient.norm().item(), bias.norm().item())
    assert found["gradient_norm"] == pytest.approx(norm, rel=1e-5)


def test_a_step_that_a_scaler_skips_moves_nothing() -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with leadline.watch(model, optimizer, every=1) as watch:
        for poisoned in (False, True, False):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(INPUTS), TARGETS)
            scaler.scale(loss).backward()
            if poisoned:
                model[4].weight.grad.fill_(math.inf)
            scaler.step(optimizer)
            scaler.update()
            watch.step(loss)
    ratios = watch.history.over_time("update_ratio")["4"]
    assert ratios[0] > 0 and ratios[1] == 0 and ratios[2] > 0
    assert watch.history.over_time("gradient_norm")["4"][1] == math.inf


def test_the_gradient_is_that_of_the_update_after_unscaling_and_before_it_is_dropped() -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with leadline.watch(model, optimizer) as watch:
        before = model[0].weight.detach().clone(), model[0].bias.detach().clone()
        scaler.scale(model(INPUTS).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        watch.step()
    moved = math.hypot(
        *((a - b).norm().item() for a, b in zip(before, model[0].parameters(), strict=True))
    )
    length = math.hypot(*(a.norm().item() for a in before))
    found = watch.profile().at("0")
    assert found["gradient_norm"] == pytest.approx(moved / 0.5, rel=1e-5)
    assert found["update_ratio"] == pytest.approx(moved / length, rel=1e-5)
    assert found["weight_norm"] == pytest.approx(length, rel=1e-5)


def test_a_loop_that_forgets_the_optimizer_moves_nothing() -> None:
    model = make_model()
    with leadline.watch(model, make_optimizer(model)) as watch:
        functional.cross_entropy(model(INPUTS), TARGETS).backward()
        watch.step()
    found = watch.profile().at("4")
    assert found["update_ratio"] == 0
    assert found["gradient_norm"] > 0


def test_an_optimizer_may_be_replaced_and_its_groups_may_grow() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with leadline.watch(model, optimizer, every=1) as watch:
        watch.step(update(model, optimizer))
        optimizer.add_param_group({"params": list(model[4].parameters()), "lr": 0.01})
        watch.step(update(model, optimizer))
        other = torch.optim.AdamW(model.parameters(), lr=0.001)
        watch.step(update(model, other))
        watch.optimizer = other
        watch.step(update(model, other))
        watch.step(update(model, other))
    rates = watch.history.over_time("lr")
    assert math.isnan(rates["4"][0]) and rates["4"][1] == 0.01 and rates["4"][4] == 0.001
    assert rates["0"][:2] == (0.1, 0.1)
    assert all(ratio > 0 for ratio in watch.history.over_time("update_ratio")["0"])


def test_layers_may_be_added_and_frozen_on_the_way() -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    with leadline.watch(model, optimizer, every=1) as watch:
        watch.step(update(model, optimizer))
        model[0].requires_grad_(False)
        model.append(nn.Linear(3, 3))
        watch.step(update(model, optimizer))
        watch.step(update(model, optimizer))
    last = watch.profile()
    assert watch.history.layers == ("0", "1", "2", "3", "4", "5")
    assert math.isnan(last.at("0")["weight_norm"])
    assert last.at("5")["update_ratio"] == 0  # no optimizer has it
    assert math.isnan(last.at("5")["lr"])


def test_several_optimizers_may_be_watched() -> None:
    model = make_model()
    pair = [torch.optim.SGD(model[i].parameters(), lr=0.1 + i) for i in (0, 4)]
    with leadline.watch(model, pair) as watch:
        functional.cross_entropy(model(INPUTS), TARGETS).backward()
        for optimizer in pair:
            optimizer.step()
        watch.step()
    assert watch.profile().at("0")["lr"] == pytest.approx(0.1)
    assert watch.profile().at("4")["lr"] == pytest.approx(4.1)
    assert watch.profile().at("4")["update_ratio"] > 0


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_distributed_model_has_its_own_names(process_group: None, compiled: bool) -> None:
    model = make_model()
    wrapped: Any = DistributedDataParallel(model)
    if compiled:
        wrapped = torch.compile(wrapped, backend="eager")
    optimizer = make_optimizer(wrapped)
    with leadline.watch(wrapped, optimizer, every=1) as watch:
        for _ in range(2):
            watch.step(update(wrapped, optimizer))
    assert watch.profile().layers == ("0", "1", "2", "3", "4")
    assert watch.profile().at("0")["gradient_norm"] > 0
    assert hooks_on(wrapped) == 0


def test_an_evaluation_in_between_is_not_the_training() -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    with leadline.watch(model, optimizer) as watch:
        with torch.no_grad():
            model.eval()(100 * INPUTS)
        model.train()
        watch.step(update(model, optimizer))
    assert watch.profile().at("0")["std"] < 10


# ---------------------------------------------------------------------------------- what it tells


def test_the_journals_rows_come_once_and_are_json() -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    with Watch(model, optimizer, every=2, start=100) as watch:
        for _ in range(4):
            watch.step(update(model, optimizer))
        first = watch.rows()
        for _ in range(2):
            watch.step(update(model, optimizer))
        second = watch.rows()
    assert [row["step"] for row in first] == [101, 102, 104]
    assert [row["step"] for row in second] == [106]
    assert watch.rows() == []
    row = json.loads(json.dumps(first[0], allow_nan=False))
    assert row["event"] == "watch" and row["layers"] == ["0", "1", "2", "3", "4"]
    assert row["values"]["lr"] == [0.1, 0.1, None, None, 0.1]
    assert watch.history.losses.steps == (101, 102, 103, 104, 105, 106)


def test_a_profile_is_that_of_the_newest_sampled_step_up_to_one() -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    with leadline.watch(model, optimizer, every=2) as watch:
        for _ in range(5):
            watch.step(update(model, optimizer))
    history = watch.history
    assert history.steps == (1, 2, 4)
    assert watch.profile().values == history.profiles[2].values
    assert watch.profile(step=3).values == history.profiles[1].values
    with pytest.raises(MeasurementError, match="a sampled step up to 0"):
        watch.profile(step=0)


def test_event_files_for_tensorboard_hold_every_layer(tmp_path: Path) -> None:
    reason = "tensorboard, which the extra 'tensorboard' installs, is missing"
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    )
    model = make_model()
    optimizer = make_optimizer(model)
    with leadline.watch(model, optimizer, every=1, tensorboard=tmp_path / "events") as watch:
        losses = []
        for _ in range(3):
            losses.append(update(model, optimizer))
            watch.step(losses[-1])
    events = module.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert "update_ratio/4" in events.Tags()["scalars"]
    assert "weight_norm/2" not in events.Tags()["scalars"]
    assert [e.step for e in events.Scalars("std/0")] == [1, 2, 3]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([x.item() for x in losses])


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda m, o: watch_file._check(o, m), MeasurementError, "the model comes first"),
        (lambda m, o: watch_file._check(m, m), MeasurementError, "received Network"),
        (lambda m, o: watch_file._check(m, [o, 1]), MeasurementError, "or a list of them"),
        (lambda m, o: leadline.watch(m.requires_grad_(False), o), MeasurementError, "frozen"),
        (lambda m, o: leadline.watch(nn.ReLU(), o), MeasurementError, "has no parameters"),
        (lambda m, o: leadline.watch(m, o, every=0), ConfigError, "every must be >= 1"),
        (lambda m, o: leadline.watch(m, o, budget=0.0), ConfigError, "budget must be > 0"),
    ],
)
def test_what_cannot_be_watched_is_said(
    make: Callable[..., Any], error: type[Exception], said: str
) -> None:
    model = make_model()
    with pytest.raises(error, match=said):
        make(model, make_optimizer(model))
    assert hooks_on(model) == 0


def test_a_loss_that_is_not_one_number_is_said() -> None:
    model = make_model()
    with (
        leadline.watch(model, make_optimizer(model)) as watch,
        pytest.raises(MeasurementError, match=r"shape \(24, 3\)"),
    ):
        watch.step(model(INPUTS))


def test_the_optimizer_of_another_model_is_named() -> None:
    with pytest.raises(MeasurementError, match="holds none of its parameters"):
        leadline.watch(make_model(), make_optimizer(make_model()))
