"""Tests of the training's curves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from leadline.report.curves import Curve, curves_section, smooth, thin


def history(epochs: int = 3, per_epoch: int = 10, **more: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, epochs * per_epoch + 1):
        epoch = (step - 1) // per_epoch + 1
        loss = 2 / step + 0.1 * math.sin(step)
        row = {"event": "step", "step": step, "epoch": epoch, "loss": loss, "lr": 0.1 / step}
        rows.append({**row, "examples": 8, **more})
        if step % per_epoch == 0:
            metrics = {"loss": 1 / epoch, "accuracy": 1 - 0.5 / epoch}
            rows.append({"event": "validation", "step": step, "epoch": epoch, "metrics": metrics})
    return rows


@pytest.mark.parametrize("window", [1, 3, 9])
def test_smoothing_is_the_mean_of_the_neighbours(window: int) -> None:
    values = np.random.default_rng(0).normal(size=40)
    half = window // 2
    oracle = [values[max(0, i - half) : i + half + 1].mean() for i in range(40)]
    assert smooth(values.tolist(), window=window) == pytest.approx(oracle)


def test_smoothing_a_straight_line_leaves_its_middle_as_it_is() -> None:
    line = [float(i) for i in range(20)]
    assert smooth(line, window=5)[2:-2] == pytest.approx(line[2:-2])


def test_thinning_keeps_the_extremes_and_the_order() -> None:
    ys = np.random.default_rng(1).normal(size=10_000)
    thinned = thin(Curve(xs=tuple(range(10_000)), ys=tuple(ys)), points=100)
    assert len(thinned.xs) <= 100
    assert (min(thinned.ys), max(thinned.ys)) == (ys.min(), ys.max())
    assert list(thinned.xs) == sorted(set(thinned.xs))


def test_a_short_curve_is_not_thinned() -> None:
    curve = Curve(xs=(1, 2), ys=(3, 4))
    assert thin(curve) is curve


def test_a_training_is_drawn_with_loss_accuracy_and_learning_rate() -> None:
    drawn = curves_section(history())
    assert drawn.count("<svg xmlns") == 3
    assert "3 epochs of 10 steps each" in drawn
    assert "best 83.3&nbsp;% after epoch 3, 83.3&nbsp;% at the end" in drawn


def test_a_bad_start_does_not_squeeze_the_rest_of_the_accuracy_to_a_line() -> None:
    rows = history(epochs=20)
    shares = [0.1] + [0.9 + 0.005 * i for i in range(19)]
    for row, share in zip((r for r in rows if r["event"] == "validation"), shares, strict=True):
        row["metrics"]["accuracy"] = share
    drawn = curves_section(rows)
    assert "The beginning, from 10.0&nbsp;%, lies below the picture." in drawn
    assert ">96 %</text>" in drawn
    assert ">20 %</text>" not in drawn


def test_the_gradient_norm_is_drawn_where_it_was_measured() -> None:
    assert curves_section(history(grad_norm=0.5)).count("<svg xmlns") == 4


def test_a_run_without_validation_has_no_accuracy_over_time() -> None:
    rows = [row for row in history() if row["event"] == "step"]
    drawn = curves_section(rows)
    assert drawn.count("<svg xmlns") == 2
    assert ">validation</text>" not in drawn


def test_a_journal_without_steps_is_said_to_have_none() -> None:
    assert "has no steps" in curves_section([{"event": "start", "step": 0}])


def test_a_single_step_can_be_drawn() -> None:
    assert "nan" not in curves_section(history(epochs=1, per_epoch=1))


def test_many_steps_do_not_make_a_large_drawing() -> None:
    assert len(curves_section(history(epochs=2, per_epoch=20_000))) < 100_000
