"""Tests that importing the library does nothing, and costs next to nothing."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

SNAPSHOT = """
import json, logging, os, random, sys, threading, warnings
before = {"random": hash(random.getstate()), "environment": dict(os.environ)}
filters = list(warnings.filters)
import leadline
print(json.dumps({
    "heavy": sorted({"torch", "numpy", "sklearn", "rich", "tyro"} & set(sys.modules)),
    "random": hash(random.getstate()) == before["random"],
    "environment": dict(os.environ) == before["environment"],
    "warnings": warnings.filters == filters,
    "handlers": len(logging.root.handlers) + len(logging.getLogger("leadline").handlers),
    "threads": threading.active_count(),
}))
"""

# What the dependencies do when imported is theirs; they come first, then every file of ours.
SNAPSHOT_OF_EVERYTHING = """
import importlib, json, logging, os, random, sys, threading
import numpy, PIL.Image, rich, safetensors.torch, sklearn.metrics, torch, tyro

def state():
    return [
        hash(random.getstate()),
        hash(numpy.random.get_state()[1].tobytes()),
        hash(torch.get_rng_state().numpy().tobytes()),
        torch.get_num_threads(),
        str(torch.get_default_dtype()),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.cuda.is_initialized(),
        len(logging.root.handlers) + len(logging.getLogger("leadline").handlers),
        threading.active_count(),
        dict(os.environ),
    ]

before = state()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps([before, state()]))
"""


def python(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a fresh Python, in which a warning is an error of ours."""
    command = [sys.executable, "-W", "error:::leadline", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result


def seconds(*arguments: str, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    python(*arguments, environment=environment)
    return time.perf_counter() - start


def test_importing_the_library_does_nothing(environment: dict[str, str]) -> None:
    result = python("-W", "error", "-c", SNAPSHOT, environment=environment)
    assert json.loads(result.stdout) == {
        "heavy": [],
        "random": True,
        "environment": True,
        "warnings": True,
        "handlers": 0,
        "threads": 1,
    }
    assert result.stderr == ""


def test_importing_every_file_does_nothing_either(
    sources: Any, environment: dict[str, str]
) -> None:
    names = [
        "leadline." + source.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for source in sources
        if "__main__" not in source.name and source.name != "__init__.py"
    ]
    result = python("-c", SNAPSHOT_OF_EVERYTHING, json.dumps(names), environment=environment)
    before, after = json.loads(result.stdout.splitlines()[-1])
    assert after == before


def test_importing_the_library_costs_less_than_half_more_than_torch(
    environment: dict[str, str],
) -> None:
    pairs = [
        (
            seconds("-c", "import torch", environment=environment),
            seconds("-c", "import leadline", environment=environment),
        )
        for _ in range(3)
    ]
    assert statistics.median(ours / torch for torch, ours in pairs) < 1.5


def test_help_answers_within_a_second_and_without_torch(environment: dict[str, str]) -> None:
    arguments = ("-m", "leadline", "--help")
    imported = python("-X", "importtime", *arguments, environment=environment).stderr
    names = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    assert "leadline.cli.main" in names
    assert not {"torch", "numpy", "rich"} & names
    assert min(seconds(*arguments, environment=environment) for _ in range(3)) < 1.0
