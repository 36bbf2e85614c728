"""Every random stream at once: seeded, captured, restored, and derived from one another.

A training draws from Python's generator, from NumPy's, and from torch's on each device. Exact
resume needs all of them: one forgotten stream and the second half of a run differs. A `RandomState`
is the list of them, as tensors and numbers only, so that it is stored without pickle.

`derive_seed` gives each (seed, epoch, offset) its own stream through a hash (BLAKE2b, RFC 7693).
Adding numbers instead would make epoch 1 of seed 0 the same as epoch 0 of seed 1.

The surprising choice: a GPU that was not yet in use when the state was captured is put back to
what a fresh start would give it, the seed of the CPU's generator, for it has no state of its own
to return to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leadline.core.config import config_error, in_range

LARGEST_SEED = 2**63 - 1  # torch's generators take a signed 64-bit number


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RandomState:
    """Where every random stream of this process stands; `cuda` and `mps` are empty when unused.

    Every tensor is on the CPU. `python` and `numpy` hold the 624 words of a Mersenne Twister
    (`python` with its position appended), `torch` and the devices' the bytes torch hands out.
    """

    python: Tensor
    python_gauss: float | None
    numpy: Tensor
    numpy_position: int
    numpy_gauss: float | None
    torch: Tensor
    cuda: tuple[Tensor, ...] = ()
    mps: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """The state as a flat dictionary of tensors, numbers and None; `cuda.0` is a GPU's key.

        >>> sorted(capture_random_state().state_dict())[-3:]
        ['python', 'python_gauss', 'torch']
        """
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain |= {f"cuda.{i}": state for i, state in enumerate(plain.pop("cuda"))}
        if plain["mps"] is None:
            del plain["mps"]
        return plain

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> RandomState:
        """The state that `state_dict` wrote."""
        own = {key: value for key, value in state.items() if not key.startswith("cuda.")}
        devices = sorted(int(key.removeprefix("cuda.")) for key in state.keys() - own.keys())
        return cls(**own, cuda=tuple(state[f"cuda.{i}"] for i in devices))


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, on every device (0 <= seed < 2**63).

    NumPy's own generator takes 32 bits: it is given the lower ones.

    >>> seed_everything(7)
    >>> first = torch.rand(2)
    >>> seed_everything(7)
    >>> torch.equal(first, torch.rand(2))
    True
    """
    if problem := in_range("seed", seed, 0, LARGEST_SEED):
        raise config_error("seed", [problem])
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture_random_state() -> RandomState:
    """Where every random stream stands now; nothing is drawn and no device is woken."""
    _, words, gauss = random.getstate()
    _, numpy_words, position, has_gauss, numpy_gauss = np.random.get_state(legacy=True)
    return RandomState(
        python=torch.tensor(words, dtype=torch.int64),
        python_gauss=gauss,
        numpy=torch.from_numpy(np.asarray(numpy_words).astype(np.int64)),
        numpy_position=int(position),
        numpy_gauss=float(numpy_gauss) if has_gauss else None,
        torch=torch.get_rng_state(),
        cuda=tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else (),
        mps=torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    )


def restore_random_state(state: RandomState) -> None:
    """Put every random stream back; the state of a device that is not here is left aside."""
    random.setstate((3, tuple(state.python.tolist()), state.python_gauss))
    np.random.set_state(
        (
            "MT19937",
            state.numpy.numpy().astype(np.uint32),
            state.numpy_position,
            int(state.numpy_gauss is not None),
            state.numpy_gauss or 0.0,
        )
    )
    torch.set_rng_state(state.torch)
    if torch.cuda.is_available():
        if state.cuda:
            torch.cuda.set_rng_state_all(state.cuda[: torch.cuda.device_count()])
        else:
            torch.cuda.manual_seed_all(torch.initial_seed())
    if state.mps is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state.mps)


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Whatever is drawn inside, the streams go on outside as if nothing had been drawn.

    >>> seed_everything(0)
    >>> with preserved_random_state():
    ...     inside = torch.rand(3)
    >>> torch.equal(inside, torch.rand(3))
    True
    """
    state = capture_random_state()
    try:
        yield
    finally:
        restore_random_state(state)


def derive_seed(*parts: int | str) -> int:
    """A seed below 2**63 that depends on every part and on their order, alike on every machine.

    >>> derive_seed(0, "epoch", 1)
    65714578822508956
    >>> derive_seed(1, 0) == derive_seed(0, 1)
    False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
