"""leadline env: this machine and this installation, for a bug report or a benchmark."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from leadline import __version__
from leadline.cli.options import parse
from leadline.core.devices import describe_machine

PACKAGES = (
    "torch",
    "numpy",
    "safetensors",
    "tyro",
    "rich",
    "scikit-learn",
    "pillow",
    "jaxtyping",
)


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """leadline env takes no options of its own."""


def run(words: list[str], *, as_json: bool) -> int:
    """Print the environment; the exit code."""
    parse(EnvOptions, words, verb="env", caption=__doc__ or "")
    facts = {
        "leadline": __version__,
        "machine": dataclasses.asdict(describe_machine()),
        "packages": {name: _version(name) for name in PACKAGES},
    }
    if as_json:
        print(json.dumps(facts))
        return 0
    print(f"leadline {__version__}")
    for section in ("machine", "packages"):
        print(section)
        for name, value in facts[section].items():  # type: ignore[attr-defined]  # both are dicts
            print(f"  {name:<16}{f'{value / 2**30:.1f} GiB' if name == 'memory' else value}")
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
