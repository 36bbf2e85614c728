"""What every test stands on: shapes checked at run time, oracles importable, no network, no seed.

The oracles (torchvision, timm) are installed beside the virtual environment's own packages, in
`oracles/`, so that no process but the tests' own can import them. torchvision's wheel may be built
for another torch than the one that is here; its Python half works once the operators that its
binary half would bring are declared.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from beartype import BeartypeConf, beartype
from beartype._check.code import codemain
from jaxtyping import install_import_hook

# Every `Float[Tensor, "B C H W"]` on a function of the library is checked while the tests run.
# The hook has to stand before the first import of leadline, and it finds its checker by name: this
# one takes a whole number for a float, as PEP 484 and mypy do. Of a list, beartype checks one entry
# drawn by chance; it is given a generator of its own, so that it draws nothing from the stream
# whose exact course the tests of resuming compare.
codemain.getrandbits = random.Random(0).getrandbits
_CHECKER = types.ModuleType("leadline_test_checker")
_CHECKER.__dict__["checked"] = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules[_CHECKER.__name__] = _CHECKER
install_import_hook("leadline", "leadline_test_checker.checked")

TORCHVISION_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _declare_torchvision_operators() -> torch.library.Library | None:
    """Declare torchvision's operators where its binary half does not load; None where it does."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return None
    for binary in Path(spec.submodule_search_locations[0]).glob("_C*.*"):
        try:
            torch.ops.load_library(str(binary))
        except OSError:
            continue
        return None
    library = torch.library.Library("torchvision", "DEF")
    for operator in TORCHVISION_OPERATORS:
        library.define(operator)
    return library


sys.path.append(str(Path(sys.prefix) / "oracles"))
_OPERATORS = _declare_torchvision_operators()  # kept alive: they go when the object goes


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a model hub, whatever the machine's environment says."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _modes_restored() -> Iterator[None]:
    """A test that changes torch's process-wide switches hands them back."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    gradients = torch.is_grad_enabled()
    folder = Path.cwd()
    yield
    torch.set_grad_enabled(gradients)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    os.chdir(folder)
