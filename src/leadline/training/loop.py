"""The loop, as a generator of Steps: forward, backward, update, and nothing else.

    for step in steps(setup, execution):
        ...

Whoever wants to know (journal, progress, checkpoint, a watch) reads the Step; there are no
callbacks. One optimizer step uses a window of `accumulate` batches, each weighted by its share of
the window's examples, so that the gradient is that of the whole window at once, also for the
ragged window at the end of an epoch.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from leadline.core.errors import NonFiniteError, TrainingError
from leadline.core.taps import first_nonfinite
from leadline.optim.clipping import clip_gradient, gradient_norm
from leadline.training.execution import Execution, widen
from leadline.training.setup import Setup
from leadline.training.state import TrainingState
from leadline.training.step import Step

Window = Sequence[Sequence[Tensor]]  # pairs of inputs and targets; a DataLoader's are lists


def steps(
    setup: Setup, execution: Execution, *, state: TrainingState | None = None
) -> Iterator[Step]:
    """Train, yielding a Step after each update; a given `state` goes on from where it stands.

    At every yield the state is whole: what it saves there resumes exactly.

    >>> import torch
    >>> setup = Setup(
    ...     model=lambda: torch.nn.Linear(2, 1),
    ...     batches=[(torch.ones(4, 2), torch.ones(4, 1))] * 3,
    ...     loss=torch.nn.functional.mse_loss,
    ...     optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    ... )
    >>> [step.index for step in steps(setup, Execution())]
    [1, 2, 3]
    """
    state = state or TrainingState(setup, execution)
    per_epoch = -(-len(state.batches) // setup.accumulate)
    thaws = setup.freezing is not None and setup.freezing.thaw_steps > 0
    while not state.finished:
        epoch = state.counters.epoch
        state.enter_training()
        batches = iter(state.batches)
        done = state.counters.step - epoch * per_epoch
        while window := list(itertools.islice(batches, setup.accumulate)):
            begun = time.perf_counter()
            done += 1
            # a reader that evaluates may have left it so; what is frozen may thaw at any step
            if not state.model.training or thaws:
                state.enter_training()
            record = _advance(state, window, ends_epoch=done == per_epoch)
            if record.ends_epoch:
                if next(batches, None) is not None:
                    raise _miscounted(f"more than the {len(state.batches)} that `len` promises")
                state.counters.epoch = epoch + 1
            state.counters.seconds += time.perf_counter() - begun
            yield record
        if state.counters.epoch == epoch:
            raise _miscounted(f"an end after {done} of {per_epoch} steps")


def _advance(state: TrainingState, window: Window, *, ends_epoch: bool) -> Step:
    setup, counters = state.setup, state.counters
    placed = [state.execution.place_batch(inputs, targets) for inputs, targets in window]
    examples = sum(len(inputs) for inputs, _ in placed)
    lr = float(state.optimizer.param_groups[0]["lr"])
    drawn = torch.get_rng_state()
    state.optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=state.execution.device)
    for inputs, targets in placed:
        with state.execution.precision_scope():
            outputs = state.forward(inputs)
        part = setup.loss(widen(outputs), targets).reshape(()) * (len(inputs) / examples)
        part.backward()
        loss += part.detach()
    parameters = [p for p in state.model.parameters() if p.grad is not None]
    if setup.clip_grad:
        norm = clip_gradient(parameters, max_norm=setup.clip_grad)
    else:
        norm = gradient_norm(parameters)
    if not bool(torch.isfinite(loss + norm)):
        raise _nonfinite(state, placed, loss, drawn=drawn)
    state.optimizer.step()
    if state.schedule is not None:
        state.schedule.step()
    if state.average is not None:
        state.average.update()
    counters.step += 1
    counters.examples += examples
    return Step(
        index=counters.step,
        epoch=counters.epoch + 1,
        loss=loss,
        lr=lr,
        examples=examples,
        grad_norm=norm,
        ends_epoch=ends_epoch,
    )


def _miscounted(received: str) -> TrainingError:
    return TrainingError(
        expected="every epoch to have as many batches as `len(batches)` says",
        received=received,
        remedy="make the length match, or pass a list of batches",
    )


def _nonfinite(
    state: TrainingState, placed: Window, loss: Tensor, *, drawn: Tensor
) -> NonFiniteError:
    """The error that says at which step and layer a NaN or an infinity began.

    `drawn` is torch's random state before the step: dropout then drops the same units again.
    """
    step, epoch = state.counters.step + 1, state.counters.epoch + 1
    torch.set_rng_state(drawn)
    if bool(torch.isfinite(loss)):
        bad = [
            name
            for name, parameter in state.model.named_parameters()
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
        ]
        where = "the loss is finite, but the gradient is not: "
        where += f"it reaches {bad[-1]!r} first" if bad else "its norm overflows"
    else:
        where = _origin(state, placed)
    return NonFiniteError(
        expected="a finite loss and gradient at every step",
        received=f"loss {loss.item():.4g} at step {step} (epoch {epoch}): {where}",
        remedy="the weights are those from before this step; lower lr, clip the gradient with "
        "--clip-grad 1, or look at that layer and at the inputs",
    )


def _origin(state: TrainingState, placed: Window) -> str:
    for inputs, _ in placed:
        if not bool(torch.isfinite(inputs).all()):
            return "the input itself is not finite"
        with state.execution.precision_scope(), torch.no_grad():
            name = first_nonfinite(state.model, functools.partial(state.model, inputs))
        if name is not None:
            return f"it began in the output of layer {name!r}"
    return "every layer's output is finite: it began in the loss function"
