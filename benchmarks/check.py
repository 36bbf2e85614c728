"""The cost of `leadline.check` against one plain training step: time and peak memory.

    python benchmarks/check.py [--rounds 5] [resnet50] [gpt]

ResNet-50 at 224 x 224, batch 8, SGD with momentum; a GPT of 12 layers, width 768, 256 tokens, batch
8, AdamW. Time: a step and a check in turn in one process, medians and quartiles of their ratio.
Memory: the largest resident size of a fresh process that makes the model and does one step (or one
check, with the same optimizer), the other not at all. Bars: 4 times the time, 1.3 times the memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.check import check
from leadline.models.create import create_model

VOCABULARY = 50_257  # GPT-2's
TOKENS, WIDTH, DEPTH, HEADS, BATCH = 256, 768, 12, 12, 8


class Block(nn.Module):
    """A pre-norm transformer block with causal attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, time_, _ = x.shape
        q, k, v = (
            part.view(batch, time_, HEADS, -1).transpose(1, 2)
            for part in self.qkv(self.first(x)).split(WIDTH, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, time_, WIDTH))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class GPT(nn.Module):
    """GPT-2's shape: 12 layers, width 768, the head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.tokens.weight
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def language_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def build(name: str) -> tuple[nn.Module, Any, Callable[..., Tensor], torch.optim.Optimizer]:
    torch.manual_seed(0)
    if name == "gpt":
        model: nn.Module = GPT()
        tokens = torch.randint(0, VOCABULARY, (BATCH, TOKENS + 1))
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
        return model, (tokens[:, :-1], tokens[:, 1:]), language_loss, optimizer
    model = create_model("resnet50", num_classes=1000, in_chans=3, image_size=224)
    batch = torch.randn(8, 3, 224, 224), torch.randint(0, 1000, (8,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return model, batch, functional.cross_entropy, optimizer


def step(model: nn.Module, batch: Any, loss: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss(model(batch[0]), batch[1]).backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["resnet50", "gpt"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", choices=("step", "check"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(json.dumps(memory(arguments.models[0], arguments.memory_of)))
        return
    for name in arguments.models:
        compare_time(name, arguments.rounds)
        sizes = [_memory_in_a_process(name, what) for what in ("step", "check")]
        print(
            f"{name}: memory {sizes[1] / sizes[0]:.2f} times that of a step "
            f"({sizes[1]:,.0f} against {sizes[0]:,.0f} MiB)",
            flush=True,
        )


def compare_time(name: str, rounds: int) -> None:
    model, batch, loss, optimizer = build(name)
    step(model, batch, loss, optimizer)
    ratios, steps = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        step(model, batch, loss, optimizer)
        middle = time.perf_counter()
        checkup = check(model, batch, loss, optimizer=optimizer)
        ended = time.perf_counter()
        steps.append(middle - begun)
        ratios.append((ended - middle) / (middle - begun))
    low, median, high = statistics.quantiles(ratios, n=4)
    print(
        f"{name}: check takes {median:.2f} times a step (quartiles {low:.2f} to {high:.2f}, "
        f"n = {rounds}; a step {statistics.median(steps):.2f} s); "
        f"findings: {', '.join(f.cause for f in checkup.findings) or 'none'}",
        flush=True,
    )


def memory(name: str, what: str) -> float:
    """The largest resident size so far, in MiB, after two of the one or the other."""
    model, batch, loss, optimizer = build(name)
    for _ in range(2):
        if what == "step":
            step(model, batch, loss, optimizer)
        else:
            check(model, batch, loss, optimizer=optimizer)
        gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _memory_in_a_process(name: str, what: str) -> float:
    words = [sys.executable, __file__, name, "--memory-of", what]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return float(json.loads(said.splitlines()[-1]))


if __name__ == "__main__":
    main()
