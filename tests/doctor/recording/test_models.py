"""Tests that calls of models, their modes and their states are heard."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from leadline.doctor.record import record


def test_only_the_outermost_call_counts_and_says_how_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    with record() as tape:
        model(torch.ones(4, 3))
        model.eval()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            model(torch.ones(2, 3))
    first, last = tape.of("forward")
    assert (first["training"], first["grad"], first["noisy"], first["quiet"]) == (True, True, 1, 0)
    assert (last["training"], last["grad"], last["noisy"], last["quiet"]) == (False, False, 0, 1)
    assert (first["autocast"], last["autocast"], last["examples"]) == ("", "bfloat16", 2)
    assert [event["training"] for event in tape.of("mode")] == [False]


def test_gradient_checkpointing_calls_nothing_twice() -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = checkpoint(self.layer, inputs, use_reentrant=False)
            return result

    with record() as tape:
        Saving()(torch.ones(2, 3)).sum().backward()
    assert [event.kind for event in tape.events] == ["forward", "backward"]


COMPILED = """
import torch
from torch import nn
from leadline.doctor.record import record
compiled = torch.compile(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), backend="eager")
with record() as tape:
    for _ in range(2):
        compiled(torch.ones(2, 3)).sum().backward()
print([event.kind for event in tape.events], tape.models[0].name, tape.events[1]["models"])
"""


def test_a_compiled_model_is_heard_as_one_call() -> None:
    """In a process of its own: what checks shapes in the tests is compiled along otherwise."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    kinds = ["forward", "backward"] * 2
    assert done.stdout.strip() == f"{kinds} Sequential (0,)", done.stderr


def test_loading_tells_whether_the_state_is_the_models_own_memory() -> None:
    model = nn.Linear(2, 2)
    with record() as tape:
        model(torch.ones(1, 2))
        model.load_state_dict(model.state_dict())
        model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
    assert [event["own"] for event in tape.of("state_loaded")] == [True, False]
    assert len(tape.of("state_taken")) == 2


def test_comparisons_of_outputs_are_heard_with_their_range() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    with record() as tape, torch.no_grad():
        outputs = model(torch.tensor([[-1.0], [3.0]]))
        _ = outputs.squeeze(1) > 0.5
        _ = torch.ones(3) > 0.5
    (event,) = tape.of("threshold")
    assert (event["value"], event["lowest"], event["highest"]) == (0.5, -2.0, 6.0)
