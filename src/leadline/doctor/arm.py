"""An arm of a trial: a Setup trained for some steps on given batches, and how it then answers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """Examples that models are asked after an arm: batches of training data, and of held-out."""

    training: Sequence[tuple[Any, Any]]
    held_out: Sequence[tuple[Any, Any]]
    problem: Problem


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What an arm came to.

    `training` and `held_out` are the verdicts on the two parts of the probe (the latter None
    without validation batches), `halfway` that on the first after half of the steps, `in_training`
    the one in training mode. `norms` are the gradient's, step by step.
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

    @property
    def verdict(self) -> Verdict:
        """The verdict that counts: on held-out examples where there are some."""
        return self.training if self.held_out is None else self.held_out

    @property
    def arm(self) -> Arm:
        """The arm as it is reported."""
        return Arm(
            losses=self.losses,
            error=self.verdict.error,
            surprise=self.verdict.surprise,
            ended=self.ended,
        )


def run_arm(
    setup: Setup,
    batches: Sequence[Any],
    *,
    remedy: Remedy | None = None,
    probe: Probe,
    execution: Execution,
    seconds: float = math.inf,
) -> Outcome:
    """Train a copy on these batches, an update for every `accumulate` of them, and ask it.

    The random streams are afterwards where they were. An arm that raises ends there, and says why.
    """
    sick = replace(setup, batches=list(batches), epochs=1, validation=None, patience=0)
    with preserved_random_state(), execution.threads_scope():
        treated = remedy(sick) if remedy is not None else sick
        losses: list[float] = []
        norms: list[float] = []
        ended, halfway = "", None
        state = TrainingState(treated, execution)
        total = -(-len(list(treated.batches)) * treated.epochs // treated.accumulate)
        begun = time.perf_counter()
        try:
            for step in steps(treated, execution, state=state):
                losses.append(float(step.loss))
                norms.append(float(step.grad_norm))
                if step.index == total // 2:
                    halfway = ask(state.evaluated_model, probe.training, probe, execution)
                if time.perf_counter() - begun > seconds:
                    break
        except NonFiniteError as error:
            ended = error.received
        except (LeadlineError, RuntimeError, ValueError, TypeError, IndexError) as error:
            ended = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        spent = time.perf_counter() - begun
        model = state.evaluated_model
        first = losses[0] if losses else math.nan
        verdicts = [
            ask(model, part, probe, execution, training=mode)
            for part, mode in ((probe.training, False), (probe.held_out, False),
                               (probe.training, True))
        ]  # fmt: skip
        if probe.problem.kind == "unknown":
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
    )


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
        return judge_all(*found, probe.problem)
    except (RuntimeError, ValueError, IndexError):
        return None


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
                placed, _ = execution.place_batch(inputs, wanted)
                outputs.append(main_output(model(placed)).float().cpu())
                targets.append(wanted.cpu())
        return outputs, targets
    except (LeadlineError, RuntimeError, ValueError, TypeError, IndexError):
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
