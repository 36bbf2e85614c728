"""The command line as a whole: verbs, exit codes, what goes where when something is wrong."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leadline import __version__
from leadline.cli.main import VERBS, main
from leadline.core.errors import LeadlineError

ROOT = Path(__file__).parents[2]


def failing_verb(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `leadline list` raise."""

    def run(words: list[str], *, as_json: bool) -> int:
        raise error

    monkeypatch.setattr(importlib.import_module("leadline.cli.list"), "run", run)


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",)])
def test_help_names_every_verb_with_its_caption(leadline: Any, words: tuple[str, ...]) -> None:
    said = leadline(*words)
    assert said.code == 0 and said.err == ""
    for verb, caption in VERBS.items():
        assert f"  {verb:<10}{caption}\n" in said.out


def test_nothing_at_all_gets_the_help_but_was_not_what_anybody_asked_for(leadline: Any) -> None:
    said = leadline()
    assert said.code == 2
    assert "usage: leadline VERB" in said.out


def test_the_version_is_that_of_the_package(leadline: Any) -> None:
    assert leadline("--version").out == f"leadline {__version__}\n"


def test_an_unknown_verb_is_met_with_the_nearest_one(leadline: Any) -> None:
    said = leadline("trian", "digits")
    assert said.code == 2 and said.out == ""
    assert said.err == (
        "error: ConfigError\n"
        "expected one of the verbs train, check, diagnose, import, predict, report, bench, list, "
        "env\n"
        "received 'trian' (did you mean 'train'?)\n"
        "do this  see leadline --help\n"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_begins_with_its_usage_and_says_what_it_is_for(
    leadline: Any, verb: str
) -> None:
    said = leadline(verb, "--help")
    assert said.code == 0 and said.err == ""
    assert said.out.startswith(f"usage: leadline {verb} ")
    assert f"\nleadline {verb}" in said.out
    assert "--json" in said.out
    assert ">>>" not in said.out, "an example for programmers, in the help for users"
    assert max(map(len, said.out.splitlines())) <= 200


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_exits_with_2_and_is_named(leadline: Any, verb: str) -> None:
    words = {
        "train": ["digits"],
        "check": ["digits"],
        "diagnose": ["digits"],
        "predict": ["run", "image"],
        "report": ["run"],
    }.get(verb, [])
    said = leadline(verb, *words, "--no-such-option", "--json")
    assert said.code == 2
    assert "--no-such-option" in said.err
    assert said.last == {
        "error": "ConfigError",
        "expected": f"the options of leadline {verb}",
        "received": " ".join([*words, "--no-such-option", "--json"]),
        "remedy": f"see stderr, and leadline {verb} --help",
    }


def test_a_failure_exits_with_1_and_says_the_same_on_both_streams(
    leadline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_verb(monkeypatch, LeadlineError(expected="a", received="b", remedy="c"))
    said = leadline("list", "--json")
    assert said.code == 1
    assert said.err == "error: LeadlineError\nexpected a\nreceived b\ndo this  c\n"
    assert said.last == {
        "error": "LeadlineError",
        "expected": "a",
        "received": "b",
        "remedy": "c",
    }


def test_an_interrupt_exits_with_130(leadline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_verb(monkeypatch, KeyboardInterrupt())
    said = leadline("list", "--json")
    assert said.code == 130
    assert said.err == "interrupted\n"
    assert said.last["received"] == "an interrupt"


def test_main_exits_with_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["nothing-like-a-verb"])
    assert stop.value.code == 2
    assert "nothing-like-a-verb" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_reason_for_a_traceback() -> None:
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        process = subprocess.run(
            [sys.executable, "-m", "leadline", "list"],
            env=os.environ | {"PYTHONPATH": path},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert process.returncode == 1 and process.stderr == ""
