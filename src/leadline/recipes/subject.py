"""The subject of a check or a diagnosis: a recipe, a path to data, or a function in a file.

`FILE.py:function` is executed as `python FILE.py` would, its folder first on the path, but under
another name than `__main__`; the function is called without arguments and returns a `Setup`, or
`(model, batch, loss)`, to which an optimizer may be added. The file sees an empty command line,
so that one which reads its own arguments gets its defaults. A diagnosis is handed the function
uncalled, since it may be one that trains, to be recorded while it runs.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from leadline.core.devices import choose_device
from leadline.core.errors import ConfigError, LeadlineError
from leadline.core.names import did_you_mean
from leadline.recipes.train import Prepared, prepare
from leadline.training.build import build_setup
from leadline.training.run import Run
from leadline.training.setup import Setup

FUNCTION = re.compile(r"^(?P<file>.+\.py):(?P<function>\w+)$")


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """What is looked at: a Setup, or a model with a batch, a loss and perhaps an optimizer.

    `function` is what a diagnosis calls: it returns either of these, or trains. `prepared` and
    `device` are what a recipe's Setup was built from, `run` the run whose recipe it is.
    """

    name: str
    setup: Setup | None = None
    prepared: Prepared | None = None
    device: str = ""
    run: Run | None = None
    function: Callable[[], Any] | None = None
    model: nn.Module | None = None
    batch: Any = None
    loss: Any = None
    optimizer: Optimizer | None = None


def read_subject(what: str, *, device: str = "auto", call: bool = True) -> Subject:
    """The subject that a word of the command line names.

    A recipe's name, the recipe.json or the folder of a run, and a folder of images give the Setup
    that `leadline train` would build. With `call` False a user's function is handed over as it is,
    to be called in its own surroundings. Raises ConfigError when it is none of these, and when the
    user's function cannot be found, fails, or returns something else.
    """
    match = FUNCTION.match(what)
    if match is not None:
        file, name = Path(match["file"]), match["function"]
        return _from_function(file, name, what) if call else _uncalled(file, name, what)
    if what.endswith(".py"):
        raise ConfigError(
            expected="FILE.py:function",
            received=what,
            remedy=f"name the function that returns (model, batch, loss): {what}:function",
        )
    recipe_file = Path(what) / "recipe.json"
    prepared = prepare(str(recipe_file) if recipe_file.is_file() else what)
    place = str(choose_device(device))
    setup = build_setup(prepared.recipe, prepared.dataset, device=place)
    run = Run(Path(what)) if recipe_file.is_file() else None
    return Subject(name=what, setup=setup, prepared=prepared, device=place, run=run)


def _from_function(file: Path, function: str, name: str) -> Subject:
    with _surroundings(file):
        made = _look_up(file, function)
        try:
            value = made()
        except LeadlineError:
            raise
        except SystemExit as error:
            raise _ended(f"{function}()", error) from error
        except Exception as error:
            raise ConfigError(
                expected=f"{function}() to return (model, batch, loss) or a Setup",
                received=f"{type(error).__name__}: {error}",
                remedy=f"call it by itself until it runs: python -c 'import {file.stem}; "
                f"{file.stem}.{function}()'",
            ) from error
    return understand(value, name=name, function=function)


def _uncalled(file: Path, function: str, name: str) -> Subject:
    with _surroundings(file):
        made = _look_up(file, function)

    def call() -> Any:
        with _surroundings(file):
            try:
                return made()
            except SystemExit as error:
                if error.code not in (0, None):
                    raise _ended(f"{function}()", error) from error
                return None  # a training that ends the program when it is done

    return Subject(name=name, function=call)


def _look_up(file: Path, function: str) -> Callable[[], Any]:
    module = _execute(file)
    made = getattr(module, function, None)
    if not callable(made):
        functions = [key for key, value in vars(module).items() if callable(value)]
        raise ConfigError(
            expected=f"a function {function!r} in {file}",
            received=f"none of that name{did_you_mean(function, functions)}",
            remedy=f"write def {function}(): ... return model, batch, loss",
        )
    found: Callable[[], Any] = made
    return found


def understand(value: Any, *, name: str, function: str) -> Subject:
    """The subject in what a user's function returned; ConfigError for anything else."""
    if isinstance(value, Setup):
        return Subject(name=name, setup=value)
    if isinstance(value, tuple | list) and len(value) in (3, 4) and isinstance(value[0], nn.Module):
        model, batch, loss = value[:3]
        optimizer = value[3] if len(value) == 4 else None
        if (loss is None or callable(loss)) and isinstance(optimizer, Optimizer | None):
            return Subject(name=name, model=model, batch=batch, loss=loss, optimizer=optimizer)
    kinds = (
        ", ".join(type(entry).__name__ for entry in value)
        if isinstance(value, tuple | list)
        else type(value).__name__
    )
    raise ConfigError(
        expected=f"{function}() to return (model, batch, loss), (model, batch, loss, optimizer) or "
        "a leadline.Setup",
        received=f"({kinds})" if isinstance(value, tuple | list) else kinds,
        remedy="the model is an nn.Module, the batch what one turn of your loop gives, the loss a "
        "function of (outputs, targets)",
    )


def _execute(file: Path) -> ModuleType:
    name = file.stem
    while name in sys.modules:  # a file called json.py must not take the place of json
        name += "_"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and worker processes look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, SystemExit):
            raise _ended(str(file), error) from error
        if isinstance(error, LeadlineError) or not isinstance(error, Exception):
            raise
        raise ConfigError(
            expected=f"{file} to run",
            received=f"{type(error).__name__}: {error}",
            remedy=f"run it by itself: python {file}",
        ) from error
    return module


def _ended(what: str, error: SystemExit) -> ConfigError:
    return ConfigError(
        expected=f"{what} to run and to return",
        received=f"the end of the program: SystemExit({error.code!r})",
        remedy="put what ends the program, sys.exit() or the reading of required arguments, under "
        "if __name__ == '__main__'",
    )


@contextmanager
def _surroundings(file: Path) -> Iterator[None]:
    """What a user's file finds when it is run by itself: its folder, and no arguments."""
    if not file.is_file():
        raise ConfigError(
            expected="a Python file",
            received=f"{file}, which does not exist",
            remedy="check the path",
        )
    with _folder_first(file.parent), _arguments(str(file)):
        yield


@contextmanager
def _arguments(*arguments: str) -> Iterator[None]:
    """A command line of the user's file, not the one of the command that looks at it."""
    found = sys.argv
    sys.argv = list(arguments)
    try:
        yield
    finally:
        sys.argv = found


@contextmanager
def _folder_first(folder: Path) -> Iterator[None]:
    """Imports of the user's neighbouring files work, as they do under `python FILE.py`."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
