"""Tests of computing in a wider type, whoever narrows it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.remedies.precision import Widened, computed_in


class Narrowed(nn.Module):
    """Narrows its inputs by hand, and computes a part under autocast."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.cell, self.head = nn.GRU(6, 6, batch_first=True), nn.Linear(6, 3)
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = x.half().to(self.first.weight.dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = self.norm(self.first(x)).relu()
        states, _ = self.cell(h[:, None].to(self.head.weight.dtype))
        return self.head(states[:, -1] + torch.zeros(1, 6, dtype=self.head.weight.dtype))


def plain(model: Narrowed, x: Tensor) -> Tensor:
    """What `Narrowed` computes, without its casts."""
    states, _ = model.cell(model.norm(model.first(x)).relu()[:, None])
    return model.head(states[:, -1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_widened_model_computes_as_if_nothing_were_narrowed(
    make_setup: Any, dtype: torch.dtype
) -> None:
    model = computed_in("float32")(make_setup(model=lambda: Narrowed(dtype))).model()
    x = torch.randn(8, 4)
    outputs = model(x)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, plain(model, x))


def test_weights_buffers_gradients_and_loss_are_in_float64(make_setup: Any) -> None:
    setup = computed_in("float64")(make_setup(model=Narrowed))
    model = setup.model()
    inputs, targets = next(iter(setup.batches))
    loss = setup.loss(model(inputs), targets)
    loss.backward()
    assert loss.dtype == torch.float64
    assert {p.grad.dtype for p in model.parameters()} == {torch.float64}
    assert model.norm.running_mean.dtype == torch.float64


def test_the_mode_is_closed_behind_the_forward_pass_also_after_an_error(make_setup: Any) -> None:
    model = computed_in("float32")(make_setup(model=Narrowed)).model()
    model(torch.randn(8, 4))
    with pytest.raises(RuntimeError):
        model(torch.randn(8, 5))
    assert torch.ones(1).half().dtype == torch.float16


def test_a_copy_of_the_widened_model_is_widened_too(make_setup: Any) -> None:
    model = computed_in("float64")(make_setup(model=Narrowed)).model().eval()
    x = torch.randn(8, 4)
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_casts_that_widen_or_move_go_through() -> None:
    with Widened(torch.float32):
        assert torch.ones(1).double().dtype == torch.float64
        assert torch.ones(1).to("cpu").dtype == torch.float32
        assert torch.ones(1).to("cpu", torch.half).dtype == torch.float32
        assert torch.ones(1).long().dtype == torch.int64
        assert torch.ones(2, dtype=torch.bfloat16).sum().dtype == torch.float32


def test_gradients_pass_through_casts_that_are_left_out() -> None:
    x = torch.tensor([1.0], requires_grad=True)
    with Widened(torch.float32):
        (3 * x.half()).sum().backward()
    assert float(x.grad) == 3.0
