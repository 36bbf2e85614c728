"""Tests of the zones, each against the slope that autograd finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.measure.units.activation_zones import (
    DEAD_SHARE,
    FLAT_SHARE,
    Zones,
    zones_of_function,
    zones_of_module,
)

# The activation, the slope it is made for, and inputs beyond the bottom of its dip, if it has one.
ACTIVATIONS = [
    (nn.ReLU(), 1.0, False),
    (nn.ReLU6(), 1.0, False),
    (nn.ELU(), 1.0, False),
    (nn.ELU(alpha=0.5), 1.0, False),
    (nn.CELU(alpha=2.0), 1.0, False),
    (nn.SELU(), 1.0507010, False),
    (nn.Softplus(), 1.0, False),
    (nn.Softplus(beta=3), 1.0, False),
    (nn.Sigmoid(), 0.25, False),
    (nn.Tanh(), 1.0, False),
    (nn.Softsign(), 1.0, False),
    (nn.Hardtanh(-0.3, 0.7), 1.0, False),
    (nn.Hardsigmoid(), 1 / 6, False),
    (nn.GELU(), 1.0, True),
    (nn.SiLU(), 1.0, True),
    (nn.Mish(), 1.0, True),
    (nn.Hardswish(), 1.0, True),
]


def flat_dead_linear(zones: Zones, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = x if zones.of_input else y
    if zones.centre is None:
        ceiling = y >= zones.ceiling
        below = (value <= zones.flat) | ceiling, (value <= zones.dead) | ceiling
        return *below, (value > zones.linear) & ~ceiling
    far = (value - zones.centre).abs()
    return far >= zones.flat, far >= zones.dead, far < zones.linear


@pytest.mark.parametrize(
    ("module", "made_for", "dips"),
    ACTIVATIONS,
    ids=lambda value: str(value) if isinstance(value, nn.Module) else None,
)
def test_the_zones_are_where_the_slope_says(module: nn.Module, made_for: float, dips: bool) -> None:
    zones = zones_of_module(module)
    assert zones is not None
    x = torch.linspace(-40, 40, 160_001, dtype=torch.float64) + 1.3e-4
    if dips:
        x = x[(x < -2.3) | (x > -0.3)]
    x.requires_grad_()
    y = module(x)
    share = torch.autograd.grad(y.sum(), x)[0] / made_for
    flat, dead, linear = flat_dead_linear(zones, x.detach(), y.detach())
    # An entry nearer to an edge than the edge's own rounding may fall on either side.
    for zone, edge in ((flat, FLAT_SHARE), (dead, DEAD_SHARE)):
        decided = (share.abs() / edge - 1).abs() > 0.01
        assert torch.equal(zone[decided], (share.abs() <= edge)[decided])
        assert zone.any() and not zone.all()
    far_from_edge = ((share - 1).abs() / FLAT_SHARE - 1).abs() > 0.01
    crosses = dips or isinstance(module, nn.SELU)  # the slope passes through 1 on its way
    decided = far_from_edge & (x.detach() > (2.3 if dips else 0.0 if crosses else -40.0))
    assert torch.equal(linear[decided], ((share - 1).abs() <= FLAT_SHARE)[decided])


@pytest.mark.parametrize(
    ("module", "function"), [(nn.GELU(), "gelu"), (nn.SiLU(), "silu"), (nn.Mish(), "mish")]
)
def test_the_rest_of_an_input_zone_is_the_output_at_its_edge(
    module: nn.Module, function: str
) -> None:
    zones = zones_of_function(function, ())
    assert zones is not None
    assert zones.rest == pytest.approx(module(torch.tensor(zones.dead)).item(), rel=0.01)


def test_a_leaky_unit_is_never_flat() -> None:
    for module in (nn.LeakyReLU(), nn.PReLU(), nn.RReLU()):
        zones = zones_of_module(module)
        assert zones is not None and zones.leaks and zones.flat == -torch.inf


def test_activations_of_other_libraries_are_known_by_name() -> None:
    class NewGELUActivation(nn.Module):
        pass

    class MyOwnReLU(nn.ReLU):
        pass

    assert zones_of_module(NewGELUActivation()) == zones_of_module(nn.GELU())
    assert zones_of_module(MyOwnReLU()) == zones_of_module(nn.ReLU())
    assert zones_of_function("leaky_relu", ()) == zones_of_module(nn.LeakyReLU())


def test_a_softmax_and_a_layer_with_weights_have_no_zones() -> None:
    assert zones_of_module(nn.Softmax(dim=1)) is None
    assert zones_of_module(nn.Linear(1, 1)) is None
    assert zones_of_function("softmax", ()) is None


def test_the_bounds_of_the_function_hardtanh_are_its_arguments() -> None:
    assert zones_of_function("hardtanh", (torch.ones(1), -0.3, 0.7, False)) == zones_of_module(
        nn.Hardtanh(-0.3, 0.7)
    )
    assert zones_of_function("hardtanh", (torch.ones(1),)) == zones_of_module(nn.Hardtanh())


def test_quick_gelu_is_a_narrower_silu() -> None:
    class QuickGELU(nn.Module):
        pass

    zones = zones_of_module(QuickGELU())
    assert zones is not None
    x = torch.tensor(zones.flat, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(x * functional.sigmoid(1.702 * x), x)[0]
    assert slope.abs().item() == pytest.approx(FLAT_SHARE, rel=0.01)
