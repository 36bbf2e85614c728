"""The verb check: on a file, on a recipe, for a person, for a program, for CI."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FILE = """
import torch
from torch import nn

torch.manual_seed(0)
BATCH = torch.randn(32, 20), torch.arange(32) % 5


def network():
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))


def healthy():
    return network(), BATCH, nn.CrossEntropyLoss()


def double():
    return nn.Sequential(network(), nn.Softmax(dim=1)), BATCH, nn.CrossEntropyLoss()


def dropping():
    return nn.Sequential(nn.Dropout(0.9), network()), BATCH, nn.CrossEntropyLoss()


def stray():
    model = network()
    return model, BATCH, nn.CrossEntropyLoss(), torch.optim.SGD(network().parameters(), lr=0.1)


def wide():
    return network(), (torch.randn(32, 7), BATCH[1]), nn.CrossEntropyLoss()
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A user's file with some functions."""
    path = tmp_path / "somebodys.py"
    path.write_text(FILE)
    yield path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")) == str(path):
            del sys.modules[name]


def test_a_healthy_network_is_said_to_be_and_the_code_is_0(leadline: Any, file: Path) -> None:
    said = leadline("check", f"{file}:healthy", "--strict")
    assert said.code == 0 and said.err == ""
    lines = said.out.splitlines()
    assert lines[0].startswith("Sequential: nothing wrong was found (")
    assert lines[2].startswith("loss at the start 1.")
    assert "(a network that knows nothing: 1.609)" in lines[2]
    assert [line.split()[2] for line in lines if line.strip()[:1].isdigit()] == [
        "Linear",
        "ReLU",
        "Linear",
    ]


def test_a_finding_is_told_with_its_evidence_and_remedy(leadline: Any, file: Path) -> None:
    said = leadline("check", f"{file}:double")
    assert said.code == 0, "findings are what was asked for"
    assert "Sequential: 1 error (" in said.out
    assert "ERROR   double_softmax: the outputs are probabilities already" in said.out
    assert "        do this  return the logits" in said.out


def test_in_ci_an_error_fails_and_a_warning_does_not(leadline: Any, file: Path) -> None:
    assert leadline("check", f"{file}:double", "--strict").code == 1
    warned = leadline("check", f"{file}:dropping", "--strict")
    assert "1 warning" in warned.out
    assert warned.code == 0


def test_the_optimizer_of_the_function_is_looked_at(leadline: Any, file: Path) -> None:
    said = leadline("check", f"{file}:stray", "--json")
    assert [f["cause"] for f in said.last["findings"]] == ["optimizer_missing_params"]


def test_json_has_exactly_these_keys(leadline: Any, file: Path) -> None:
    said = leadline("check", f"{file}:double", "--json")
    assert said.code == 0 and said.err == "" and len(said.out.splitlines()) == 1
    assert set(said.last) == {
        "subject", "model", "healthy", "findings", "loss", "expected_loss", "seconds", "profile"
    }  # fmt: skip
    assert said.last["subject"] == f"{file}:double"
    (finding,) = said.last["findings"]
    assert set(finding) == {
        "cause", "family", "severity", "summary", "layers", "evidence", "remedy", "source",
        "proven", "trial", "change",
    }  # fmt: skip
    assert (finding["cause"], finding["severity"]) == ("double_softmax", "error")
    assert set(finding["evidence"][0]) == {"quantity", "measured", "expected"}
    json.dumps(said.last, allow_nan=False)
    assert leadline("check", f"{file}:double", "--json", "--strict").code == 1


def test_what_cannot_be_measured_is_said_in_one_message(leadline: Any, file: Path) -> None:
    said = leadline("check", f"{file}:wide")
    assert said.code == 1
    assert "Linear '0', given" in said.err
    assert "Traceback" not in said.err


def test_a_file_without_its_function_and_one_that_is_gone(leadline: Any, file: Path) -> None:
    said = leadline("check", file)
    assert said.code in (1, 2)
    assert "expected FILE.py:function" in said.err
    gone = leadline("check", "gone.py:build")
    assert gone.code in (1, 2)
    assert "which does not exist" in gone.err


def test_no_subject_was_asked_wrongly(leadline: Any) -> None:
    assert leadline("check").code == 2


def test_a_recipe_is_checked_as_its_training_would_begin(leadline: Any) -> None:
    said = leadline("check", "digits", "--json", "--device", "cpu", "--strict")
    assert said.code == 0
    assert said.last["subject"] == "digits"
    assert said.last["findings"] == []
    assert said.last["profile"]["layers"]


def test_a_finished_run_is_checked_by_its_recipe(leadline: Any, trained: Path) -> None:
    said = leadline("check", trained, "--json", "--device", "cpu")
    assert said.code == 0
    assert [f for f in said.last["findings"] if f["severity"] == "error"] == []


def test_a_word_that_is_no_recipe_gets_a_suggestion(leadline: Any) -> None:
    said = leadline("check", "digist")
    assert said.code != 0
    assert "digits" in said.err
