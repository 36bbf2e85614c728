"""Tests of the random streams."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from leadline.core.errors import ConfigError
from leadline.core.seeds import (
    RandomState,
    capture_random_state,
    derive_seed,
    preserved_random_state,
    restore_random_state,
    seed_everything,
)


def draw() -> list[float]:
    """Some of every stream; an odd number of normals leaves half a pair in each generator."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        *torch.rand(3).tolist(),
        *torch.randn(5).tolist(),
    ]


@pytest.fixture(autouse=True)
def _streams_preserved():  # type: ignore[no-untyped-def]
    with preserved_random_state():
        yield


def test_the_same_seed_gives_the_same_numbers_in_every_stream() -> None:
    seed_everything(3)
    first = draw()
    seed_everything(3)
    assert draw() == first
    seed_everything(4)
    assert not set(draw()) & set(first)


def test_every_stream_goes_on_bit_for_bit_after_a_restore() -> None:
    seed_everything(0)
    draw()
    state = capture_random_state()
    expected = [draw() for _ in range(300)]  # beyond one refill of each Mersenne Twister
    seed_everything(99)
    restore_random_state(state)
    assert [draw() for _ in range(300)] == expected


def test_capturing_draws_nothing() -> None:
    seed_everything(0)
    expected = draw()
    seed_everything(0)
    capture_random_state()
    assert draw() == expected


def test_a_state_survives_safetensors_and_json(tmp_path: Path) -> None:
    seed_everything(5)
    draw()
    written = capture_random_state().state_dict()
    tensors = {key: value for key, value in written.items() if isinstance(value, torch.Tensor)}
    numbers = {key: value for key, value in written.items() if key not in tensors}
    save_file(tensors, tmp_path / "state.safetensors")
    expected = draw()

    read = load_file(tmp_path / "state.safetensors") | json.loads(json.dumps(numbers))
    restore_random_state(RandomState.from_state_dict(read))
    assert draw() == expected


def test_the_states_of_several_gpus_keep_their_order() -> None:
    states = tuple(torch.tensor([i], dtype=torch.uint8) for i in range(12))
    plain = vars(capture_random_state()) | {"cuda": states}
    again = RandomState.from_state_dict(RandomState(**plain).state_dict())
    assert [int(state) for state in again.cuda] == list(range(12))


def test_what_is_drawn_inside_does_not_show_outside_after_an_error_either() -> None:
    seed_everything(1)
    expected = draw()
    seed_everything(1)
    with contextlib.suppress(ZeroDivisionError), preserved_random_state():
        draw()
        raise ZeroDivisionError
    assert draw() == expected


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match=rf"seed must be >= 0 and <= \d+, received {seed}"):
        seed_everything(seed)


def test_seeds_above_32_bits_are_taken() -> None:
    seed_everything(2**63 - 1)


def test_a_derived_seed_is_the_hash_of_its_parts() -> None:
    digest = hashlib.blake2b(b"(3, 'epoch', 2)", digest_size=8).digest()
    assert derive_seed(3, "epoch", 2) == int.from_bytes(digest, "little") >> 1


def test_neighbouring_parts_give_unrelated_seeds() -> None:
    seeds = [derive_seed(seed, epoch, i) for seed in range(8) for epoch in range(8) for i in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    ones = np.mean([seed.bit_count() for seed in seeds])
    assert 30 < ones < 33  # 31.5 of 63 bits when the bits are fair


def test_parts_are_kept_apart() -> None:
    assert (
        len({derive_seed(1, 23), derive_seed(12, 3), derive_seed("1", 23), derive_seed(123)}) == 4
    )
