"""Tests of a remedy: what it changes, what it says, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from leadline.core.errors import TrainingError
from leadline.doctor.remedy import Remedy
from leadline.training.setup import Setup


@pytest.fixture
def setup() -> Setup:
    return Setup(
        model=lambda: nn.Linear(2, 1),
        batches=[(torch.ones(4, 2), torch.ones(4, 1))],
        loss=nn.MSELoss(),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )


def test_it_gives_another_setup_and_leaves_the_one_given(setup: Setup) -> None:
    remedy = Remedy(title="train longer", apply=lambda s: replace(s, epochs=7))
    assert remedy(setup).epochs == 7
    assert setup.epochs == 1
    assert remedy(setup).batches is setup.batches


def test_a_remedy_of_the_loop_says_that_no_setup_shows_it(setup: Setup) -> None:
    with pytest.raises(TrainingError) as caught:
        Remedy(title="zero the gradients")(setup)
    assert caught.value.expected == "a remedy that changes a Setup"
    assert caught.value.received == "'zero the gradients', which changes the loop around it"
    assert "diagnosis.treat(function)" in caught.value.remedy


def test_its_lines_are_a_diff() -> None:
    assert Remedy(title="", lines=("- a", "+ b", "+ c")).diff == "- a\n+ b\n+ c"
    assert Remedy(title="").diff == ""


def test_it_is_plain_values_for_json() -> None:
    remedy = Remedy(title="lower", lines=("- lr=1", "+ lr=0.1"), settings={"optimizer.lr": 0.1})
    assert json.loads(json.dumps(remedy.to_plain())) == {
        "title": "lower",
        "lines": ["- lr=1", "+ lr=0.1"],
        "settings": {"optimizer.lr": 0.1},
    }
