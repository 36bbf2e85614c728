"""Trunk: the long chain of like blocks that most of a deep network is, and what passes through it.

A trunk is found in any model, by three properties of its calls in one pass. Its blocks are modules
of one class, each called once, that hand on a tensor of the shape they were given; each block
depends on the one before it; and no shortcut leads past them. A shortcut is read from autograd's
graph: a way from what comes behind a block back to what came before it, either without passing the
block's output, or on which no weight and no attention lies. So `x + f(x)` is found wherever it is
written: in the block, in the code around it, as a gate or as a concatenation, before a norm or
behind it, with a weight of its own or without.

What passes is measured by what tells rows apart. With x of a row and m the mean of the rows,

    difference = sum |x - m|^2 / sum |x|^2

is near 1 for rows that have nothing in common, and 0 when they are all alike. Rows are the examples
and, in an output [B, T, D], also the positions of one example. Attention averages positions:
without shortcuts what tells them apart goes doubly exponentially with the depth (Dong et al. 2021,
'Attention is not all you need'), while every norm layer keeps the spread at 1, so that no measure
of size sees it. In a plain chain of dense layers the biases do the same to examples (Schoenholz et
al. 2017, 'Deep information propagation').

The surprising choice: of the positions only the later half counts. Behind a causal mask the first
position sees but itself, so that the early ones stay apart whatever the depth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.taps import ROOT, Call, Taps, tensors_in
from leadline.measure.batch import Batch

FEWEST = 12
"""Blocks without a shortcut from which on a chain is deep: VGG's convolutions end here."""

ASKED = 8
"""Examples that are sent through."""

LONGEST_WALK = 1000
"""Nodes of autograd's graph that are looked at from one block on."""

LONGEST_SHORTCUT = 6
"""Blocks that one shortcut leads past, at most: an Inception-ResNet's branch holds no more."""


_MIXING = (
    *("Addmm", "Mm", "Bmm", "Baddbmm", "Addmv", "Mv", "Linear", "Bilinear", "Einsum", "Dot"),
    *("Convolution", "Mkldnn", "Cudnn", "MiopenRnn", "ThnnFused", "Embedding", "Softmax"),
    *("LogSoftmax", "ScaledDotProduct", "NativeMultiHead"),
)
"""Operations behind which every output is a mixture, as their backward nodes begin."""


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """The blocks in the order in which they run, and the difference before and behind them.

    `rows` says between what the difference went most: 'examples' or 'positions'. `entering` is the
    difference in what the first block is given, `leaving` holds that in each block's output.
    """

    blocks: tuple[str, ...]
    rows: str
    entering: float
    leaving: tuple[float, ...]

    @property
    def kept(self) -> float:
        """The share of the difference that the whole trunk leaves."""
        return self.leaving[-1] / self.entering


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """One call of a module that hands on a tensor of the shape it was given."""

    name: str
    module: nn.Module
    source: Any  # the nodes of autograd's graph before and behind it; None for a leaf
    target: Any
    given: dict[str, float]
    came: dict[str, float]


def find_trunk(model: nn.Module, batch: Batch) -> Trunk | None:
    """The longest trunk without shortcuts; None where no chain is as long as that.

    Cost: 1 forward pass of 8 examples. The model is left as found.

    >>> layers = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(16)]
    >>> trunk = find_trunk(nn.Sequential(*layers), Batch(args=(torch.randn(8, 8),)))
    >>> len(trunk.blocks), trunk.rows, trunk.kept < 1e-4
    (16, 'examples', True)
    """
    runs = _runs(model, batch)
    best: list[_Run] = []
    for chain in _chains(runs):
        plain = _without_shortcut(chain)
        if len(plain) >= FEWEST and (not best or _size(plain) > _size(best)):
            best = plain
    if not best:
        return None
    first = best[0].given
    known = [rows for rows, value in first.items() if value > 0 and rows in best[-1].came]
    if not known:
        return None
    rows = min(known, key=lambda rows: best[-1].came[rows] / first[rows])
    return Trunk(
        blocks=tuple(run.name for run in best),
        rows=rows,
        entering=first[rows],
        leaving=tuple(run.came[rows] for run in best),
    )


def differences(tensor: Tensor) -> dict[str, float]:
    """What tells the rows of an output [B, ...] apart, as a share of it: see the formula above.

    >>> differences(torch.ones(4, 3))["examples"], differences(torch.eye(4))["examples"]
    (0.0, 0.75)
    """
    values = tensor.detach().double()
    found = {"examples": _difference(values, axis=0)}
    if values.ndim == 3 and values.shape[1] > 2:
        found["positions"] = _difference(values[:, values.shape[1] // 2 :], axis=1)
    return found


def _difference(values: Tensor, *, axis: int) -> float:
    own = values - values.mean(dim=axis, keepdim=True)
    whole = float(values.square().sum())
    return float(own.square().sum()) / whole if whole > 0 else 0.0


def _runs(model: nn.Module, batch: Batch) -> list[_Run]:
    """The calls of the modules that hold a weight, keep the shape, and are called once."""
    started: list[tuple[Tensor | None, Any, dict[str, float]]] = []
    runs: list[_Run] = []
    calls: dict[str, int] = {}

    def enter(call: Call, inputs: tuple[Any, ...]) -> None:
        given = next((t for t in tensors_in(inputs) if t.is_floating_point()), None)
        if given is None or not _holds_weight(call.module) or call.name == ROOT:
            started.append((None, None, {}))
            return
        started.append((given, given.grad_fn, differences(given)))

    def leave(call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        given, source, before = started.pop()
        calls[call.name] = calls.get(call.name, 0) + 1
        came = next((t for t in tensors_in(output) if t.is_floating_point()), None)
        if given is None or came is None or given.shape != came.shape or came.ndim < 2:
            return
        runs.append(
            _Run(
                name=call.name,
                module=call.module,
                source=source,
                target=came.grad_fn,
                given=before,
                came=differences(came),
            )
        )

    with Taps(model) as taps, torch.enable_grad():
        taps.on_input(enter)
        taps.on_output(leave)
        batch.first(ASKED).forward(model)
    return [run for run in runs if calls[run.name] == 1]


def _holds_weight(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters())


def _chains(runs: Sequence[_Run]) -> list[list[_Run]]:
    """Calls of one class, each depending on the one before; of nested ones the outer only."""
    classes: dict[type[nn.Module], list[_Run]] = {}
    for run in runs:
        classes.setdefault(type(run.module), []).append(run)
    chains = []
    for members in classes.values():
        outer = [r for r in members if not any(_inside(r.name, o.name) for o in members)]
        for group in (outer, members if len(outer) < FEWEST else []):
            chain = [r for r in group if not any(_inside(o.name, r.name) for o in group)]
            if len(chain) >= FEWEST:
                chains += _dependent(chain)
    return chains


def _inside(inner: str, outer: str) -> bool:
    return inner.startswith(f"{outer}.")


def _dependent(members: Sequence[_Run]) -> list[list[_Run]]:
    """The members cut where one does not depend on the one before it: branches side by side."""
    chains: list[list[_Run]] = [[]]
    for run in members:
        before = chains[-1][-1] if chains[-1] else None
        if before is not None and before.target not in _behind(run.source):
            chains.append([])
        chains[-1].append(run)
    return [chain for chain in chains if len(chain) >= FEWEST]


def _without_shortcut(chain: Sequence[_Run]) -> list[_Run]:
    """The longest part of the chain past whose blocks no shortcut leads."""
    covered = [False] * len(chain)
    before = [_behind(run.source) for run in chain]
    ends = [*(run.source for run in chain[1:]), chain[-1].target]
    for last, end in enumerate(ends):
        unweighted = _behind(end, through_weights=False)
        for first in range(last, max(0, last - LONGEST_SHORTCUT + 1) - 1, -1):
            if all(covered[first : last + 1]):
                continue
            around = _behind(end, without=[run.target for run in chain[first : last + 1]])
            met = (unweighted | around) & before[first]
            if any(_operation(node) != "AccumulateGrad" for node in met):
                covered[first : last + 1] = [True] * (last + 1 - first)
    best: list[_Run] = []
    part: list[_Run] = []
    for run, past in zip(chain, covered, strict=True):
        part = [] if past else [*part, run]
        best = part if len(part) > len(best) else best
    return best


def _behind(node: Any, *, through_weights: bool = True, without: Sequence[Any] = ()) -> set[Any]:
    """The nodes that autograd comes to from this one, but for ways through some of them."""
    closed = set(without) | {None}
    if node in closed:
        return set()
    seen, waiting = {node}, deque([node])
    while waiting and len(seen) < LONGEST_WALK:
        here = waiting.popleft()
        if not through_weights and _operation(here).startswith(_MIXING):
            continue
        for following, _ in here.next_functions:
            if following not in closed and following not in seen:
                seen.add(following)
                waiting.append(following)
    return seen


def _operation(node: Any) -> str:
    name: str = node.name().rpartition("::")[2]
    return name


def _size(chain: Sequence[_Run]) -> tuple[int, int]:
    """The weights in it; of chains with the same ones, the outer modules count as larger."""
    weights = sum(p.numel() for run in chain for p in run.module.parameters())
    return weights, -chain[0].name.count(".")
