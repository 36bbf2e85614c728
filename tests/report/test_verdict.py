"""Tests of the verdict and the key figures."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.report.verdict import Facts, gather, key_figures, verdict
from leadline.tasks.classification import Classification
from leadline.training.recipe import Recipe

FACTS = Facts(
    right=9900,
    total=10000,
    seconds=100.0,
    model="resnet20",
    parameters=272474,
    steps=500,
    epochs=5,
    examples_seen=64000,
)


def test_the_verdict_is_one_plain_sentence() -> None:
    assert verdict(FACTS) == (
        "Of 10,000 test images that it was not trained on, the network names 9,900 correctly "
        "(99.0 %); it is a resnet20 with 272,474 parameters, trained in 1 min 40 s."
    )


def test_an_unfinished_clock_is_left_out() -> None:
    assert verdict(replace(FACTS, seconds=None)).endswith("272,474 parameters.")


def test_an_mlp_has_its_article() -> None:
    assert "it is an mlp with" in verdict(replace(FACTS, model="mlp"))


def test_the_facts_come_from_the_journal_and_the_result() -> None:
    outputs, targets = torch.eye(3), torch.tensor([0, 1, 1])
    history = [
        {"event": "step", "step": 1, "epoch": 1, "examples": 4},
        {"event": "step", "step": 2, "epoch": 2, "examples": 3},
        {"event": "end", "step": 2, "seconds": 0.5, "metrics": {}},
    ]
    recipe = Recipe(data=DataOptions(data="digits"), model=Architecture(model="mlp"))
    result = Classification(3).evaluate(outputs, targets)
    facts = gather(recipe, history, result=result, parameters=7)
    assert facts == Facts(
        right=2,
        total=3,
        seconds=0.5,
        model="mlp",
        parameters=7,
        steps=2,
        epochs=2,
        examples_seen=7,
    )


@pytest.mark.parametrize("classes", [3, 8])
def test_there_are_always_eight_tiles(classes: int) -> None:
    result = Classification(classes).evaluate(torch.eye(classes), torch.arange(classes))
    drawn = key_figures(FACTS, result)
    assert drawn.count("<strong>") == 8
    assert ("top-5 accuracy" in drawn) == (classes > 5)


def test_the_blind_guess_is_the_entropy_of_the_classes() -> None:
    targets = torch.tensor([0, 0, 0, 1])
    result = Classification(2).evaluate(torch.zeros(4, 2), targets)
    drawn = key_figures(replace(FACTS, right=3, total=4), result)
    assert "a blind guess has 0.562" in drawn  # -(3/4 ln 3/4 + 1/4 ln 1/4)
    assert re.search(r"without looking</h3><strong>75.0&nbsp;%", drawn)


def test_without_a_time_there_is_no_speed() -> None:
    result = Classification(3).evaluate(torch.eye(3), torch.arange(3))
    assert "speed" not in key_figures(replace(FACTS, seconds=None), result)
