"""Tests of diagnose as a whole: it leaves all as found, repeats itself, and reads odd Setups."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader, TensorDataset

import leadline
from leadline.core.errors import ConfigError, LeadlineError, MeasurementError, TrainingError
from leadline.data.examples import ArrayExamples
from leadline.data.loader import Loader
from leadline.doctor.diagnose import diagnose, record
from leadline.doctor.diagnosis import Diagnosis
from leadline.training.setup import Setup

INPUTS = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
CLASSES = INPUTS[:, :3].argmax(dim=1)
NUMBERS = INPUTS[:, :1] * 2
TOKENS = torch.randint(0, 20, (256, 1), generator=torch.Generator().manual_seed(0))


def cut(inputs: Any, targets: Any, size: int = 32) -> list[tuple[Any, Any]]:
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def network(outputs: int = 3, inputs: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def softmaxed() -> nn.Module:
    return nn.Sequential(network(), nn.Softmax(dim=1))


def adam(model: nn.Module) -> Optimizer:
    return Adam(model.parameters(), lr=1e-2)


def setup_of(**changes: Any) -> Setup:
    parts: dict[str, Any] = {
        "model": network,
        "batches": cut(INPUTS, CLASSES),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam,
        "epochs": 5,
    }
    return Setup(**(parts | changes))


def of(setup: Setup) -> Diagnosis:
    diagnosis = diagnose(setup, seconds=3)
    json.dumps(diagnosis.to_plain(), allow_nan=False)
    assert str(diagnosis)
    return diagnosis


def told(diagnosis: Diagnosis) -> list[str]:
    """Errors and warnings, by cause."""
    return [f.cause for f in diagnosis.findings if f.severity != "note"]


# --------------------------------------------------------------------------------- as it was found


def streams() -> list[Any]:
    state: Any = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), state[1].tolist(), state[2]]


@pytest.mark.parametrize("model", [network, softmaxed])
def test_the_setup_and_the_random_streams_stay_as_they_were(model: Any) -> None:
    own = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(INPUTS, CLASSES), 32, shuffle=True, generator=own)
    setup = setup_of(model=model, batches=loader)
    parts = dict(vars(setup))
    before, mine = streams(), own.get_state()
    diagnose(setup, seconds=2)
    assert streams() == before
    assert torch.equal(own.get_state(), mine)
    assert vars(setup) == parts


def test_a_loader_of_leadline_keeps_its_position() -> None:
    pictures = ArrayExamples(torch.rand(64, 1, 4, 4), torch.arange(64) % 3)
    loader = Loader(
        pictures, batch_size=16, seed=3, mean=(0.5,), std=(0.3,), device="cpu", num_classes=3
    )
    next(iter(loader))
    before = loader.state_dict()
    diagnose(
        setup_of(model=lambda: nn.Sequential(nn.Flatten(), network(inputs=16)), batches=loader),
        seconds=2,
    )
    assert loader.state_dict() == before


def test_the_examples_of_a_model_that_writes_into_them_stay_as_they_were() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.mul_(1.5))

    batches = cut(INPUTS.clone(), CLASSES)
    diagnosis = of(setup_of(model=Writing, batches=batches))
    assert "data_modified_in_place" in told(diagnosis)
    for (inputs, _), (kept, _) in zip(batches, cut(INPUTS, CLASSES), strict=True):
        assert torch.equal(inputs, kept)


# ------------------------------------------------------------------------------ again, and treated


@pytest.mark.parametrize("model", [network, softmaxed])
def test_the_same_seed_gives_the_same_diagnosis(model: Any, timeless: Any) -> None:
    def ask() -> Any:
        return timeless(diagnose(setup_of(model=model), steps=2000, seconds=600).to_plain())

    assert ask() == ask()


def test_another_seed_begins_with_other_weights() -> None:
    one, other = of(setup_of()), of(setup_of(seed=7))
    assert one.baseline is not None and other.baseline is not None
    assert one.baseline.losses != other.baseline.losses


def test_the_treated_setup_is_healthy() -> None:
    sick = setup_of(model=softmaxed, epochs=15, validation=cut(INPUTS[:64] + 0.01, CLASSES[:64]))
    diagnosis = of(sick)
    assert diagnosis.findings[0].cause == "double_softmax"
    healed = of(diagnosis.treat(sick))
    assert "double_softmax" not in told(healed)
    assert healed.baseline is not None and diagnosis.baseline is not None
    assert healed.baseline.surprise < 0.5 * diagnosis.baseline.surprise


# ---------------------------------------------------------------------------------- the subjects


@pytest.mark.parametrize("wrong", [None, 3, "train", network(), nn.Linear])
def test_what_is_no_setup_tape_or_function_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        inspect.unwrap(diagnose)(wrong)
    assert caught.value.expected == "a Setup, a tape, or a function that trains"
    assert caught.value.received == type(wrong).__name__
    assert "leadline.Setup(" in caught.value.remedy


@pytest.mark.parametrize("value", [None, (network(), (torch.ones(2, 8), torch.zeros(2)), None)])
def test_a_function_that_does_not_train_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        diagnose(lambda: value)
    assert caught.value.expected == "a function that trains, or returns a Setup"
    assert f"returned a {type(value).__name__} without a backward pass" in caught.value.received
    assert "leadline.check is for a model and a batch" in caught.value.remedy


def test_a_function_that_returns_a_setup_is_diagnosed_as_that() -> None:
    diagnosis = diagnose(lambda: setup_of(model=softmaxed), seconds=2)
    assert diagnosis.findings[0].cause == "double_softmax"


def test_a_function_that_fails_before_a_model_ran_is_an_error() -> None:
    def train() -> None:
        raise FileNotFoundError("data.csv")

    with pytest.raises(TrainingError) as caught:
        diagnose(train)
    assert caught.value.received == "FileNotFoundError: data.csv, before any model ran"
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def train_without_zero_grad() -> None:
    torch.manual_seed(0)
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    for inputs, targets in cut(INPUTS, CLASSES) * 3:
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def test_a_function_that_trains_is_called_once_and_its_loop_is_read() -> None:
    calls = []

    def train() -> None:
        calls.append(1)
        train_without_zero_grad()

    diagnosis = diagnose(train, seconds=2)
    assert calls == [1]
    assert diagnosis.findings[0].cause == "zero_grad_missing"


def test_a_tape_is_diagnosed_by_itself_or_by_its_own_word() -> None:
    with record() as tape:
        train_without_zero_grad()
    assert tape.diagnose().findings[0].cause == "zero_grad_missing"
    assert diagnose(tape, seconds=2).findings[0].cause == "zero_grad_missing"


def test_they_are_leadlines_own_words() -> None:
    assert leadline.diagnose is diagnose
    assert leadline.record is record


# -------------------------------------------------------------------------- Setups of every shape


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 16, sparse=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.words(x).mean(dim=1))


class Two(nn.Module):
    """Two answers, of which the first counts."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.net(x)
        return logits, logits.detach()


class Uncopied(nn.Module):
    """A model that deepcopy refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.source = network(), (n for n in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class NoLength:
    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class Anything(NoLength):
    """Batches of any form: the tests' type checks look into lists only."""

    def __len__(self) -> int:
        return len(self.batches)


HEALTHY: dict[str, dict[str, Any]] = {
    "a generator": {"batches": "generator"},
    "no length": {"batches": NoLength(cut(INPUTS, CLASSES))},
    "pairs as lists": {"batches": Anything([list(pair) for pair in cut(INPUTS, CLASSES)])},
    "one-hot targets": {"batches": cut(INPUTS, functional.one_hot(CLASSES, 3).float())},
    "whole-number one-hot targets": {
        "batches": cut(INPUTS, functional.one_hot(CLASSES, 3)),
        "loss": lambda o, t: functional.cross_entropy(o, t.float()),
    },
    "a model that returns a tuple": {
        "model": Two,
        "loss": lambda o, t: functional.cross_entropy(o[0], t),
    },
    "a model that cannot be copied": {"model": Uncopied},
    "a running average": {"ema_decay": 0.9},
    "clipping": {"clip_grad": 1.0},
    "double precision": {
        "model": lambda: network().double(),
        "batches": cut(INPUTS.double(), CLASSES),
    },
    "bfloat16": {
        "model": lambda: network().bfloat16(),
        "batches": cut(INPUTS.bfloat16(), CLASSES),
    },
    "targets that are the inputs": {
        "model": lambda: nn.Linear(8, 8),
        "batches": cut(INPUTS, INPUTS),
        "loss": nn.MSELoss(),
        "optimizer": lambda model: Adam(model.parameters(), lr=0.05),
    },
    "whole-number targets of a regression": {
        "model": lambda: network(1),
        "batches": cut(INPUTS, (NUMBERS * 3).round().long()),
        "loss": lambda o, t: functional.mse_loss(o, t.float()),
        "optimizer": lambda model: Adam(model.parameters(), lr=0.05),
    },
    "sparse gradients": {
        "model": Sparse,
        "batches": cut(TOKENS, TOKENS[:, 0] % 3),
        "optimizer": lambda model: SGD(model.parameters(), lr=2.0),
        "epochs": 30,
        "clip_grad": 10.0,
    },
    "a loss of shape [1]": {"loss": lambda o, t: functional.cross_entropy(o, t).reshape(1)},
    "a loss that prints": {"loss": lambda o, t: (print(end=""), functional.cross_entropy(o, t))[1]},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_setups_of_every_shape_are_healthy(name: str) -> None:
    changes = dict(HEALTHY[name])
    if changes.get("batches") == "generator":
        changes["batches"] = (pair for pair in cut(INPUTS, CLASSES))
    diagnosis = of(setup_of(**changes))
    assert told(diagnosis) == []
    assert diagnosis.problem != "a problem of no known kind"
    assert diagnosis.baseline is not None and diagnosis.baseline.ended == ""
    assert diagnosis.baseline.error < 0.5


# ---------------------------------------------------------------------- what cannot be done is said


class Fails:
    """A callable that raises at each so-manieth call."""

    def __init__(self, inner: Callable[..., Any], every: int, error: Exception) -> None:
        self.inner = inner
        self.every = every
        self.error = error
        self.calls = 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        if self.calls % self.every == 0:
            raise self.error
        return self.inner(*args)


class Failing(nn.Module):
    def __init__(self, every: int) -> None:
        super().__init__()
        self.net = network()
        self.forward = Fails(self.net.forward, every, RuntimeError("out of luck"))  # type: ignore[assignment, method-assign]


def failing_batches(after: int) -> Any:
    class Broken:
        def __len__(self) -> int:
            return 8

        def __iter__(self) -> Iterator[Any]:
            yield from cut(INPUTS, CLASSES)[:after]
            raise OSError("the disk is gone")

    return Broken()


@pytest.mark.parametrize(
    ("changes", "expected", "received"),
    [
        ({"batches": []}, "a Setup with at least one batch", "batches that are empty"),
        ({"batches": failing_batches(0)}, "batches that can be run through", "OSError: the disk"),
        ({"batches": Anything(["abc"])}, "a batch: (inputs, targets)", "'abc'"),
        (
            {"batches": Anything([(np.zeros((4, 8)), np.zeros(4))])},
            "a model that runs on this batch",
            "TypeError in Linear",
        ),
        (
            {"batches": cut(INPUTS.double(), CLASSES)},
            "a model that runs on this batch",
            "must have the same dtype",
        ),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, "a loss that is one number", "(32,)"),
        ({"loss": lambda o, t: None}, "a loss that is one number", "None"),
        (
            {"model": lambda: nn.Sequential(nn.LazyLinear(3))},
            "a model whose parameters have their sizes",
            "2 lazy ones",
        ),
        ({"model": lambda: Failing(1)}, "a model that runs on this batch", "out of luck"),
    ],
)
def test_what_cannot_be_diagnosed_is_an_error_of_three_lines(
    changes: Any, expected: str, received: str
) -> None:
    with pytest.raises(MeasurementError) as caught:
        diagnose(setup_of(**changes), seconds=2)
    assert caught.value.expected.startswith(expected)
    assert received in caught.value.received
    assert caught.value.remedy


def test_batches_that_end_with_an_error_are_diagnosed_as_far_as_they_came() -> None:
    diagnosis = of(setup_of(batches=failing_batches(5)))
    assert diagnosis.limits == ("the batches ended after 5 with OSError: the disk is gone",)
    assert told(diagnosis) == []


def test_what_was_seen_before_the_training_breaks_off_is_told() -> None:
    setup = setup_of(model=softmaxed, loss=Fails(nn.CrossEntropyLoss(), 40, KeyError("weights")))
    diagnosis = of(setup)
    assert diagnosis.findings[0].cause == "double_softmax"


@pytest.mark.parametrize("every", [25, 30])
def test_a_training_that_crashes_now_and_then_proves_nothing(every: int) -> None:
    """An arm in which the error happens not to come would seem to be healed."""
    loss = Fails(nn.CrossEntropyLoss(), every, ZeroDivisionError("by chance"))
    diagnosis = of(setup_of(loss=loss))
    assert told(diagnosis) == []
    assert any("with ZeroDivisionError: by chance" in limit for limit in diagnosis.limits)
    assert any("could not be tried" in limit for limit in diagnosis.limits)


def test_an_optimizer_that_the_trials_cannot_step_is_no_fault() -> None:
    diagnosis = of(setup_of(optimizer=lambda model: torch.optim.LBFGS(model.parameters())))
    assert told(diagnosis) == []
    assert any("LBFGS.step()" in limit for limit in diagnosis.limits)


def test_targets_without_a_batch_axis_are_named_before_any_training() -> None:
    diagnosis = of(setup_of(batches=cut(INPUTS, CLASSES[:, None])))
    assert diagnosis.findings[0].cause == "target_broadcast_shape"
    assert diagnosis.problem == "a problem of no known kind"


@pytest.mark.parametrize("row", [0, 250])
def test_an_input_that_is_not_a_number_never_ends_in_a_traceback(row: int) -> None:
    inputs = INPUTS.clone()
    inputs[row, 3] = math.nan
    diagnosis = of(setup_of(batches=cut(inputs, CLASSES)))
    assert diagnosis.baseline is not None
    assert "loss nan" in diagnosis.baseline.ended
    assert diagnosis.findings[0].cause == "input_not_finite"


def test_a_target_that_is_infinite_is_found() -> None:
    targets = NUMBERS.clone()
    targets[3] = math.inf
    diagnosis = of(
        setup_of(model=lambda: network(1), batches=cut(INPUTS, targets), loss=nn.MSELoss())
    )
    assert diagnosis.findings[0].cause == "nonfinite_value"


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": lambda model: torch.optim.LBFGS(model.parameters())},
        {"batches": Anything([({"input": x}, y) for x, y in cut(INPUTS, CLASSES)])},
        {
            "batches": Anything([(x, x, y) for x, y in cut(INPUTS, CLASSES)]),
            "model": lambda: nn.Bilinear(8, 8, 3),
        },
        {
            "batches": Anything([x for x, _ in cut(INPUTS, CLASSES)]),
            "loss": lambda o, t: o.square().mean(),
        },
        {"batches": [*cut(INPUTS, CLASSES)[:2], (INPUTS[:0], CLASSES[:0])]},
        {"schedule": lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)},
        {"model": lambda: Failing(7)},
        {"validation": []},
        {"validation": cut(INPUTS[:, :4], CLASSES)},
    ],
)
def test_odd_setups_give_a_diagnosis_or_a_clear_error(changes: Any) -> None:
    with contextlib.suppress(LeadlineError):
        assert of(setup_of(**changes)).model
