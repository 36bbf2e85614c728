"""Tests that the functions behind a model's outputs are followed, and suspended at will."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from leadline.doctor.recording.trace import Listening, Trace


def test_what_depends_on_an_output_is_known_with_its_call() -> None:
    trace = Trace()
    output, other = torch.ones(2, requires_grad=True), torch.ones(2)
    trace.add_output(output, event=7)
    result = output * other
    trace.add_call(torch.Tensor.mul, (output, other), {}, result)
    node = trace.node_of(result)
    assert node is not None and (node.name, node.forwards) == ("mul", frozenset({7}))
    assert trace.node_of(other) is None
    view = result.reshape(1, 2)
    trace.add_call(torch.Tensor.reshape, (result, (1, 2)), {}, view)
    assert trace.forward_of(view) is None  # its numbers are no output's any more
    assert trace.forward_of(output) == 7


def test_without_gradients_only_views_of_outputs_are_followed_and_nothing_is_kept() -> None:
    trace = Trace()
    with torch.no_grad():
        output = torch.ones(4, 1)
        trace.add_output(output, event=3)
        flat = output.squeeze(1)
        trace.add_call(torch.Tensor.squeeze, (output, 1), {}, flat)
        squashed = flat.sigmoid()
        trace.add_call(torch.Tensor.sigmoid, (flat,), {}, squashed)
    assert (trace.forward_of(flat), trace.forward_of(squashed)) == (3, None)
    assert trace.nodes == []
    del output, flat
    trace.forget()
    assert trace.evaluated == {}


def test_functions_are_told_of_unless_it_is_suspended() -> None:
    told: list[str] = []

    def tell(function: Any, args: Any, kwargs: Any, output: Any) -> None:
        told.append(function.__name__)

    listening = Listening(tell, foreign=lambda: False)
    with listening:
        one = torch.ones(2)
        with contextlib.contextmanager(listening.suspended)():
            one.sin()
        with torch.device("cpu"), contextlib.contextmanager(listening.suspended)():
            one.tan()
        one.cos()
    one.exp()
    assert told[0] == "ones" and told[-1] == "cos"
    assert not {"sin", "tan", "exp"} & set(told)
