"""What a watch costs: trainings with and without `leadline.watch`, interleaved in one process.

    python benchmarks/watch.py --rounds 20
    python benchmarks/watch.py mlp gpt --mode compiled

Two copies of each network train in turn, a block of steps each, one of them watched at the default
cadence from its first step on. Prints the median ratio of the time per block, watched to not, with
its quartiles and n, and the ratio of all the time together. `cpu` is processor time, which other
processes on a busy machine do not lengthen. A block holds several samples: a ratio of blocks
without a sample would say nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

import leadline


class Block(nn.Module):
    """Attention and a two-layer network, each on a normalised input, each added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:  # B batch, T time, D width
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        return x + self.drop(self.mlp(self.norm2(x)))


class SmallGPT(nn.Module):
    """A language model of characters: 4 blocks of width 128."""

    def __init__(self, vocabulary: int = 64, width: int = 128, length: int = 64) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.ModuleList(Block(width, heads=4) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).flatten(0, 1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network with a batch, and how many steps make a block."""

    model: Callable[[], nn.Module]
    inputs: Tensor
    targets: Tensor
    steps: int


def cases() -> dict[str, Case]:
    """The three networks of the bar."""
    digits = torch.randint(10, (32,))
    tokens = torch.randint(64, (8, 64))
    return {
        "mlp": Case(
            model=lambda: nn.Sequential(
                *(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
            ),
            inputs=torch.randn(32, 32),
            targets=digits,
            steps=800,
        ),
        "gpt": Case(model=SmallGPT, inputs=tokens, targets=tokens.flatten(), steps=100),
        "resnet20": Case(
            model=lambda: leadline.create_model(
                "resnet20", num_classes=10, in_chans=3, image_size=32
            ),
            inputs=torch.randn(32, 3, 32, 32),
            targets=digits,
            steps=60,
        ),
    }


class Training:
    """One copy of a case, under way."""

    def __init__(self, case: Case, *, compiled: bool, watched: bool) -> None:
        torch.manual_seed(0)
        self.case = case
        model = case.model()
        self.model = torch.compile(model) if compiled else model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        self._update()  # what only the first step costs: memory, compilation
        self.watch = leadline.watch(self.model, self.optimizer) if watched else None

    def block(self) -> tuple[float, float]:
        """Wall and processor seconds of a block of steps."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(self.case.steps):
            loss = self._update()
            if self.watch is not None:
                self.watch.step(loss)
        return time.perf_counter() - wall, time.process_time() - cpu

    def _update(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(self.case.inputs), self.case.targets)
        loss.backward()
        self.optimizer.step()
        return loss


def compare(name: str, case: Case, *, mode: str, rounds: int) -> None:
    """Train both copies in turn and print the ratios."""
    plain, watched = (
        Training(case, compiled=mode == "compiled", watched=watched) for watched in (False, True)
    )
    seconds: list[list[tuple[float, float]]] = [[], []]
    for number in range(rounds):
        pair = [(0, plain), (1, watched)]
        for index, training in pair if number % 2 else reversed(pair):
            seconds[index].append(training.block())
    assert watched.watch is not None
    samples = len(watched.watch.history.steps)
    step = statistics.median(wall for wall, _ in seconds[0]) / case.steps
    print(f"{name}, {mode}: a step takes {1e3 * step:.3g} ms, {samples} samples in ", end="")
    print(f"{rounds * case.steps} steps, {100 * watched.watch.share:.2f} % by its own count")
    for clock, place in (("wall", 0), ("cpu", 1)):
        ratios = [w[place] / p[place] for p, w in zip(*seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        together = sum(w[place] for w in seconds[1]) / sum(p[place] for p in seconds[0])
        print(
            f"  {clock:<5}{middle:.3f} times the plain step (quartiles {low:.3f} to {high:.3f}, "
            f"n = {rounds}; all together {together:.3f})",
            flush=True,
        )
    watched.watch.close()


def main() -> None:
    """Compare each case in each mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    every = cases()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: {' '.join(every)}")
    parser.add_argument("--mode", choices=("eager", "compiled", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.cases) - set(every):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    torch.set_num_threads(options.threads)
    for name in options.cases or every:
        for mode in ("eager", "compiled") if options.mode == "both" else (options.mode,):
            torch.compiler.reset()
            compare(name, every[name], mode=mode, rounds=options.rounds)


if __name__ == "__main__":
    main()
