"""Tests of an arm: it trains as the plain loop does, on copies, and whatever ends it is said."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.seeds import seed_everything
from leadline.doctor.arm import Copied, Outcome, Probe, answers, ask, judge_all, run_arm
from leadline.doctor.problem import Problem, Verdict, judge
from leadline.doctor.remedy import Remedy
from leadline.training.execution import Execution
from leadline.training.setup import Setup

EXECUTION = Execution()
THREE = Problem(kind="classes", classes=3)
NOTHING = Probe(training=(), held_out=(), problem=Problem(kind="unknown"))


def data(count: int = 12, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Batches of 8 numbers whose largest of the first three is the class."""
    rows = [torch.randn(size, 8) for _ in range(count)]
    return [(x, x[:, :3].argmax(dim=1)) for x in rows]


BATCHES = data()


def setup_of(**changes: Any) -> Setup:
    parts: dict[str, Any] = {
        "model": lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)),
        "batches": (),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda model: torch.optim.Adam(model.parameters(), lr=0.05),
        "seed": 4,
    }
    return Setup(**(parts | changes))


def plain_loop(setup: Setup, batches: Any) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of the loop that everybody writes."""
    seed_everything(setup.seed)
    model = setup.model().train()
    optimizer = setup.optimizer(model)
    losses, norms = [], []
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = setup.loss(model(inputs), targets)
        loss.backward()
        squares = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
        losses.append(loss.item())
        norms.append(math.sqrt(sum(s.item() for s in squares)))
        optimizer.step()
    return losses, norms


def arm(setup: Setup, batches: Any, probe: Probe = NOTHING, **options: Any) -> Outcome:
    return run_arm(setup, batches, probe=probe, execution=EXECUTION, **options)


# --------------------------------------------------------------------------- it is the plain loop


def test_an_arm_is_the_plain_loop_on_these_batches() -> None:
    batches = data()
    outcome = arm(setup_of(), batches)
    losses, norms = plain_loop(setup_of(), batches)
    assert outcome.losses == pytest.approx(losses)
    assert outcome.norms == pytest.approx(norms, rel=1e-4)
    assert (outcome.steps, outcome.ended, outcome.crashed) == (12, "", False)


def test_epochs_validation_and_patience_of_the_setup_do_not_matter() -> None:
    batches = data(4)
    setup = setup_of(epochs=9, validation=data(1))
    assert arm(setup, batches).losses == arm(setup_of(), batches).losses


def test_an_update_takes_as_many_batches_as_the_setup_accumulates() -> None:
    batches = data(7)
    joined = [
        (torch.cat([x for x, _ in part]), torch.cat([y for _, y in part]))
        for part in (batches[:3], batches[3:6], batches[6:])
    ]
    outcome = arm(setup_of(accumulate=3), batches)
    assert outcome.steps == 3
    assert outcome.losses == pytest.approx(arm(setup_of(), joined).losses, rel=1e-4)


def test_the_average_is_asked_where_there_is_one() -> None:
    batches = data(30)
    probe = Probe(training=batches, held_out=(), problem=THREE)
    outcome = arm(setup_of(ema_decay=0.5), batches, probe)
    assert outcome.model is not None
    assert not any(p.requires_grad for p in outcome.model.parameters())
    assert outcome.training.error < 0.5


def test_two_arms_that_differ_by_nothing_are_the_same() -> None:
    batches, setup = data(), setup_of(model=lambda: nn.Sequential(*[nn.Linear(8, 3), nn.Dropout()]))
    one, two = (
        arm(setup, batches),
        arm(setup, batches, remedies=[Remedy(title="", apply=lambda s: s)]),
    )
    assert one.losses == two.losses


def test_a_remedy_changes_its_arm_only() -> None:
    batches, seen = data(), []

    def half(setup: Setup) -> Setup:
        seen.append(setup)
        return replace(
            setup, optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.025)
        )

    treated = arm(setup_of(), batches, remedies=[Remedy(title="", apply=half)])
    by_hand = setup_of(optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.025))
    assert treated.losses == arm(by_hand, batches).losses
    assert seen[0].epochs == 1 and seen[0].validation is None


def test_a_remedy_may_train_longer_on_the_batches() -> None:
    longer = Remedy(title="", apply=lambda s: replace(s, epochs=3))
    assert arm(setup_of(), data(4), remedies=[longer]).steps == 12


# -------------------------------------------------------------------------------- as it was found


class Writing(nn.Module):
    """A model that doubles its input where it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mul_(2))


def test_a_model_that_writes_into_its_input_spoils_no_other_arms() -> None:
    batches = data(4)
    before = [x.clone() for x, _ in batches]
    probe = Probe(training=batches, held_out=batches, problem=THREE)
    first = arm(setup_of(model=Writing), batches, probe)
    second = arm(setup_of(model=Writing), batches, probe)
    assert first.losses == second.losses
    assert (first.training, first.held_out) == (second.training, second.held_out)
    for (inputs, _), kept in zip(batches, before, strict=True):
        assert torch.equal(inputs, kept)


def test_within_an_arm_a_batch_that_comes_again_is_still_written_to() -> None:
    """As in a training on a list: the second epoch is given what the first one left."""
    (batch,) = data(1)
    outcome = arm(setup_of(model=Writing), [batch, batch, batch])
    own = (batch[0].clone(), batch[1])
    losses, _ = plain_loop(setup_of(model=Writing), [own, own, own])
    assert outcome.losses == pytest.approx(losses)


def test_copied_batches_are_pairs_of_the_same_numbers() -> None:
    batches = data(3)
    copies = Copied([*batches, batches[0]])
    drawn = list(copies)
    assert len(copies) == 4
    assert drawn[0] is drawn[3]
    for own, given in zip(drawn, batches, strict=False):
        assert torch.equal(own[0], given[0]) and torch.equal(own[1], given[1])
        assert own[0] is not given[0]


def test_the_random_streams_and_the_threads_stay_as_they_were() -> None:
    setup = setup_of(model=lambda: nn.Sequential(nn.Linear(8, 3), nn.Dropout()))
    probe = Probe(training=data(1), held_out=(), problem=THREE)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    python, numpy_state = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    for loss in (nn.CrossEntropyLoss(), _fails):
        run_arm(replace(setup, loss=loss), BATCHES, probe=probe, execution=Execution(threads=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == numpy_state  # type: ignore[index, union-attr]
    assert torch.get_num_threads() == threads


def _fails(outputs: Tensor, targets: Tensor) -> Tensor:
    raise KeyError("weights")


# ---------------------------------------------------------------------------------- how it answers


def test_the_verdicts_are_those_of_the_trained_model_on_each_part() -> None:
    batches, held = data(30), data(2)
    probe = Probe(training=batches[:3], held_out=held, problem=THREE)
    outcome = arm(setup_of(), batches, probe)
    assert outcome.model is not None and outcome.held_out is not None
    with torch.no_grad():
        shown = outcome.model(torch.cat([x for x, _ in batches[:3]]))
        unseen = outcome.model(torch.cat([x for x, _ in held]))
    assert outcome.training == judge(shown, torch.cat([y for _, y in batches[:3]]), THREE)
    assert outcome.held_out == judge(unseen, torch.cat([y for _, y in held]), THREE)
    assert outcome.verdict == outcome.held_out
    assert outcome.arm.error == outcome.held_out.error
    assert outcome.arm.losses == outcome.losses
    assert 0 < outcome.arm.seconds == outcome.seconds


def test_without_held_out_examples_the_training_ones_count() -> None:
    batches = data(30)
    outcome = arm(setup_of(), batches, Probe(training=batches, held_out=(), problem=THREE))
    assert outcome.held_out is None
    assert outcome.verdict == outcome.training


def test_held_out_examples_of_one_class_leave_the_verdict_to_the_training_ones() -> None:
    batches = data(30)
    alike = [(x, torch.zeros_like(y)) for x, y in data(2)]
    outcome = arm(setup_of(), batches, Probe(training=batches, held_out=alike, problem=THREE))
    assert outcome.held_out is not None and math.isnan(outcome.held_out.error)
    assert outcome.verdict == outcome.training


def test_halfway_is_the_verdict_after_half_of_the_steps() -> None:
    batches = data(20)
    probe = Probe(training=batches, held_out=(), problem=THREE)
    assert arm(setup_of(), batches, probe).halfway == arm(setup_of(), batches[:10], probe).training


def test_batch_norms_answer_otherwise_in_training_mode_and_keep_their_statistics() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(8, momentum=0.0), nn.Linear(8, 3))

    batches = [(x * 30 + 10_000, y) for x, y in data(30)]
    outcome = arm(
        setup_of(model=build), batches, Probe(training=batches, held_out=(), problem=THREE)
    )
    assert outcome.in_training is not None and outcome.model is not None
    assert outcome.in_training.error < 0.5 < outcome.training.error
    assert not outcome.model[0].running_mean.any()  # type: ignore[index, union-attr, operator]
    assert outcome.model[0].num_batches_tracked == 30  # type: ignore[index, union-attr]


def test_of_a_problem_of_no_known_kind_the_loss_is_told_relative_to_the_first() -> None:
    batches = data(30)
    probe = Probe(training=batches, held_out=(), problem=Problem(kind="unknown"))
    outcome = arm(setup_of(), batches, probe)
    tail = sorted(outcome.losses[-10:])
    assert outcome.verdict.error == pytest.approx(tail[5] / outcome.losses[0])
    assert (outcome.held_out, outcome.in_training) == (None, None)


def test_a_model_that_fails_on_held_out_examples_is_judged_by_the_others() -> None:
    batches = data(10)
    narrow = [(x[:, :4], y) for x, y in data(2)]
    outcome = arm(setup_of(), batches, Probe(training=batches, held_out=narrow, problem=THREE))
    assert outcome.held_out is None and not outcome.ended


def test_asking_leaves_modes_and_statistics_as_they_were(left_as_found: Any) -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)).train()
    model[1].eval()
    probe = Probe(training=data(2), held_out=(), problem=THREE)
    unchanged = left_as_found(model)
    drawn = torch.get_rng_state()
    ask(model, probe.training, probe, EXECUTION, training=True)
    torch.set_rng_state(drawn)  # training mode draws what dropout drops: run_arm puts that back
    ask(model, probe.training, probe, EXECUTION)
    answers(model, probe.training, EXECUTION)
    unchanged()


def test_nothing_is_asked_without_examples() -> None:
    model = nn.Linear(8, 3)
    assert ask(model, (), NOTHING, EXECUTION) is None
    assert answers(model, (), EXECUTION) is None


def test_answers_are_those_of_evaluation_mode_one_batch_behind_the_other() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(8, 3)).train()
    batches = data(3)
    found = answers(model, batches, EXECUTION)
    assert found is not None
    torch.testing.assert_close(found[0], model[1](torch.cat([x for x, _ in batches])))
    assert torch.equal(found[1], torch.cat([y for _, y in batches]))


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError(), AttributeError("y")])
def test_a_model_that_fails_when_asked_has_no_answers(error: Exception) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    probe = Probe(training=data(1), held_out=(), problem=THREE)
    assert ask(Broken(), probe.training, probe, EXECUTION) is None
    assert answers(Broken(), probe.training, EXECUTION) is None


@pytest.mark.parametrize("axis", [1, 2])
def test_batches_of_different_lengths_in_time_are_judged_together(axis: int) -> None:
    problem = Problem(kind="classes", classes=3, axis=axis)
    lengths = (5, 9)
    rows = [torch.randn(4, time, 3) for time in lengths]
    targets = [torch.randint(0, 3, (4, time)) for time in lengths]
    outputs = rows if axis == 2 else [r.movedim(2, 1) for r in rows]
    flat = torch.cat([r.reshape(-1, 3) for r in rows])
    expected = judge(flat, torch.cat([t.reshape(-1) for t in targets]), THREE)
    assert judge_all(outputs, targets, problem) == expected


# -------------------------------------------------------------------------------- how it may end


def test_a_loss_that_is_not_finite_ends_it_and_is_infinitely_wrong() -> None:
    batches = data(6)
    batches[3][0][0, 0] = math.nan
    outcome = arm(setup_of(), batches, Probe(training=batches[:2], held_out=(), problem=THREE))
    assert (outcome.steps, outcome.crashed) == (3, False)
    assert outcome.ended.startswith("loss nan at step 4 (epoch 1): the input itself")
    assert outcome.training == Verdict(error=math.inf, surprise=math.inf)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("out of luck\nand more of it"), "RuntimeError: out of luck"),
        (KeyError("weights"), "KeyError: 'weights'"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (AssertionError(), "AssertionError"),
        (OSError(28, "No space left"), "OSError: [Errno 28] No space left"),
        (RuntimeError("x" * 5000), "RuntimeError: " + "x" * 200),
    ],
)
def test_an_error_in_the_middle_ends_it_and_is_said(error: Exception, said: str) -> None:
    calls = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise error
        return functional.cross_entropy(outputs, targets)

    batches = data(8)
    outcome = arm(setup_of(loss=loss), batches, Probe(training=batches, held_out=(), problem=THREE))
    assert (outcome.steps, outcome.ended, outcome.crashed) == (3, said, True)
    assert outcome.training.error > 0  # what was learned so far is judged all the same
    assert outcome.arm.ended == said


@pytest.mark.parametrize(
    "broken",
    [
        {"model": lambda: nn.Linear(2, 2)(torch.zeros(3))},
        {"optimizer": lambda model: torch.optim.SGD([], lr=0.1)},
        {"schedule": lambda optimizer: {}["missing"]},
    ],
)
def test_a_setup_that_cannot_be_made_ends_before_its_first_step(broken: Any) -> None:
    outcome = arm(setup_of(**broken), data(), Probe(training=data(1), held_out=(), problem=THREE))
    assert (outcome.steps, outcome.model, outcome.crashed) == (0, None, True)
    assert outcome.verdict.error == math.inf
    assert "Error: " in outcome.ended


def test_a_remedy_that_cannot_be_applied_ends_it_too() -> None:
    def fail(setup: Setup) -> Setup:
        raise AttributeError("no layer of that name")

    outcome = arm(setup_of(), data(), remedies=[Remedy(title="", apply=fail)])
    assert outcome.ended == "AttributeError: no layer of that name"


def test_an_error_of_leadlines_own_says_what_came() -> None:
    outcome = arm(setup_of(), data(), remedies=[Remedy(title="zero the gradients")])
    assert outcome.ended == (
        "TrainingError: 'zero the gradients', which changes the loop around it"
    )


def test_an_interrupt_is_no_error_of_the_arm() -> None:
    def interrupted(outputs: Tensor, targets: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        arm(setup_of(loss=interrupted), data())


def test_it_stops_when_its_time_is_over() -> None:
    def slow(outputs: Tensor, targets: Tensor) -> Tensor:
        time.sleep(0.02)
        return functional.cross_entropy(outputs, targets)

    outcome = arm(setup_of(loss=slow), data(50), seconds=0.1)
    assert 1 <= outcome.steps <= 6
    assert outcome.seconds < 1 and outcome.ended == ""
