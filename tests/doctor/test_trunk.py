"""Tests of the trunk: deep chains without a shortcut are found, those with one are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.trunk import FEWEST, differences, find_trunk
from leadline.measure.batch import Batch
from leadline.models.create import create_model

ROWS = Batch(args=(torch.randn(8, 6, generator=torch.Generator().manual_seed(0)),))
TIMES = Batch(args=(torch.randn(4, 10, 16, generator=torch.Generator().manual_seed(0)),))
IMAGES = Batch(args=(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)),))

Join = Callable[[Tensor, Tensor], Tensor]


class Chain(nn.Module):
    """Blocks whose outputs a function joins with what they were given, outside of the block."""

    def __init__(self, block: Callable[[], nn.Module], join: Join, *, count: int = 16) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(block() for _ in range(count))
        self.norm = nn.LayerNorm(8)
        self.gate = nn.Linear(8, 8)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = self.join(x, block(x))
        return x


class Attentive(nn.Module):
    """Attention and an MLP behind norms; `shortcut` adds what they were given."""

    def __init__(self, *, shortcut: bool) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.norm, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        h, _ = self.attention(h, h, h, need_weights=False)
        x = x + h if self.shortcut else h
        h = self.mlp(self.norm2(x))
        return x + h if self.shortcut else h


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU())


def alone(x: Tensor, branch: Tensor) -> Tensor:
    return branch


# ------------------------------------------------------------------------------- the chain itself


@pytest.mark.parametrize("count", [FEWEST, 30])
def test_a_chain_of_blocks_without_shortcuts_is_found_in_order(count: int) -> None:
    torch.manual_seed(0)
    trunk = find_trunk(Chain(dense, alone, count=count), ROWS)
    assert trunk is not None
    assert trunk.blocks == tuple(f"blocks.{i}" for i in range(count))
    assert len(trunk.leaving) == count


def test_layers_of_a_flat_network_are_blocks_too() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(14) for layer in (nn.Linear(8, 8), nn.Tanh())]
    trunk = find_trunk(nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, 2)), ROWS)
    assert trunk is not None
    assert trunk.blocks == tuple(str(1 + 2 * i) for i in range(14))


def test_eleven_blocks_are_not_deep() -> None:
    assert find_trunk(Chain(dense, alone, count=FEWEST - 1), ROWS) is None


def test_branches_side_by_side_are_no_chain() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList(nn.Linear(6, 6) for _ in range(20))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([branch(x) for branch in self.branches]).sum(0)

    assert find_trunk(Wide(), ROWS) is None


def test_one_block_called_again_and_again_is_no_chain() -> None:
    block = nn.Linear(6, 6)
    assert find_trunk(nn.Sequential(*[block] * 20), ROWS) is None


# ------------------------------------------------------------------------------------ shortcuts


@pytest.mark.parametrize(
    "join",
    [
        lambda x, branch: x + branch,
        lambda x, branch: x + 0.1 * functional.dropout(branch),
        lambda x, branch: functional.relu(x + branch),
        lambda x, branch: functional.layer_norm(x + branch, (8,)),
        lambda x, branch: torch.cat([x[:, :4], branch[:, 4:]], dim=1),
        lambda x, branch: torch.sigmoid(branch) * x,
    ],
    ids=["sum", "scaled and dropped", "rectified", "post-norm", "concatenation", "gate"],
)
def test_a_shortcut_around_the_blocks_is_seen_however_it_is_written(join: Join) -> None:
    assert find_trunk(Chain(dense, join), ROWS) is None


def test_a_shortcut_past_two_layers_covers_both() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(32))

        def forward(self, x: Tensor) -> Tensor:
            for first, second in zip(self.layers[::2], self.layers[1::2], strict=True):
                x = x + second(torch.relu(first(x)))
            return x

    assert find_trunk(Pairs(), ROWS) is None


def test_a_plain_stretch_in_front_of_residual_blocks_is_found_alone() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(30))

        def forward(self, x: Tensor) -> Tensor:
            for i, layer in enumerate(self.layers):
                x = torch.tanh(layer(x)) if i < 15 else x + layer(x)
            return x

    trunk = find_trunk(Half(), ROWS)
    assert trunk is not None
    assert trunk.blocks == tuple(f"layers.{i}" for i in range(15))


def test_something_added_to_every_block_is_no_shortcut() -> None:
    place = nn.Parameter(torch.randn(8))
    trunk = find_trunk(Chain(dense, lambda x, branch: branch + place), ROWS)
    assert trunk is not None
    assert len(trunk.blocks) == 16


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "resnet18"])
def test_residual_networks_have_no_trunk_without_shortcuts(name: str) -> None:
    assert find_trunk(create_model(name, in_chans=3, num_classes=10, image_size=32), IMAGES) is None


def test_a_transformer_is_found_without_residual_paths_only() -> None:
    torch.manual_seed(0)
    plain = find_trunk(nn.Sequential(*(Attentive(shortcut=False) for _ in range(14))), TIMES)
    assert plain is not None
    assert (len(plain.blocks), plain.rows) == (14, "positions")
    assert plain.kept < 1e-6
    assert find_trunk(nn.Sequential(*(Attentive(shortcut=True) for _ in range(14))), TIMES) is None


# ------------------------------------------------------------------------------ what is measured


def test_the_difference_is_that_of_the_formula() -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0]])  # m = 2: (1 + 1) / (1 + 9)
    assert differences(x) == {"examples": pytest.approx(0.2)}


def test_of_the_positions_only_the_later_half_counts() -> None:
    x = torch.ones(1, 8, 3)
    x[:, :4] = torch.randn(1, 4, 3)
    assert differences(x)["positions"] == 0.0
    x[:, 7] = -1.0
    assert differences(x)["positions"] == pytest.approx(0.75)  # m = 1/2: (3/4 + 9/4) / 4


def test_the_network_is_left_as_it_was() -> None:
    model = Chain(dense, alone).eval()
    before = [parameter.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    find_trunk(model, ROWS)
    assert not model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
