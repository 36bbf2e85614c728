"""Weights read from safetensors files and state dicts, checked key by key before one is copied.

A model file is data: a table of named arrays (safetensors), never a pickle, since reading a pickle
can run any code that is in it. What other programs wrote with `torch.save` comes in through
`import_checkpoint` alone, which reads with `weights_only=True`: tensors and plain containers.

The surprising choice: a mismatch is an error even for one key. Weights that fit almost load
silently elsewhere, and the network is then partly random. Batch norm's counters of batches, which
files of old PyTorch lack and nothing at a fixed momentum reads, are the one exception.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from torch import Tensor, nn

from leadline.core.errors import CorruptFileError, FileError, ModelError, UnsafeFileError

PICKLED = (".pt", ".pth", ".th", ".bin", ".pkl", ".pickle", ".ckpt", ".tar")
PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # zip, pickle
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before each name
CONTAINERS = ("state_dict", "model_state_dict", "model")  # where checkpoints keep the weights
COUNTER = "num_batches_tracked"  # batch norm's; absent from files of PyTorch before 0.4.1
LISTED = 8  # keys of each kind that an error names


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """What a safetensors file holds: tensors by name, on the CPU, and its header's texts by key."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def load_weights(model: nn.Module, source: Path | str | Mapping[str, Tensor]) -> None:
    """Copy weights into `model` from a safetensors file or a state dict; all of them, or none.

    The prefixes of DataParallel and torch.compile are removed from the names. Raises ModelError
    that lists missing, unexpected and misshapen tensors, UnsafeFileError for a pickle, and
    CorruptFileError for a file that is not what it claims to be.

    >>> model = nn.Linear(2, 1)
    >>> load_weights(model, {"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)})
    >>> model(torch.tensor([[1.0, 2.0]])).item()
    3.0
    """
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    found = source if isinstance(source, Mapping) else read_safetensors(source).tensors
    state = strip_prefix(found)
    expected = model.state_dict()
    counters = {k: v for k, v in expected.items() if k.endswith(COUNTER)}
    state = {**counters, **state}
    problems = [
        _listing("missing", [key for key in expected if key not in state]),
        _listing("unexpected", [key for key in state if key not in expected]),
        _listing(
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
                for key in expected
                if key in state and state[key].shape != expected[key].shape
            ],
        ),
    ]
    if any(problems):
        raise ModelError(
            expected=f"weights for this {type(model).__name__}, tensor by tensor",
            received=f"{where} with " + "; ".join(problem for problem in problems if problem),
            remedy="build the model with the architecture, num_classes and in_chans that the "
            "weights were trained with; the model is unchanged",
        )
    model.load_state_dict(state)


def read_safetensors(path: Path | str) -> Weights:
    """Everything in a safetensors file.

    Raises FileError where there is no such file, UnsafeFileError for a pickle whatever its name,
    CorruptFileError for a truncated file or a header that lies about what follows.
    """
    path = Path(path)
    if path.suffix.lower() in PICKLED:
        raise _unsafe(path, f"a {path.suffix} file, which is a pickle")
    content = _read(path)
    try:
        tensors = load_bytes(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        if content.startswith(PICKLE_MAGIC):
            raise _unsafe(path, "a pickle under another name") from error
        raise CorruptFileError(
            expected=f"a safetensors file at {path}",
            received=f"{len(content):,} bytes that are none: {error}",
            remedy="copy or download the file anew; it is truncated, altered or another format",
        ) from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return Weights(tensors=tensors, metadata=header.get("__metadata__") or {})


def import_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`, read with `weights_only=True`: no code is run.

    A state dict inside a checkpoint (under 'state_dict', 'model_state_dict' or 'model') is found,
    and the prefixes of DataParallel and torch.compile are removed. Raises UnsafeFileError when the
    file holds more than tensors and plain containers, CorruptFileError when it cannot be read,
    ModelError when no weights are in it.
    """
    path = Path(path)
    if not path.is_file():
        raise _no_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they advise to read the file unsafely
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise _refused(path, error) from error
    for key in CONTAINERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not loaded or not _all_tensors(loaded):
        raise ModelError(
            expected=f"a state dict in {path}, bare or under one of {', '.join(CONTAINERS)}",
            received=_describe(loaded),
            remedy="save the state dict where the file was made: "
            "torch.save(model.state_dict(), path)",
        )
    return strip_prefix(loaded)


def strip_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without the prefixes that DataParallel and torch.compile put on every name.

    >>> list(strip_prefix({"module.a": torch.zeros(1), "module.b": torch.zeros(1)}))
    ['a', 'b']
    """
    plain = dict(state)
    while prefix := next(
        (p for p in WRAPPERS if plain and all(k.startswith(p) for k in plain)), ""
    ):
        plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _no_file(path) from error
    except OSError as error:
        raise FileError(
            expected=f"a file with weights at {path}",
            received=f"{error.strerror or error}",
            remedy="check the path, and that it may be read",
        ) from error


def _no_file(path: Path) -> FileError:
    return FileError(
        expected=f"a file with weights at {path}",
        received="a folder" if path.is_dir() else "no such file",
        remedy="check the path",
    )


def _unsafe(path: Path, what: str) -> UnsafeFileError:
    return UnsafeFileError(
        expected=f"a safetensors file at {path}",
        received=f"{what}; reading one can run any code that is in it, so it is refused",
        remedy="import it by leadline.models.weights.import_checkpoint, which takes tensors only",
    )


def _refused(path: Path, error: Exception) -> FileError:
    """Whether torch.load refused what is in the file, or could not read it; without its advice."""
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        what = f"{found[1]}, which could run code when read"
    elif "TorchScript" in str(error):
        what = "a TorchScript program"
    elif "Unsupported operand" in str(error) and _start(path).startswith(PICKLE_MAGIC):
        what = "a plain pickle, with instructions that tensors do not need"
    else:
        return CorruptFileError(
            expected=f"a file written by torch.save at {path}",
            received=f"a file of {path.stat().st_size:,} bytes that torch.load cannot read "
            f"({type(error).__name__})",
            remedy="copy or download the file anew; it is truncated, altered or another format",
        )
    return UnsafeFileError(
        expected=f"tensors and plain containers alone in {path}",
        received=what,
        remedy="save the state dict alone where the file was made: "
        "torch.save(model.state_dict(), path)",
    )


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)


def _all_tensors(state: Mapping[object, object]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


def _describe(loaded: object) -> str:
    if isinstance(loaded, dict):
        return (
            f"a dictionary with the keys {', '.join(map(repr, list(loaded)[:LISTED])) or '(none)'}"
        )
    return f"a {type(loaded).__name__}"


def _listing(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f", and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return f"{len(keys)} {what}: {', '.join(keys[:LISTED])}{more}"
