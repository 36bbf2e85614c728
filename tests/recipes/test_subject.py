"""Tests of what a word of the command line names: a recipe, a run, a function in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from leadline.core.config import to_json
from leadline.core.errors import ConfigError, DataError, LeadlineError
from leadline.doctor.check import check
from leadline.recipes.catalogue import RECIPES
from leadline.recipes.subject import read_subject

HEAD = "import torch\nfrom torch import nn\n"
HEALTHY = (
    HEAD
    + """
def build():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, (torch.randn(16, 4), torch.arange(16) % 3), nn.CrossEntropyLoss()

def with_optimizer():
    model, batch, loss = build()
    return model, batch, loss, torch.optim.SGD(model.parameters(), lr=0.1)

def own_loss():
    model, batch, _ = build()
    return model, batch, None

NUMBER = 3
"""
)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Write a user's file; what it puts among the modules is taken away again."""
    path = list(sys.path)

    def write(text: str, name: str = "mine.py") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    yield write
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    assert sys.path == path, "the user's folder does not stay on the path"


def test_a_function_in_a_file_gives_model_batch_and_loss(written: Callable[..., Path]) -> None:
    file = written(HEALTHY)
    subject = read_subject(f"{file}:build")
    assert subject.name == f"{file}:build"
    assert isinstance(subject.model, nn.Sequential)
    assert subject.batch[0].shape == (16, 4)
    assert isinstance(subject.loss, nn.CrossEntropyLoss)
    assert subject.optimizer is None and subject.setup is None


def test_an_optimizer_may_come_with_them_and_the_loss_may_be_the_models_own(
    written: Callable[..., Path],
) -> None:
    file = written(HEALTHY)
    subject = read_subject(f"{file}:with_optimizer")
    assert isinstance(subject.optimizer, torch.optim.SGD)
    assert read_subject(f"{file}:own_loss").loss is None


def test_a_function_may_give_a_setup(written: Callable[..., Path]) -> None:
    text = (
        HEALTHY
        + """
import leadline

def setup():
    model, batch, loss = build()
    return leadline.Setup(
        model=lambda: model,
        batches=[batch],
        loss=loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
"""
    )
    subject = read_subject(f"{written(text)}:setup")
    assert subject.setup is not None
    assert check(subject.setup).findings == ()


def test_a_file_may_import_its_neighbours_and_knows_that_it_is_not_main(
    written: Callable[..., Path],
) -> None:
    written("WIDTH = 4\n", "folder/neighbour_of_mine.py")
    text = "from neighbour_of_mine import WIDTH\n" + HEALTHY.replace("(4, 8)", "(WIDTH, 8)")
    text += "\nif __name__ == '__main__':\n    raise SystemExit('this is the training itself')\n"
    subject = read_subject(f"{written(text, 'folder/trains.py')}:build")
    assert subject.model is not None


def test_a_dataclass_in_the_file_finds_its_module(written: Callable[..., Path]) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n" + HEALTHY
    text += "\n@dataclass\nclass Options:\n    width: int = 4\n"
    assert read_subject(f"{written(text, 'with_dataclass.py')}:build").model is not None


def test_a_file_named_like_a_library_does_not_take_its_place(written: Callable[..., Path]) -> None:
    read_subject(f"{written(HEALTHY, 'json.py')}:build")
    assert sys.modules["json"] is json


def test_a_file_without_its_function_asks_for_it(written: Callable[..., Path]) -> None:
    file = written(HEALTHY)
    with pytest.raises(ConfigError, match=r"expected FILE\.py:function") as caught:
        read_subject(str(file))
    assert f"{file}:function" in caught.value.remedy


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which does not exist"):
        read_subject(f"{tmp_path}/gone.py:build")


def test_a_function_that_is_not_there_gets_a_suggestion(written: Callable[..., Path]) -> None:
    file = written(HEALTHY)
    with pytest.raises(ConfigError, match="did you mean 'build'"):
        read_subject(f"{file}:buld")
    with pytest.raises(ConfigError, match="function 'NUMBER'"):
        read_subject(f"{file}:NUMBER")


def test_a_function_that_fails_says_how(written: Callable[..., Path]) -> None:
    file = written(HEAD + "def build():\n    return nn.Linear('a', 2)\n")
    with pytest.raises(ConfigError, match=r"build\(\) to return .*\nreceived TypeError"):
        read_subject(f"{file}:build")


def test_a_file_that_fails_says_how(written: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="received ZeroDivisionError") as caught:
        read_subject(f"{written('1 / 0')}:build")
    assert "run it by itself" in caught.value.remedy
    with pytest.raises(ConfigError, match="received SyntaxError"):
        read_subject(f"{written('def :', 'broken.py')}:build")


def test_a_file_that_fails_leaves_no_half_a_module(written: Callable[..., Path]) -> None:
    file = written("1 / 0", "half_a_module.py")
    with pytest.raises(ConfigError):
        read_subject(f"{file}:build")
    assert "half_a_module" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "raise SystemExit(0)",
        "import sys\nsys.exit('done')",
        "def build():\n    raise SystemExit(2)",
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('data')\np.parse_args()",
    ],
)
def test_a_file_that_ends_the_program_is_told_so(written: Callable[..., Path], text: str) -> None:
    with pytest.raises(ConfigError, match=r"SystemExit\(") as caught:
        read_subject(f"{written(text)}:build")
    assert "__main__" in caught.value.remedy
    assert isinstance(caught.value.__cause__, SystemExit)


def test_a_file_that_reads_its_arguments_gets_its_defaults(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ["leadline", "check", "mine.py:build", "--json"]
    monkeypatch.setattr(sys, "argv", found)
    text = """
import argparse, sys

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=8)
width = parser.parse_args().width
SEEN = list(sys.argv)

def build():
    assert sys.argv == SEEN
    again = parser.parse_args().width
    return nn.Linear(width, again), (torch.ones(2, width), torch.ones(2, again)), nn.MSELoss()
"""
    file = written(HEAD + text)
    model = read_subject(f"{file}:build").model
    assert isinstance(model, nn.Linear) and model.weight.shape == (8, 8)
    assert sys.argv is found
    seen = sys.modules["mine"].SEEN
    assert seen == [str(file)]


@pytest.mark.parametrize(
    ("value", "received"),
    [
        ("None", "NoneType"),
        ("(1, 2, 3)", r"\(int, int, int\)"),
        ("(nn.Linear(2, 2), 3)", r"\(Linear, int\)"),
        ("(nn.Linear(2, 2), (torch.ones(2, 2),), 'mse')", r"\(Linear, tuple, str\)"),
        ("(nn.Linear(2, 2), (torch.ones(2, 2),), None, 3)", r"\(Linear, tuple, NoneType, int\)"),
    ],
)
def test_a_function_that_returns_something_else_is_told_what(
    written: Callable[..., Path], value: str, received: str
) -> None:
    file = written(HEAD + f"def build():\n    return {value}\n")
    with pytest.raises(ConfigError, match=received):
        read_subject(f"{file}:build")


def test_a_recipe_gives_the_setup_of_its_training() -> None:
    subject = read_subject("digits", device="cpu")
    assert subject.setup is not None and subject.model is None
    inputs, targets = next(iter(subject.setup.batches))
    assert inputs.shape[1:] == (1, 8, 8)
    assert targets.dtype == torch.long


def test_a_recipe_file_and_the_folder_of_a_run_give_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.json").write_text(to_json(RECIPES["digits"].recipe))
    losses = {
        check(subject.setup).loss
        for word in ("digits", str(folder), str(folder / "recipe.json"))
        if (subject := read_subject(word, device="cpu")).setup is not None
    }
    assert len(losses) == 1


def test_a_word_that_names_nothing_is_refused() -> None:
    with pytest.raises(LeadlineError, match="digits"):
        read_subject("digist")
    with pytest.raises((ConfigError, DataError)):
        read_subject("no/such/folder")


def test_a_function_is_handed_over_uncalled_and_runs_in_its_own_surroundings(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["leadline", "diagnose"])
    written("RATE = 0.5\n", "late_neighbour.py")
    text = "import sys\nCALLED = []\n\ndef train():\n    import late_neighbour\n"
    text += "    CALLED.append(sys.argv[:])\n    return late_neighbour.RATE\n"
    file = written(HEAD + text, "uncalled.py")
    subject = read_subject(f"{file}:train", call=False)
    assert subject.setup is None and subject.model is None and subject.function is not None
    called = sys.modules["uncalled"].CALLED
    assert called == []
    assert subject.function() == 0.5
    assert called == [[str(file)]]
    assert sys.argv == ["leadline", "diagnose"]


def test_a_training_may_end_the_program_when_it_is_done(written: Callable[..., Path]) -> None:
    text = "import sys\n\ndef done():\n    sys.exit()\n\ndef failed():\n    sys.exit('no data')\n"
    file = written(HEAD + text, "ends.py")
    done = read_subject(f"{file}:done", call=False).function
    assert done is not None and done() is None
    failed = read_subject(f"{file}:failed", call=False).function
    assert failed is not None
    with pytest.raises(ConfigError, match="no data"):
        failed()


def test_the_folder_of_a_run_is_known_as_one(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(to_json(RECIPES["digits"].recipe))
    subject = read_subject(str(tmp_path), device="cpu")
    assert subject.run is not None and subject.run.folder == tmp_path
    assert subject.prepared is not None and subject.prepared.recipe == RECIPES["digits"].recipe
    assert subject.device == "cpu"
    assert read_subject("digits", device="cpu").run is None
