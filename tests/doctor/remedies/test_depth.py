"""Tests of the remedies of depth: shortcuts as by hand, blocks that are rotations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from leadline.doctor.remedies.depth import (
    Isometry,
    isometry_of,
    rotation,
    rotations,
    shortcuts,
)
from leadline.measure.batch import Batch
from leadline.training.setup import Setup

ROWS = Batch(args=(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)),))
TIMES = Batch(args=(torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)),))


def turned(model: nn.Module, batch: Batch, make_setup: Any, names: list[str]) -> nn.Module:
    """The model with its blocks as rotations."""
    plan = isometry_of(model, batch, blocks=names)
    assert plan is not None
    changed: nn.Module = rotations(plan)(make_setup(model=lambda: model)).model()
    return changed


def singular_values(model: nn.Module, x: Tensor) -> Tensor:
    """Of the Jacobian of a model that takes one row [D]."""
    jacobian = torch.autograd.functional.jacobian(model, x)
    return torch.linalg.svdvals(jacobian.reshape(x.numel(), x.numel()))


# ------------------------------------------------------------------------------------ shortcuts


def test_shortcuts_are_what_one_writes_by_hand(
    make_setup: Callable[..., Setup], alike: Any
) -> None:
    class ByHand(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = self[0](x)
            for block in self[1:5]:
                x = x + block(x) / 2
            return self[5](x)

    def layers() -> list[nn.Module]:
        inner = (nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(4))
        return [nn.Linear(4, 6), *inner, nn.Linear(6, 3)]

    sick = make_setup(model=lambda: nn.Sequential(*layers()))
    by_hand = make_setup(model=lambda: ByHand(*layers()), batches=sick.batches)
    alike(shortcuts(["1", "2", "3", "4"])(sick), by_hand)


def test_a_block_that_returns_several_things_gets_its_shortcut_on_the_first(
    make_setup: Callable[..., Setup],
) -> None:
    class Two(nn.Module):
        def forward(self, *, x: Tensor) -> tuple[Tensor, str]:
            return 3 * x, "kept"

    model = shortcuts(["0"])(make_setup(model=lambda: nn.ModuleList([Two()]))).model()
    output, other = model[0](x=torch.ones(2))
    assert (output.tolist(), other) == ([4.0, 4.0], "kept")


# ------------------------------------------------------------------------------------ rotations


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_rotation_keeps_lengths_and_the_mean(size: int) -> None:
    turn = rotation(size)
    torch.testing.assert_close(turn @ turn.T, torch.eye(size), atol=1e-5, rtol=0)
    torch.testing.assert_close(turn @ torch.ones(size), torch.ones(size), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "activation", [nn.ReLU, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.Hardswish, nn.PReLU]
)
def test_a_widening_block_becomes_an_exact_rotation(make_setup: Any, activation: Any) -> None:
    blocks = [nn.Sequential(nn.Linear(8, 32), activation(), nn.Linear(32, 8)) for _ in range(20)]
    model = turned(nn.Sequential(*blocks), ROWS, make_setup, [str(i) for i in range(20)])
    values = singular_values(model, torch.randn(8))
    torch.testing.assert_close(values, torch.ones(8), atol=1e-3, rtol=0)


def test_half_of_the_directions_pass_a_rectified_chain_of_one_width(make_setup: Any) -> None:
    layers = [layer for _ in range(20) for layer in (nn.Linear(8, 8), nn.ReLU())]
    names = [str(2 * i) for i in range(20)]
    model = turned(nn.Sequential(*layers), ROWS, make_setup, names)
    values = singular_values(model[:-1], torch.randn(8))  # pairs (a, -a): each counts twice
    torch.testing.assert_close(values[:4], torch.full((4,), 2**0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(values[4:], torch.zeros(4), atol=1e-3, rtol=0)


def test_a_tanh_chain_rotates_small_signals(make_setup: Any) -> None:
    layers = [layer for _ in range(30) for layer in (nn.Linear(8, 8), nn.Tanh())]
    names = [str(2 * i) for i in range(30)]
    model = turned(nn.Sequential(*layers), ROWS, make_setup, names)
    values = singular_values(model, 1e-3 * torch.randn(8))
    torch.testing.assert_close(values, torch.ones(8), atol=5e-3, rtol=0)


def test_a_convolution_rotates_the_channels_of_each_place(make_setup: Any) -> None:
    images = Batch(args=(torch.randn(2, 6, 4, 4),))
    blocks = [
        nn.Sequential(nn.Conv2d(6, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 6, 5, padding=2))
        for _ in range(5)
    ]
    model = turned(nn.Sequential(*blocks), images, make_setup, list("01234"))
    given, came = images.inputs[0], model(images.inputs[0])
    torch.testing.assert_close(came.square().sum(1), given.square().sum(1), atol=1e-3, rtol=1e-3)


def test_more_layer_norms_than_features_leave_a_signal(make_setup: Any) -> None:
    blocks = [nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(40)]
    model = turned(nn.Sequential(*blocks), ROWS, make_setup, [str(i) for i in range(40)])
    values = singular_values(model, functional.layer_norm(torch.randn(8), (8,)))
    assert (values > 0.9).sum() == 6  # all but the mean and the length, which a norm takes out
    for block in blocks:  # a rotation that turns the mean away: each norm takes out one more
        nn.init.orthogonal_(block[1].weight)
    lost = singular_values(nn.Sequential(*blocks), functional.layer_norm(torch.randn(8), (8,)))
    assert (lost > 0.5).sum() < 3


@pytest.mark.parametrize(
    "layers",
    [
        lambda: (nn.Linear(8, 8), nn.Sigmoid()),
        lambda: (nn.Linear(8, 8), nn.Softplus()),
        lambda: (nn.Linear(8, 16), nn.GLU()),
        lambda: (weight_norm(nn.Linear(8, 8)), nn.ReLU()),
    ],
    ids=["sigmoid", "softplus", "gated", "weight norm"],
)
def test_what_cannot_become_a_rotation_is_refused(layers: Any) -> None:
    model = nn.Sequential(*(nn.Sequential(*layers()) for _ in range(4)))
    assert isometry_of(model, ROWS, blocks=list("0123")) is None


# ------------------------------------------------------------------------------------ attention


class Own(nn.Module):
    """Attention as users write it: one matrix for q, k and v, and torch's function or a softmax."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.fused:
            return self.out(functional.scaled_dot_product_attention(q, k, v))
        return self.out(functional.softmax(q @ k.mT / 8**0.5, dim=-1) @ v)


class Torch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, value=x, need_weights=False)[0]


@pytest.mark.parametrize(
    "make",
    [Torch, lambda: Own(fused=True), lambda: Own(fused=False)],
    ids=["MultiheadAttention", "scaled_dot_product_attention", "softmax"],
)
def test_attention_begins_as_its_own_value_and_a_share_of_the_others(
    make_setup: Any, make: Callable[[], nn.Module]
) -> None:
    model = nn.ModuleList([make(), make()])
    plan = isometry_of(nn.Sequential(*model), TIMES, blocks=["0", "1"])
    assert plan is not None
    assert len(plan.attentions) == 2
    first = rotations(plan)(make_setup(model=lambda: nn.Sequential(*model))).model()[0]
    owner = first.get_submodule(plan.attentions[0].partition(".")[2])
    x = TIMES.inputs[0]
    answers = {}
    for own, others in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5)):  # 1 - b, b: linear in both
        with torch.no_grad():
            owner.leadline_own.fill_(own)
            owner.leadline_others.fill_(others)
        answers[own] = first(x)
    torch.testing.assert_close(answers[1.0].norm(dim=-1), x.norm(dim=-1))  # a rotation of each
    torch.testing.assert_close(answers[0.5], (answers[1.0] + answers[0.0]) / 2)
    assert answers[0.0].var(dim=1).mean() < 0.5 * answers[1.0].var(dim=1).mean()


def test_the_shares_are_learned_and_the_first_are_one_of_all_attentions(make_setup: Any) -> None:
    def make() -> nn.Module:
        return nn.Sequential(*(Torch() for _ in range(4)))

    plan = isometry_of(make(), TIMES, blocks=list("0123"))
    assert plan is not None
    model = rotations(plan)(make_setup(model=make)).model()
    model(TIMES.inputs[0]).square().mean().backward()
    for block in model:
        assert block.attention.leadline_own.item() == 0.75
        assert block.attention.leadline_others.item() == 0.25
        assert block.attention.leadline_others.grad is not None


def test_a_copy_of_the_turned_model_is_a_model_of_its_own(make_setup: Any) -> None:
    model = turned(nn.Sequential(Torch(), Own(fused=True)), TIMES, make_setup, ["0", "1"])
    twin = copy.deepcopy(model)
    x = TIMES.inputs[0]
    torch.testing.assert_close(twin(x), model(x))
    with torch.no_grad():
        twin[0].attention.leadline_own.zero_()
        twin[1].leadline_own.zero_()
    assert not torch.allclose(twin(x), model(x))


# ------------------------------------------------------------------------------------ the rate


def test_the_trunk_gets_the_root_of_its_length_less(make_setup: Callable[..., Setup]) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), *(nn.Linear(6, 6) for _ in range(4)))

    plan = Isometry(blocks=tuple("1234"), turns=(), attentions=())
    setup = rotations(plan)(make_setup(model=make))
    model = setup.model()
    rates = {
        p: group["lr"] for group in setup.optimizer(model).param_groups for p in group["params"]
    }
    assert {rates[p] for p in model[0].parameters()} == {0.1}
    assert {rates[p] for p in model[1:].parameters()} == {0.05}
    assert len(rates) == len(list(model.parameters()))


def test_a_network_that_is_all_trunk_keeps_one_group(make_setup: Callable[..., Setup]) -> None:
    def make() -> nn.Module:
        return nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))

    plan = Isometry(blocks=tuple("0123"), turns=(), attentions=())
    setup = rotations(plan)(make_setup(model=make))
    groups = setup.optimizer(setup.model()).param_groups
    assert [group["lr"] for group in groups] == [0.05]
