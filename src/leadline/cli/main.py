"""The command line: finds the verb, runs it, and turns what happened into words and an exit code.

Exit codes: 0 only when what was asked was done; 1 when it failed; 2 when it was asked wrongly;
130 and 143 after SIGINT and SIGTERM. Nothing heavy is imported before a verb is known, so that
`leadline --help` answers at once.
"""

from __future__ import annotations

import importlib
import json
import keyword
import os
import sys
from collections.abc import Sequence

from leadline import __version__
from leadline.core.errors import ConfigError, LeadlineError
from leadline.core.names import did_you_mean

VERBS = {
    "train": "train a network on a recipe's data or on yours",
    "check": "say what is wrong with a network before it trains",
    "diagnose": "say why a training does not do better, prove it, and mend it",
    "import": "take over weights of torchvision, timm or Hugging Face",
    "predict": "ask a trained network about images",
    "report": "write a run's report and model card anew",
    "bench": "say what each family buys for a budget: depth against width",
    "list": "name the recipes, models and data sets there are, or show one model",
    "env": "say what this machine and installation are",
}
"""Every verb with its caption; its code is `leadline.cli.<verb>`."""

HELP = f"""\
leadline {__version__}: builds, checks, trains, diagnoses and explains deep networks

usage: leadline VERB ...

{chr(10).join(f"  {verb:<10}{caption}" for verb, caption in VERBS.items())}

first minute:
  leadline train digits            train on scikit-learn's digits; leaves runs/digits-001
  leadline train path/to/images    a folder with one sub-folder of images per class
  leadline check mine.py:setup     your own network: what is wrong before it trains
  leadline diagnose mine.py:train  your own loop: why it does not learn, proven by trials
  leadline VERB --help             the options of a verb; --json prints one JSON object at the end
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def _yield_idle_cores() -> None:
    """Let torch's threads sleep, not spin, while they wait for each other.

    OpenMP reads this when torch is imported. On a machine that other processes use too, a thread
    that spins keeps the one it waits for off its core; see the log of 2026-11-21 for the figures.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"leadline {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    as_json = "--json" in rest
    _yield_idle_cores()
    try:
        if verb not in VERBS:
            raise ConfigError(
                expected=f"one of the verbs {', '.join(VERBS)}",
                received=f"{verb!r}{did_you_mean(verb, VERBS)}",
                remedy="see leadline --help",
            )
        module = importlib.import_module(module_of(verb))
        code: int = module.run([word for word in rest if word != "--json"], as_json=as_json)
        sys.stdout.flush()
    except LeadlineError as error:
        print(f"error: {type(error).__name__}\n{error}", file=sys.stderr)
        return _failed(error, code=2 if isinstance(error, ConfigError) else 1, as_json=as_json)
    except SystemExit as stop:  # the options: help was asked for, or stderr says what is wrong
        if stop.code in (0, None):
            return 0
        return _failed(_wrong_options(verb, rest), code=2, as_json=as_json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _failed(_interrupted(), code=130, as_json=as_json)
    except BrokenPipeError:  # whoever read the output went away; nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def module_of(verb: str) -> str:
    """The name of the module of a verb; one cannot be called import.

    >>> module_of("train"), module_of("import")
    ('leadline.cli.train', 'leadline.cli.import_')
    """
    return f"leadline.cli.{verb}{'_' if keyword.iskeyword(verb) else ''}"


def _failed(error: LeadlineError, *, code: int, as_json: bool) -> int:
    """The exit code, after the one object that `--json` promises."""
    if as_json:
        print(json.dumps(error.to_plain()))
    return code


def _wrong_options(verb: str, words: list[str]) -> ConfigError:
    return ConfigError(
        expected=f"the options of leadline {verb}",
        received=" ".join(words),
        remedy=f"see stderr, and leadline {verb} --help",
    )


def _interrupted() -> LeadlineError:
    return LeadlineError(
        expected="to be let finish", received="an interrupt", remedy="start it again"
    )
