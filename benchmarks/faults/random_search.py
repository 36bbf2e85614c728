"""The baseline for repair: random search over rate, optimizer, activation and batch size.

It has as many optimizer steps as the doctor spent. Dedicated repair has been measured to be no
better than this (arXiv 2301.11568), so it is what a treatment has to beat. The rate is drawn
log-uniformly over five powers of ten, all else uniformly (Bergstra and Bengio, 2012); every try is
trained equally long from the same seed, and held-out examples choose where there are some.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from leadline.core.config import config_error, in_range
from leadline.core.seeds import preserved_random_state
from leadline.doctor.arm import run_arm
from leadline.doctor.drawn import Drawn
from leadline.doctor.patient import Patient, patient_of
from leadline.doctor.remedies.optimisation import Regrouped
from leadline.doctor.remedies.surgery import operated, put
from leadline.training.execution import Execution
from leadline.training.setup import Setup

FEWEST_TRIES, MOST_TRIES = 8, 32
SHORTEST = 20  # steps of a try
USUAL = 100  # steps of a try, where there are steps for more than the fewest tries
LOWEST_RATE, HIGHEST_RATE = 1e-5, 1.0
BATCH_SIZES = (16, 32, 64, 128, 256)

OPTIMIZERS: dict[str, Callable[[Any, float], Optimizer]] = {
    "sgd": lambda groups, lr: torch.optim.SGD(groups, lr=lr),
    "momentum": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9),
    "adam": lambda groups, lr: torch.optim.Adam(groups, lr=lr),
    "rmsprop": lambda groups, lr: torch.optim.RMSprop(groups, lr=lr),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module] | None] = {
    "as it is": None,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "leaky relu": nn.LeakyReLU,
}
HIDDEN = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Hardtanh, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.Softmax, nn.LogSoftmax),
)
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is drawn."""

    lr: float
    optimizer: str
    activation: str
    batch_size: int

    def __str__(self) -> str:
        rate = f"{self.optimizer} at {self.lr:.2g}"
        return f"{rate}, batches of {self.batch_size}, activation: {self.activation}"


def search(setup: Setup, *, steps: int, seed: int, execution: Execution | None = None) -> Setup:
    """The Setup with the best configuration that `steps` optimizer steps of search found.

    The Setup as it was where the steps are too few for a single try, or where no try ended with
    finite outputs.
    """
    found = best(setup, steps=steps, seed=seed, execution=execution)
    return setup if found is None else configured(setup, found)


def best(
    setup: Setup, *, steps: int, seed: int, execution: Execution | None = None
) -> Configuration | None:
    """The configuration that did best; None where none did."""
    if problem := in_range("steps", steps, 0):
        raise config_error("random search", [problem])
    patient = patient_of(setup, execution=execution or Execution(threads=1))
    tries, length = shares(steps - patient.allowance.spent_steps, whole=patient.total_steps)
    draw = random.Random(seed)
    ranked: list[tuple[float, float, int, Configuration]] = []
    for number in range(tries):
        configuration = _drawn(draw)
        error, surprise = _tried(patient, configuration, length)
        ranked.append((error, surprise, number, configuration))
    winner = min(ranked, default=None)
    return winner[3] if winner is not None and math.isfinite(winner[0]) else None


def shares(steps: int, *, whole: int | None) -> tuple[int, int]:
    """How many tries of how many steps; a try is never longer than the `whole` training.

    A training that is shorter than the shortest try is run whole.
    """
    shortest = min(SHORTEST, whole or SHORTEST)
    tries = min(max(FEWEST_TRIES, steps // USUAL), MOST_TRIES, max(steps, 0) // shortest)
    if tries < 1:
        return 0, 0
    length = steps // tries
    if whole is not None and length > whole:
        return min(steps // whole, MOST_TRIES), whole
    return tries, length


def configured(setup: Setup, configuration: Configuration) -> Setup:
    """The Setup so configured. The rate is constant: a schedule was made for another optimizer.

    Parameters that the old optimizer does not hold are not held by the new one; penalties stay.
    """
    make = setup.optimizer

    def optimizer(model: nn.Module) -> Optimizer:
        groups = [
            {"params": group["params"], "weight_decay": group.get("weight_decay", 0.0)}
            for group in make(model).param_groups
        ]
        return OPTIMIZERS[configuration.optimizer](groups, configuration.lr)

    changed = replace(
        setup,
        optimizer=optimizer,
        schedule=None,
        batches=Regrouped(setup.batches, configuration.batch_size),
    )
    activation = ACTIVATIONS[configuration.activation]
    if activation is None:
        return changed
    return operated(changed, lambda model: _exchanged(model, activation))


def _exchanged(model: nn.Module, activation: Callable[[], nn.Module]) -> nn.Module:
    """Another activation in the place of each that is defined before the last weights."""
    named = list(model.named_modules(remove_duplicate=False))
    weighted = [place for place, (_, part) in enumerate(named) if isinstance(part, WEIGHTED)]
    for name, part in named[: weighted[-1]] if weighted else ():
        if isinstance(part, HIDDEN):
            put(model, name, activation())
    return model


def _drawn(draw: random.Random) -> Configuration:
    exponent = draw.uniform(math.log10(LOWEST_RATE), math.log10(HIGHEST_RATE))
    return Configuration(
        lr=10**exponent,
        optimizer=draw.choice(list(OPTIMIZERS)),
        activation=draw.choice(list(ACTIVATIONS)),
        batch_size=draw.choice(BATCH_SIZES),
    )


def _tried(patient: Patient, configuration: Configuration, length: int) -> tuple[float, float]:
    """Error and surprise after so many steps; infinite where it did not end well."""
    candidate = configured(patient.setup, configuration)
    try:
        with preserved_random_state():
            drawn = Drawn(candidate.batches, seed=candidate.seed)
            batches = drawn.take(length * candidate.accumulate)
    except RuntimeError:  # batches of different widths cannot be put together: a lost try
        return math.inf, math.inf
    outcome = run_arm(candidate, batches, probe=patient.probe, execution=patient.execution)
    error, surprise = outcome.verdict.error, outcome.verdict.surprise
    if outcome.ended or math.isnan(error):
        return math.inf, math.inf
    return error, math.inf if math.isnan(surprise) else surprise
