"""Nested state as named tensors and plain JSON, and back exactly: checkpoints without pickle.

The state of an optimizer, a schedule or a random stream is a nest of dictionaries, lists and
tuples with tensors, numbers and text in it. Here it becomes a flat table of tensors, which
safetensors can hold, and a tree that JSON can hold. What JSON would lose is written down: whether a
key is a number or text, whether a sequence is a list or a tuple, infinities and NaN. Floats are
exact, since Python writes the shortest text that reads back to the same number.

The tree: null, booleans, whole numbers, finite numbers, text and lists stand for themselves; an
object has exactly one key, and that says what it is:

    {"tensor": name}    {"float": "nan" | "inf" | "-inf"}
    {"tuple": [entry, …]}    {"dict": [[key, entry], …]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from leadline.core.errors import ConfigError, CorruptFileError


@dataclass(frozen=True, kw_only=True, eq=False)
class FlatState:
    """A nested state taken apart: its tensors by name, and all the rest as JSON-able values."""

    tensors: dict[str, Tensor]
    plain: Any


def flatten_state(state: Mapping[Any, Any]) -> FlatState:
    """Take a nested state apart; `restore_state` gives an equal one back.

    Tensors are named by the keys that lead to them, joined by `/`. They are detached and
    contiguous, as safetensors wants them, and share memory with the originals where those already
    are: write them before the next step. Anything else than dictionaries with text or whole
    numbers as keys, lists, tuples, tensors, numbers, text and None is a ConfigError that says
    where it was found.

    >>> import torch
    >>> flat = flatten_state({"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, 1)})
    >>> flat.tensors
    {'state/0/step': tensor(3.)}
    >>> restore_state(flat)
    {'state': {0: {'step': tensor(3.)}}, 'betas': (0.9, 1)}
    """
    tensors: dict[str, Tensor] = {}
    return FlatState(plain=_encode(state, (), tensors), tensors=tensors)


def restore_state(flat: FlatState) -> Any:
    """Put a nested state together again; a tree or a table that does not fit is an error.

    >>> restore_state(FlatState(tensors={}, plain={"dict": [[1, {"float": "inf"}]]}))
    {1: inf}
    """
    return _decode(flat.plain, flat.tensors)


def _encode(value: Any, place: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Tensor):
        return {"tensor": _keep(value, place, tensors)}
    if isinstance(value, list | tuple):
        entries = [_encode(e, (*place, str(i)), tensors) for i, e in enumerate(value)]
        return {"tuple": entries} if isinstance(value, tuple) else entries
    if isinstance(value, Mapping):
        return {
            "dict": [
                [_key(key, place), _encode(entry, (*place, str(key)), tensors)]
                for key, entry in value.items()
            ]
        }
    raise _refused(f"a {type(value).__name__}", place)


def _key(key: Any, place: tuple[str, ...]) -> str | int:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise _refused(f"the key {key!r} ({type(key).__name__})", place)
    return key


def _refused(what: str, place: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        expected="a state of dictionaries (keys: text or whole numbers), lists, tuples, tensors, "
        "numbers, text and None",
        received=f"{what} at {'/'.join(place) or 'the top'}",
        remedy="turn it into one of these in the part's own state_dict",
    )


def _keep(tensor: Tensor, place: tuple[str, ...], tensors: dict[str, Tensor]) -> str:
    name = "/".join(place) or "tensor"
    while name in tensors:  # the keys 1 and "1" lead to the same name
        name += "+"
    tensors[name] = tensor.detach().contiguous()
    return name


def _decode(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(plain, list):
        return [_decode(entry, tensors) for entry in plain]
    if not isinstance(plain, dict):
        return plain
    match plain:
        case {"tensor": str(name)} if len(plain) == 1 and name in tensors:
            return tensors[name]
        case {"float": "nan" | "inf" | "-inf" as text} if len(plain) == 1:
            return float(text)
        case {"tuple": list(entries)} if len(plain) == 1:
            return tuple(_decode(entry, tensors) for entry in entries)
        case {"dict": list(entries)} if len(plain) == 1 and all(map(_is_entry, entries)):
            return {key: _decode(entry, tensors) for key, entry in entries}
    raise CorruptFileError(
        expected="an object that stands for a tensor of the table, a number, a tuple or a dict",
        received=f"{str(plain)[:200]}",
        remedy="use another checkpoint: this one was damaged or written by another program",
    )


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str | int)
