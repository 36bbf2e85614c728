"""Tests of the two numbers of depth, against chains whose gradients are known in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.depth import FEWEST, Flow, gradient_flow_of, signal_growth_of
from leadline.measure.survey import Survey, survey


def chain(gain: float, depth: int) -> nn.Sequential:
    """Orthogonal layers, each times `gain`: every norm is multiplied by it exactly."""
    layers = []
    for _ in range(depth):
        layer = nn.Linear(64, 64, bias=False)
        nn.init.orthogonal_(layer.weight)
        with torch.no_grad():
            layer.weight.mul_(gain)
        layers.append(layer)
    return nn.Sequential(*layers)


def look(model: nn.Module) -> Survey:
    torch.manual_seed(0)
    inputs = torch.randn(256, 64)
    inputs -= inputs.mean()
    return survey(model, (inputs, inputs), loss=lambda outputs, targets: (outputs * targets).mean())


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_a_chain_that_only_rescales_has_an_even_flow_and_a_growth_to_the_power_of_its_depth(
    gain: float,
) -> None:
    seen = look(chain(gain, 16))
    flow, growth = gradient_flow_of(seen), signal_growth_of(seen)
    assert flow is not None and growth is not None
    assert flow.ratio == pytest.approx(1.0, rel=0.2)
    assert not flow.vanishes and not flow.explodes
    assert growth == pytest.approx(gain**12, rel=0.05)  # quarters of 4: from the 2½th to the 14½th


def test_a_signal_that_is_renewed_on_its_way_lets_the_gradient_vanish() -> None:
    """Each layer adds noise of its own size 1 and passes on a tenth: the flow falls by ten."""

    class Renew(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = chain(0.1, 1)[0]
            self.register_buffer("own", torch.randn(256, 64))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.own

    model = nn.Sequential(*(Renew() for _ in range(16)))
    flow = gradient_flow_of(look(model))
    assert flow is not None
    assert flow.ratio == pytest.approx(10.0**-12, rel=5)
    assert flow.vanishes and flow.severity == "error"
    assert (flow.first, flow.last) == ("0.layer", "15.layer")


def test_too_few_layers_have_no_depth() -> None:
    seen = look(chain(1.0, FEWEST - 1))
    assert gradient_flow_of(seen) is None
    assert signal_growth_of(seen) is None


def test_layers_that_begin_at_zero_are_left_out(gpt: Any, text: Any, language_loss: Any) -> None:
    model = gpt()
    for block in model.blocks:
        nn.init.zeros_(block.down.weight)
        nn.init.zeros_(block.down.bias)
    seen = survey(model, text, loss=language_loss)
    flow, growth = gradient_flow_of(seen), signal_growth_of(seen)
    assert flow is not None and growth is not None
    assert 0.01 < flow.ratio < 100
    assert 0.01 < growth < 100


@pytest.mark.parametrize(
    ("ratio", "vanishes", "explodes", "severity"),
    [
        (1.0, False, False, "warning"),
        (1e-5, True, False, "warning"),
        (1e-8, True, False, "error"),
        (1e5, False, True, "warning"),
        (1e8, False, True, "error"),
    ],
)
def test_a_flow_is_judged_by_powers_of_ten(
    ratio: float, vanishes: bool, explodes: bool, severity: str
) -> None:
    flow = Flow(ratio=ratio, first="a", last="b")
    assert (flow.vanishes, flow.explodes) == (vanishes, explodes)
    if vanishes or explodes:
        assert flow.severity == severity
    assert math.isclose(float(flow.evidence.measured), ratio)


def test_branches_behind_a_small_scale_do_not_look_like_an_explosion() -> None:
    """As residual networks begin whose branches are multiplied by 1e-6 (LayerScale)."""

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.LayerNorm(64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return x + 1e-6 * self.layer(self.norm(x))

    stem = [nn.Linear(64, 64) for _ in range(3)]
    branches = [Branch() for _ in range(12)]
    flow = gradient_flow_of(look(nn.Sequential(*stem, *branches)))
    assert flow is not None and flow.explodes, "only branches are there to compare with"
    flow = gradient_flow_of(look(nn.Sequential(*stem, *branches, nn.Linear(64, 64))))
    assert flow is not None and not flow.explodes and not flow.vanishes
