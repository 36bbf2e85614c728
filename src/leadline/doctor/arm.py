"""An arm of a trial: a Setup trained for some steps on given batches, and how it then answers."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.errors import LeadlineError, NonFiniteError
from leadline.core.seeds import preserved_random_state
from leadline.doctor.problem import Problem, Verdict, judge
from leadline.doctor.remedy import Remedy
from leadline.doctor.trial import Arm, smoothed
from leadline.measure.batch import main_output
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.setup import Setup
from leadline.training.state import TrainingState

MOST_LETTERS = 200
"""Of an error's message that are told: some of torch's name every backend there is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """Examples that models are asked after an arm: batches of training data, and of held-out.

    `complete` says that the training examples are all there are: no draw of them, no doubt.
    """

    training: Sequence[tuple[Any, Any]]
    held_out: Sequence[tuple[Any, Any]]
    problem: Problem
    complete: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What an arm came to.

    `training` and `held_out` are the verdicts on the two parts of the probe (the latter None
    without validation batches), `halfway` that on the first after half of the steps, `in_training`
    the one in training mode. `norms` are the gradient's, step by step. `ended` says why it stopped
    before its end; it `crashed` when that was an error in the code and no number out of bounds.
    """

    steps: int
    losses: tuple[float, ...]
    norms: tuple[float, ...]
    training: Verdict
    held_out: Verdict | None
    halfway: Verdict | None
    in_training: Verdict | None
    ended: str
    seconds: float
    model: nn.Module | None
    crashed: bool = False

    @property
    def verdict(self) -> Verdict:
        """The verdict that counts: on held-out examples, where they are of several classes."""
        held = self.held_out
        return self.training if held is None or math.isnan(held.error) else held

    @property
    def arm(self) -> Arm:
        """The arm as it is reported."""
        return Arm(
            losses=self.losses,
            error=self.verdict.error,
            surprise=self.verdict.surprise,
            ended=self.ended,
            seconds=self.seconds,
        )


def run_arm(
    setup: Setup,
    batches: Sequence[Any],
    *,
    remedies: Sequence[Remedy] = (),
    probe: Probe,
    execution: Execution,
    seconds: float = math.inf,
) -> Outcome:
    """Train a copy on these batches, an update for every `accumulate` of them, and ask it.

    The random streams are afterwards where they were. An arm that raises ends there, and says why.
    """
    sick = replace(setup, batches=Copied(batches), epochs=1, validation=None, patience=0)
    with preserved_random_state(), execution.threads_scope():
        losses: list[float] = []
        norms: list[float] = []
        ended, crashed, halfway, model = "", False, None, None
        begun = time.perf_counter()
        try:
            treated = sick
            for remedy in remedies:
                treated = remedy(treated)
            state = TrainingState(treated, execution)
            model = state.evaluated_model
            total = -(-len(state.batches) * treated.epochs // treated.accumulate)
            for step in steps(treated, execution, state=state):
                losses.append(float(step.loss))
                norms.append(float(step.grad_norm))
                if step.index == total // 2:
                    halfway = ask(model, probe.training, probe, execution)
                if time.perf_counter() - begun > seconds:
                    break
        except NonFiniteError as error:
            ended = error.received
        except Exception as error:  # user code may raise anything, at any step
            ended, crashed = _in_words(error), True
        spent = time.perf_counter() - begun
        verdicts = _verdicts(model, probe, execution)
        if probe.problem.kind == "unknown":
            first = losses[0] if losses else math.nan
            relative = smoothed(losses) / first if first else math.nan
            verdicts = [Verdict(error=relative, surprise=relative), None, None]
    if (ended and "loss nan" in ended) or verdicts[0] is None:
        verdicts[0] = Verdict(error=math.inf, surprise=math.inf)
    assert verdicts[0] is not None
    return Outcome(
        steps=len(losses),
        losses=tuple(losses),
        norms=tuple(norms),
        training=verdicts[0],
        held_out=verdicts[1],
        halfway=halfway,
        in_training=verdicts[2],
        ended=ended,
        seconds=spent,
        model=model,
        crashed=crashed,
    )


class Copied:
    """Batches of which an arm has copies: a network that writes into them spoils no other arm's.

    A batch that comes again is the same copy again, as it is the same tensor in a list that a
    training runs through epoch by epoch.
    """

    def __init__(self, source: Sequence[Any]) -> None:
        self._source = source
        times = Counter(map(id, source))
        self._again = {key for key, count in times.items() if count > 1}
        self._kept: dict[int, Any] = {}

    def __iter__(self) -> Iterator[Any]:
        for batch in self._source:
            key = id(batch)
            own = self._kept[key] if key in self._kept else _copy(batch)
            if key in self._again:
                self._kept[key] = own
            yield own

    def __len__(self) -> int:
        return len(self._source)


def _copy(batch: Any) -> Any:
    if not isinstance(batch, tuple | list):
        return batch
    return tuple(part.clone() if isinstance(part, Tensor) else part for part in batch)


def _in_words(error: Exception) -> str:
    """The error's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    if isinstance(error, LeadlineError):
        lines = [error.received]
    return type(error).__name__ + (f": {lines[0][:MOST_LETTERS]}" if lines else "")


def _verdicts(model: nn.Module | None, probe: Probe, execution: Execution) -> list[Verdict | None]:
    """On training examples, on held-out ones, and on the first in training mode."""
    if model is None:
        return [None, None, None]
    return [
        ask(model, probe.training, probe, execution),
        ask(model, probe.held_out, probe, execution),
        ask(model, probe.training, probe, execution, training=True),
    ]


def ask(
    model: nn.Module,
    examples: Sequence[tuple[Any, Any]],
    probe: Probe,
    execution: Execution,
    *,
    training: bool = False,
) -> Verdict | None:
    """How the model answers, in evaluation mode unless told otherwise; None without examples."""
    found = _answers(model, examples, execution, training=training)
    if found is None:
        return None
    try:
        verdict = judge_all(*found, probe.problem)
        whole = probe.complete and examples is probe.training
        return replace(verdict, doubt=0.0) if whole else verdict
    except (RuntimeError, ValueError, IndexError):
        return None  # answers that are no more of the problem's shape


def answers(
    model: nn.Module, examples: Sequence[tuple[Any, Any]], execution: Execution
) -> tuple[Tensor, Tensor] | None:
    """Outputs and targets, one batch behind the other; None where the model fails on them."""
    found = _answers(model, examples, execution, training=False)
    if found is None:
        return None
    try:
        return torch.cat(found[0]), torch.cat(found[1])
    except RuntimeError:
        return None


def _answers(
    model: nn.Module, examples: Sequence[tuple[Any, Any]], execution: Execution, *, training: bool
) -> tuple[list[Tensor], list[Tensor]] | None:
    if not examples:
        return None
    modes = {module: module.training for module in model.modules()}
    buffers = [(b, b.clone()) for b in model.buffers()] if training else []
    model.train(training)
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    try:
        with torch.no_grad(), execution.precision_scope():
            for inputs, wanted in examples:
                placed, _ = execution.place_batch(inputs.clone(), wanted)
                outputs.append(main_output(model(placed)).float().cpu())
                targets.append(wanted.cpu())
        return outputs, targets
    except Exception:  # the user's code, on examples it may not have met yet
        return None
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def judge_all(outputs: Sequence[Tensor], targets: Sequence[Tensor], problem: Problem) -> Verdict:
    """The verdict on several batches, which may be of different lengths in time."""
    if problem.kind == "classes" and not (problem.one_hot or problem.soft):
        rows = [o.movedim(problem.axis, -1).reshape(-1, problem.classes) for o in outputs]
        numbers = [t.reshape(-1) for t in targets]
        return judge(torch.cat(rows), torch.cat(numbers), replace(problem, axis=1))
    return judge(torch.cat(list(outputs)), torch.cat(list(targets)), problem)
