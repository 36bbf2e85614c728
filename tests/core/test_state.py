"""Nested state to tensors and JSON and back: nothing may be lost on the way."""

import json
import math
import random

import pytest
import torch
from safetensors.torch import load, save

from leadline.core.errors import ConfigError, CorruptFileError
from leadline.core.state import FlatState, flatten_state, restore_state


def through_files(state: dict) -> dict:
    """As a checkpoint does it: tensors through safetensors, the rest through strict JSON."""
    flat = flatten_state(state)
    text = json.dumps(flat.plain, allow_nan=False)
    return restore_state(FlatState(tensors=load(save(flat.tensors)), plain=json.loads(text)))


def test_every_kind_of_value_comes_back_with_its_type():
    state = {
        "none": None,
        "flags": [True, False],
        "numbers": (0, -1, 2**80, 0.1, -0.0, 5e-324, 1.7976931348623157e308),
        "text": 'with "quotes" and ü',
        "nested": {"a": {"b": [({"c": 1},)]}},
        "empty": [{}, [], ()],
    }
    restored = through_files(state)
    assert restored == state
    assert repr(restored) == repr(state)  # tells 1 from True, a tuple from a list, 0.0 from -0.0


def test_infinities_and_nan_come_back():
    restored = through_files({"values": [math.inf, -math.inf, math.nan]})
    assert restored["values"][:2] == [math.inf, -math.inf]
    assert math.isnan(restored["values"][2])


def test_keys_that_are_numbers_stay_apart_from_keys_that_are_text():
    state = {1: torch.tensor(1.0), "1": torch.tensor(2.0), -3: "minus"}
    restored = through_files(state)
    assert list(restored) == [1, "1", -3]
    assert restored[1].item() == 1.0
    assert restored["1"].item() == 2.0


def test_dictionaries_that_look_like_our_tags_come_back():
    state = {"a": {"tensor": "x"}, "b": {"dict": []}, "c": {"float": "nan"}, "d": {"tuple": [1]}}
    assert through_files(state) == state


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 2, 2)])
def test_tensors_come_back_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(9).to(dtype)
    restored = through_files({"deep": [{"x": values}]})["deep"][0]["x"]
    assert restored.dtype == dtype
    assert restored.shape == values.shape
    assert torch.equal(restored, values)


def test_a_tensor_in_channels_last_order_keeps_its_values():
    kernel = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    assert torch.equal(through_files({"k": kernel})["k"], kernel)


def test_the_random_state_of_python_comes_back():
    generator = random.Random(7)
    restored = through_files({"python": generator.getstate()})["python"]
    assert restored == generator.getstate()
    other = random.Random()
    other.setstate(restored)
    assert other.random() == generator.random()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [object()]}, "received a object at a/0"),
        ({"a": {"b": b"bytes"}}, "received a bytes at a/b"),
        ({(1, 2): 3}, r"received the key \(1, 2\) \(tuple\) at the top"),
        ({"a": {True: 3}}, r"received the key True \(bool\) at a"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_its_place(value: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        flatten_state(value)


@pytest.mark.parametrize(
    "plain",
    [
        {"tensor": "absent"},
        {"tensor": ["x"]},
        {"float": "0x1"},
        {"tuple": 3},
        {"dict": [["key"]]},
        {"dict": [], "tuple": []},
        {"dict": [[["unhashable"], 1]]},
        {"pickle": "cos.system"},
        {},
    ],
)
def test_a_damaged_tree_is_refused(plain: dict):
    with pytest.raises(CorruptFileError, match="this one was damaged or written by another"):
        restore_state(FlatState(tensors={"x": torch.zeros(1)}, plain=[plain]))
