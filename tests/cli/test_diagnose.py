"""The verb diagnose: on parts, a loop, a recipe and a run; for a person, for a program, for CI."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FILE = """
import torch
from torch import nn
from sklearn.datasets import load_digits

digits = load_digits()
X, Y = torch.tensor(digits.data).float()[:256] / 16, torch.tensor(digits.target)[:256]


def network(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), *more)


def healthy():
    return network(), (X, Y), nn.CrossEntropyLoss()


def double():
    return network(nn.Softmax(dim=1)), (X, Y), nn.CrossEntropyLoss()


def train():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    print("training")
    for _ in range(10):
        for rows in torch.arange(256).split(32):
            nn.functional.cross_entropy(model(X[rows]), Y[rows]).backward()
            optimizer.step()


def broken():
    raise ValueError("no such file: data.csv")
"""

KEYS = {
    "subject", "model", "problem", "measured", "healthy", "findings", "ruled_out", "baseline",
    "limits", "cost", "history", "html", "treatment",
}  # fmt: skip
FINDING = {
    "cause", "family", "severity", "summary", "layers", "evidence", "remedy", "source", "proven",
    "trial", "change",
}  # fmt: skip
QUICK = ("--steps", "300", "--seconds", "600")  # steps bind: a busy machine changes nothing


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A user's file with some functions."""
    path = tmp_path / "a_users.py"
    path.write_text(FILE)
    yield path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")) == str(path):
            del sys.modules[name]


def test_a_person_reads_the_verdict_first_and_the_cost_last(leadline: Any, file: Path) -> None:
    said = leadline("diagnose", f"{file}:double", *QUICK)
    assert said.code == 0 and said.err == "", "findings are what was asked for"
    lines = said.out.splitlines()
    assert lines[0].startswith("Sequential: 1 error, proven (")
    assert any(line.startswith("ERROR   double_softmax, proven: ") for line in lines)
    assert lines[-1].startswith("cost: ") and lines[-1].endswith(
        "the allowance was 600 s and 300 steps"
    )
    assert max(map(len, lines)) <= 100


def test_a_narrow_terminal_gets_narrow_lines(
    leadline: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    said = leadline("diagnose", f"{file}:double", *QUICK)
    assert max(map(len, said.out.splitlines())) <= 70


def test_json_has_exactly_these_keys(leadline: Any, file: Path) -> None:
    said = leadline("diagnose", f"{file}:double", "--json", *QUICK)
    assert said.code == 0 and said.err == "" and len(said.out.splitlines()) == 1
    assert set(said.last) == KEYS
    (finding,) = said.last["findings"]
    assert set(finding) == FINDING
    assert set(finding["trial"]) == {
        "remedy", "steps", "without", "treated", "measured", "helps", "gain"
    }  # fmt: skip
    assert set(finding["change"]) == {"title", "lines", "settings"}
    assert set(said.last["cost"]) == {"steps", "seconds", "allowance", "share"}
    assert finding["proven"] and finding["trial"]["helps"]
    assert said.last["html"] == [] and said.last["history"] == []
    json.dumps(said.last, allow_nan=False)


def test_a_loop_is_run_once_recorded_and_what_it_prints_is_kept_apart(
    leadline: Any, file: Path
) -> None:
    said = leadline("diagnose", f"{file}:train", "--json", *QUICK)
    assert said.code == 0
    assert said.out.splitlines()[0] == "training" and said.out.count("training\n") == 1
    assert said.last["findings"][0]["cause"] == "zero_grad_missing"


def test_a_loop_is_run_again_where_that_is_allowed(leadline: Any, file: Path) -> None:
    said = leadline("diagnose", f"{file}:train", "--rerun", "--json", *QUICK)
    assert said.out.count("training\n") > 1
    assert "run again" in said.last["findings"][0]["trial"]["remedy"]


def test_in_ci_an_error_fails_and_health_does_not(leadline: Any, file: Path) -> None:
    assert leadline("diagnose", f"{file}:double", "--strict", *QUICK).code == 1
    healthy = leadline("diagnose", f"{file}:healthy", "--strict", *QUICK)
    assert healthy.code == 0
    assert healthy.out.startswith("Sequential: nothing wrong was found (")


def test_the_page_is_written_where_it_is_asked_for(leadline: Any, file: Path) -> None:
    said = leadline("diagnose", f"{file}:double", "--html", "page.html", *QUICK)
    assert said.out.endswith("page      page.html\n")
    assert "double_softmax" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("words", "said_so"),
    [
        ((), "subject"),
        (("digist",), "did you mean 'digits'"),
        (("gone.py:train",), "which does not exist"),
        (("a_users.py",), "expected FILE.py:function"),
        (("a_users.py:broken",), "ValueError: no such file: data.csv"),
        (("a_users.py:trian",), "did you mean 'train'"),
        (("a_users.py:train", "--steps", "0"), "steps must be >= 1"),
        (("a_users.py:train", "--seconds", "0"), "seconds must be > 0"),
    ],
)
def test_what_was_asked_wrongly_exits_with_2_and_says_what(
    leadline: Any, file: Path, words: tuple[str, ...], said_so: str
) -> None:
    said = leadline("diagnose", *words)
    assert said.code == 2
    assert said_so in " ".join(said.err.lower().split()) or said_so in said.err
    assert "Traceback" not in said.err


def test_a_treated_setup_is_trained_beside_the_one_that_was_given(
    leadline: Any, file: Path
) -> None:
    said = leadline("diagnose", f"{file}:double", "--treat", "--json", *QUICK)
    assert said.code == 0
    treatment = said.last["treatment"]
    assert treatment["applied"] == ["double_softmax"]
    before, after = (treatment[side]["metrics"]["error"] for side in ("before", "after"))
    assert after < 0.5 * before
    assert "after 200 steps" in treatment["measured"]


def test_health_leaves_nothing_to_treat_and_a_recorded_loop_is_for_its_author(
    leadline: Any, file: Path
) -> None:
    healthy = leadline("diagnose", f"{file}:healthy", "--treat", *QUICK)
    assert healthy.code == 0 and "there is nothing to treat" in healthy.out
    loop = leadline("diagnose", f"{file}:train", "--treat", *QUICK)
    assert loop.code == 1
    assert "zero_grad_missing, proven" in loop.out, "the diagnosis is said all the same"
    assert "a recorded loop" in loop.err
    plain = leadline("diagnose", f"{file}:train", "--treat", "--json", *QUICK)
    assert plain.code == 1
    assert plain.last["findings"][0]["cause"] == "zero_grad_missing"
    assert plain.last["treatment"]["error"] == "LeadlineError"
    assert "diagnosis.treat(function)" in plain.last["treatment"]["remedy"]


def test_a_finished_run_gets_its_diagnosis_written_into_its_folder(
    leadline: Any, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    said = leadline("diagnose", folder, "--device", "cpu", "--json", *QUICK)
    assert said.code == 0
    assert said.last["history"][0].startswith("21 of 21 steps were trained; the loss went from")
    assert said.last["html"] == [str(folder / "diagnosis.html")]
    kept = json.loads((folder / "diagnosis.json").read_text())
    assert kept["findings"] == said.last["findings"] and kept["history"] == said.last["history"]
    assert leadline("report", folder).code == 0
    report = (folder / "report.html").read_text()
    assert 'id="diagnosis"' in report and 'href="#diagnosis"' in report
