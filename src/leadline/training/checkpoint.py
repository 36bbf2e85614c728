"""Checkpoints: the whole state in one safetensors file, hashed, written whole or not at all.

A checkpoint is one file, `step-00000120.safetensors`: the tensors as they are, everything else as
JSON in the header, and the SHA-256 of both. A file that was cut off, flipped or zeroed fails its
hash; the newest one that passes is used and the bad ones are named. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from leadline.core.errors import CorruptFileError, RunError
from leadline.core.files import write_atomic
from leadline.core.state import FlatState, flatten_state, restore_state

KEPT = 2
"""Checkpoints kept: the newest, and one to fall back to when it is found damaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The newest valid checkpoint of a folder, and the names of newer ones that are damaged."""

    path: Path
    state: dict[str, Any]
    damaged: tuple[str, ...]


def save_checkpoint(folder: Path, state: Mapping[str, Any], *, step: int) -> Path:
    """Write a state into `folder` durably, then drop all but the newest `KEPT` checkpoints."""
    flat = flatten_state(state)
    plain = json.dumps(flat.plain)
    tensors = _unshared(flat.tensors)
    digest = _digest(tensors, plain)
    path = folder / f"step-{step:08d}.safetensors"
    write_atomic(path, save(tensors, metadata={"state": plain, "sha256": digest}))
    for old in checkpoint_files(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state back, or raise CorruptFileError when the file is not what was written."""
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a dict)
        plain = metadata["state"]
        valid = _digest(tensors, plain) == metadata["sha256"]
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise _damaged(path, f"a file that cannot be read ({error})") from error
    if not valid:
        raise _damaged(path, "contents that do not match their SHA-256")
    state: dict[str, Any] = restore_state(FlatState(tensors=tensors, plain=json.loads(plain)))
    return state


def newest_checkpoint(folder: Path) -> Found | None:
    """The newest checkpoint that is valid; None where there is none at all.

    Damaged newer ones are named in the result; when every one is damaged that is an error.
    """
    damaged: list[str] = []
    for path in checkpoint_files(folder):
        try:
            return Found(path=path, state=load_checkpoint(path), damaged=tuple(damaged))
        except CorruptFileError:
            damaged.append(path.name)
    if damaged:
        raise RunError(
            expected=f"at least one valid checkpoint in {folder}",
            received=f"only damaged ones: {', '.join(damaged)}",
            remedy="delete them to start this run from its first step, or restore a backup",
        )
    return None


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoint files of a folder, newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, contiguous, none sharing memory with another, as safetensors asks."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.untyped_storage().data_ptr() in seen:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        separate[name] = plain
    return separate


def _digest(tensors: Mapping[str, Tensor], plain: str) -> str:
    digest = hashlib.sha256(plain.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _damaged(path: Path, received: str) -> CorruptFileError:
    return CorruptFileError(
        expected=f"a whole checkpoint in {path.name}",
        received=received,
        remedy="resume from an older checkpoint of the run; this one is not used",
    )
