"""The networks that the doctor's tests look at, and a check that must leave everything as found."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from leadline.doctor.check import check

TOKENS = 50


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test begins with the same random numbers."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@pytest.fixture
def verdict() -> Callable[..., list[str]]:
    """Check, and name what was found: `["error double_softmax"]`, nothing for a healthy network.

    Every check of the tests also has to leave model, gradients, buffers, modes, optimizer and
    random streams as they were.
    """

    def ask(
        model: nn.Module, batch: Any, loss: Any = None, *, optimizer: Optimizer | None = None
    ) -> list[str]:
        before = state_of(model, optimizer)
        findings = check(model, batch, loss, optimizer=optimizer).findings
        assert_same(before, state_of(model, optimizer))
        return [f"{finding.severity} {finding.cause}" for finding in findings]

    return ask


@pytest.fixture
def left_as_found() -> Callable[..., Any]:
    """A snapshot of a model, an optimizer and the random streams; calling it again compares."""

    def remember(model: nn.Module, optimizer: Optimizer | None = None) -> Callable[[], None]:
        before = state_of(model, optimizer)
        return lambda: assert_same(before, state_of(model, optimizer))

    return remember


def state_of(model: nn.Module, optimizer: Optimizer | None) -> dict[str, Any]:
    """All that a check may not change, as copies."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    lazy = nn.parameter.is_lazy
    numpy_state: Any = np.random.get_state()
    return {
        "values": {n: t.detach().clone() for n, t in tensors.items() if not lazy(t)},
        "gradients": {
            n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()
        },
        "identities": {n: id(t) for n, t in tensors.items()},
        "gradient identities": {n: id(p.grad) for n, p in model.named_parameters()},
        "trainable": {n: p.requires_grad for n, p in model.named_parameters()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "hooks": {n: hooks_on(m) for n, m in model.named_modules()},
        "tensor hooks": {n: len(t._backward_hooks or ()) for n, t in model.named_parameters()},
        "random": (
            torch.get_rng_state(),
            random.getstate(),
            numpy_state[1].tolist(),
            numpy_state[2],
        ),
        "optimizer": optimizer and optimizer_state(optimizer),
    }


def hooks_on(module: nn.Module) -> int:
    tables = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    return sum(len(getattr(module, f"_{table}")) for table in tables)


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's settings, its state by number of the parameter, and what holds them."""
    plain = optimizer.state_dict()
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    extra = {k: v for k, v in vars(optimizer).items() if isinstance(v, int | float | str)}
    copied = {
        number: {k: v.clone() if isinstance(v, Tensor) else v for k, v in entry.items()}
        for number, entry in plain["state"].items()
    }
    return {"groups": plain["param_groups"], "state": copied, "held": held, "extra": extra}


def assert_same(before: Any, after: Any, *, path: str = "") -> None:
    """Bit for bit, with the place of the first difference in the message."""
    if isinstance(before, Tensor):
        same = before.dtype == after.dtype and torch.equal(
            before.nan_to_num(nan=1.25), after.nan_to_num(nan=1.25)
        )
        assert same, f"{path} changed"
    elif isinstance(before, dict):
        assert list(before) == list(after), f"{path}: other entries"
        for key in before:
            assert_same(before[key], after[key], path=f"{path}/{key}")
    elif isinstance(before, tuple | list):
        assert len(before) == len(after), f"{path}: other length"
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            assert_same(one, other, path=f"{path}/{index}")
    else:
        assert before == after, f"{path} changed"


@pytest.fixture
def mlp() -> Callable[..., nn.Sequential]:
    """A dense network: 20 numbers to 5 classes, unless told otherwise."""

    def build(
        inputs: int = 20,
        outputs: int = 5,
        *,
        depth: int = 3,
        width: int = 64,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [nn.Linear(inputs, width), activation()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    return build


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    """64 examples of 20 numbers, each of one of 5 classes."""
    return torch.randn(64, 20), torch.arange(64) % 5


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    """16 pictures, each of one of 10 classes."""
    return torch.randn(16, 3, 16, 16), torch.arange(16) % 10


@pytest.fixture
def conv_net() -> Callable[..., nn.Sequential]:
    """Two convolutions with batch norm and in-place ReLU; `head` layers follow the last one."""

    def build(*head: nn.Module, classes: int = 10) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, classes),
            *head,
        )

    return build


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.project = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            part.view(batch, time, 4, -1).transpose(1, 2)
            for part in self.qkv(self.first(x)).split(width, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class GPT(nn.Module):
    """Two blocks and a head; `causal[i]` says whether block i looks back only."""

    def __init__(self, causal: tuple[bool, ...] = (True, True)) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(TOKENS, 32), nn.Embedding(16, 32)
        self.blocks = nn.ModuleList(Block(causal=each) for each in causal)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, TOKENS, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@pytest.fixture
def gpt() -> type[GPT]:
    """A small language model."""
    return GPT


@pytest.fixture
def text() -> tuple[Tensor, Tensor]:
    """8 sequences of 16 tokens, and for each position the next one."""
    tokens = torch.randint(0, TOKENS, (8, 17))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.fixture
def language_loss() -> Callable[[Tensor, Tensor], Tensor]:
    """The cross entropy over all positions."""
    return lambda outputs, targets: functional.cross_entropy(
        outputs.flatten(0, 1), targets.flatten()
    )


@pytest.fixture
def timeless() -> Callable[[Any], Any]:
    """Plain values without what a clock told: what is left is the same in every run."""

    def strip(plain: Any) -> Any:
        if isinstance(plain, dict):
            kept = {k: v for k, v in plain.items() if k not in ("seconds", "cost")}
            return {key: strip(value) for key, value in kept.items()}
        return [strip(value) for value in plain] if isinstance(plain, list | tuple) else plain

    return strip
