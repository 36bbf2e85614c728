"""Tests of what is seen in a training's numbers, and of what is left alone."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from leadline.doctor.symptoms import Vitals, symptoms


def vitals(losses: list[float], **more: Any) -> Vitals:
    norms = more.pop("norms", [1.0] * len(losses))
    return Vitals(losses=losses, norms=norms, **more)


def kinds(found: Vitals) -> list[str]:
    return [symptom.kind for symptom in symptoms(found)]


def falling(steps: int, *, noise: float = 0.3) -> list[float]:
    draw = random.Random(0)
    return [
        2.3 * math.exp(-step / 100) * (1 + noise * draw.uniform(-1, 1)) for step in range(steps)
    ]


def validations(accuracies: list[float], losses: list[float]) -> list[tuple[int, dict[str, float]]]:
    pairs = zip(accuracies, losses, strict=True)
    return [(50 * (n + 1), {"accuracy": a, "loss": b}) for n, (a, b) in enumerate(pairs)]


def test_a_noisy_loss_that_falls_has_no_symptom() -> None:
    assert kinds(vitals(falling(600))) == []


def test_a_warm_up_that_lifts_the_loss_for_a_while_has_none() -> None:
    assert kinds(vitals([2.3 + 0.05 * step for step in range(20)] + falling(300))) == []


def test_a_loss_that_stays_low_and_jitters_has_none() -> None:
    draw = random.Random(1)
    low = [0.01 * (1 + draw.uniform(-0.9, 0.9)) for _ in range(2000)]
    assert kinds(vitals(falling(400) + low)) == []


def test_nothing_is_said_of_the_first_steps() -> None:
    assert kinds(vitals([2.0] + [90.0] * 30)) == []
    assert symptoms(Vitals()) == ()


def test_a_loss_that_is_not_finite_is_seen_where_it_begins() -> None:
    (symptom,) = symptoms(vitals([2.0] * 30 + [math.nan] * 3))
    assert (symptom.kind, symptom.step, symptom.since) == ("not_finite", 31, 11)
    json.dumps(symptom.to_plain(), allow_nan=False)


def test_a_loss_far_above_its_start_is_seen_and_when_all_was_well() -> None:
    at_once = symptoms(vitals([2.0, 3.0, 9.0] + [50.0] * 60))[0]
    assert (at_once.kind, at_once.since) == ("far_above_start", 0)
    later = symptoms(vitals(falling(200) + [50.0] * 60))[0]
    assert later.kind == "far_above_start"
    assert later.since == 200, "the last block of twenty steps before it jumped"


def test_a_loss_that_creeps_up_again_is_seen() -> None:
    up = [0.35 + 0.01 * step for step in range(150)]
    (symptom,) = symptoms(vitals(falling(200) + up))
    assert symptom.kind == "rising"
    assert 180 <= symptom.since <= 220
    assert "times its lowest level" in symptom.summary


def test_a_flat_loss_is_seen_after_a_good_part_of_the_training_only() -> None:
    draw = random.Random(2)
    flat = [2.3 + 0.02 * draw.uniform(-1, 1) for _ in range(400)]
    assert kinds(vitals(flat[:199])) == []
    assert kinds(vitals(flat[:220])) == ["flat"]
    assert kinds(vitals(flat[:220], total=10_000)) == [], "a long training may begin slowly"


def test_a_loss_that_falls_to_that_of_knowing_nothing_and_no_further_is_flat() -> None:
    settles = [2.3 + 0.3 * math.exp(-step / 5) for step in range(300)]
    assert kinds(vitals(settles)) == ["flat"]
    converged = [0.6 + 1.7 * math.exp(-step / 20) for step in range(600)]
    assert kinds(vitals(converged)) == [], "it has learned something, and may be done"
    slow = [2.3 - 0.001 * step for step in range(300)]
    assert kinds(vitals(slow)) == [], "it is on its way"


def test_a_gradient_that_is_gone_is_seen_unless_all_is_learned() -> None:
    gone = [1.0] * 20 + [1e-9] * 100
    assert kinds(vitals([2.3] * 120, norms=gone)) == ["gradient_vanished"]
    assert kinds(vitals([2.0] * 60 + [0.001] * 60, norms=gone)) == []


def test_a_gradient_that_explodes_is_seen() -> None:
    norms = [1.0] * 30 + [1e6] * 30
    assert kinds(vitals(falling(60), norms=norms)) == ["gradient_exploded"]


def test_dead_layers_are_named_when_two_samples_agree() -> None:
    def row(step: int, *dead: float | None) -> dict[str, Any]:
        return {"event": "watch", "step": step, "layers": ["a", "b"], "values": {"dead": [*dead]}}

    losses = falling(100)
    assert kinds(vitals(losses, watched=[row(32, 1.0, 0.1), row(64, 0.2, 0.1)])) == []
    assert kinds(vitals(losses, watched=[row(4, 1.0, 0.1), row(64, 1.0, 0.1)])) == []
    (symptom,) = symptoms(vitals(losses, watched=[row(32, 1.0, None), row(64, 0.95, None)]))
    assert (symptom.kind, symptom.step) == ("dead_layers", 64)
    assert symptom.summary.startswith("a: nearly all units")


def test_a_validation_that_gets_worse_while_the_training_improves_is_seen() -> None:
    worse = validations([0.5, 0.7, 0.8, 0.75, 0.7, 0.7], [1.2, 0.8, 0.6, 0.9, 1.2, 1.5])
    (symptom,) = symptoms(vitals(falling(300), validations=worse))
    assert (symptom.kind, symptom.since) == ("overfitting", 150)
    assert [entry.quantity for entry in symptom.evidence] == [
        "validation accuracy",
        "validation loss",
    ]


@pytest.mark.parametrize(
    ("accuracies", "losses"),
    [
        ([0.5, 0.7, 0.8, 0.79, 0.8, 0.79], [1.2, 0.8, 0.6, 0.9, 1.2, 1.5]),  # only less sure
        ([0.5, 0.7, 0.8, 0.75, 0.7, 0.7], [1.2, 0.8, 0.6, 0.6, 0.6, 0.6]),  # only the figure
        ([0.5, 0.7, 0.8, 0.7, 0.7, 0.8], [1.2, 0.8, 0.6, 0.9, 1.2, 0.7]),  # it recovered
    ],
)
def test_a_validation_that_wavers_is_left_alone(
    accuracies: list[float], losses: list[float]
) -> None:
    found = vitals(falling(300), validations=validations(accuracies, losses))
    assert kinds(found) == []


def test_a_resumed_training_is_not_measured_by_a_start_it_has_not_seen() -> None:
    assert kinds(vitals([0.1] * 5 + [0.5] * 60, first=1001)) == []


def test_the_numbers_can_be_read_from_a_journal() -> None:
    rows = [
        {"event": "start", "step": 0},
        {"event": "step", "step": 1, "loss": 2.0, "grad_norm": 1.0},
        {"event": "watch", "step": 1, "layers": [], "values": {"dead": []}},
        {"event": "validation", "step": 1, "metrics": {"accuracy": 0.5}},
        {"event": "step", "step": 2, "loss": 1.0, "grad_norm": 0.5},
    ]
    found = Vitals.of_journal(rows, total=10)
    assert (found.losses, found.norms, found.step, found.total) == ([2.0, 1.0], [1.0, 0.5], 2, 10)
    assert found.validations == [(1, {"accuracy": 0.5})]
    assert len(found.watched) == 1
