"""Influence: which examples and which positions an output depends on, asked of gradients.

An example's output must not depend on another example of its batch once the model is in
evaluation mode, and the output at a position of a causal model not on later positions. The
gradient of one output with respect to every input says which it depends on: where the dependence
is absent the gradient is exactly zero, since every path of the graph is multiplied by zero or is
not there. Inputs that are integers, token numbers say, are followed from the tables that they are
looked up in, or from the first layer that makes floating numbers of them.

The output that is asked is weighted by random numbers: a plain sum would not see what a softmax or
a normalisation over the same axis does, since their sums are constant.

The surprising choice: where no example depends on another, each example is cut at a position of its
own, so that one backward pass asks about as many positions as there are examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.taps import Call, Taps
from leadline.measure.batch import Batch, main_output, read_batch
from leadline.measure.layers import Layer, on_layer

EXAMPLES = 4
"""How many examples are run, each of which is asked; a shift by a multiple of them is not seen."""

ALL_CUTS, CUTS = 16, 12
"""Sequences up to the first length are cut between all positions, longer ones at that many."""


LOOKED_UP = (nn.Embedding, nn.EmbeddingBag)
"""Layers that make floating numbers of integers."""


@dataclass(frozen=True, kw_only=True)
class Influence:
    """How strongly an output hangs on what should not matter to it.

    `examples` is the largest gradient of one example's output with respect to another example,
    divided by the largest with respect to its own; `future` the same for later positions against
    the position itself and earlier ones. Zero means that no dependence was found at the places
    asked: it proves that there is none between the examples asked, and across the cuts asked, at
    these inputs. NaN means that the shapes do not tell examples or positions apart, or that the
    output pairs examples on purpose ([B, B]).
    `example_layers` and `future_layers` name the layers at whose output the dependence is still
    there, in depth order: it enters behind the last of them.
    """

    examples: float
    future: float
    example_layers: tuple[str, ...] = ()
    future_layers: tuple[str, ...] = ()


def influence(model: nn.Module, batch: Any, *, seed: int = 0) -> Influence:
    """Measure on which examples and positions the output depends, in evaluation mode.

    The batch needs two examples; the first four are run, and each is asked on which of the others
    its output depends. Positions are those of an output `[B, T, ...]` whose inputs are
    `[B, T, ...]` too; whether what comes before a cut depends on what comes after it is asked for
    all T - 1 cuts where T is 16 or less, else for the one in the middle and 11 drawn by `seed`.
    Both searches end at the first dependence that they find.

    Cost: 1 forward and up to 4 + 3 backward passes of four examples, by the inputs only; up to
    4 + 12 (15 for short sequences) where examples do depend on each other.
    Read it: `examples` above 0 is a leak across the batch; `future` above 0 is natural for an
    encoder and an error in a language model; 0 says that none was found at the places asked.

    >>> independent = influence(nn.Linear(2, 2), torch.ones(3, 2))
    >>> independent.examples
    0.0
    >>> class AcrossTheBatch(nn.Module):
    ...     def forward(self, x):
    ...         return torch.softmax(x, dim=0)
    >>> influence(AcrossTheBatch(), torch.rand(3, 2)).examples > 0
    True
    """
    given = read_batch(batch, model=model)
    count = given.examples
    given = given.first(EXAMPLES)
    generator = torch.Generator().manual_seed(seed)
    with Taps(model) as taps, torch.enable_grad():
        model.eval()
        listener = _Entries(taps, examples=given.examples, given=_lengths(given))
        output = main_output(listener.follow(given, model))
        timed = listener.positions(output)
        output = output if timed is None else timed
        if output.ndim == 0 or len(output) != given.examples or count < 2:
            return Influence(examples=math.nan, future=math.nan)
        weights = torch.rand(output.shape, generator=generator) + 0.5
        signs = torch.randint(0, 2, output.shape, generator=generator) * 2 - 1
        weighted = output * (weights * signs).to(output)
        across = listener.ask(_examples_asked(weighted))
        independent = across.share == 0
        if across.share > 0 and _pairs_examples(model, given, output):
            across = _Answer(share=math.nan, layers=())
        ahead = _Answer(share=math.nan, layers=())
        if timed is not None:
            ahead = listener.ask(_cuts_asked(weighted, generator, apart=independent))
    return Influence(
        examples=across.share,
        future=ahead.share,
        example_layers=across.layers,
        future_layers=ahead.layers,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Question:
    """Outputs, summed, and the examples [B] or positions [B, T] that they must not depend on."""

    asked: Tensor
    forbidden: Tensor


def _examples_asked(weighted: Tensor) -> Iterator[_Question]:
    """Each example against all the others."""
    every = torch.arange(len(weighted), device=weighted.device)
    for example in range(len(weighted)):
        yield _Question(asked=weighted[example].sum(), forbidden=every != example)


def _cuts_asked(
    weighted: Tensor, generator: torch.Generator, *, apart: bool
) -> Iterator[_Question]:
    """What comes before a cut against what comes after; with `apart`, one cut in each example."""
    count, length = weighted.shape[:2]
    middle = length // 2 - 1
    drawn = torch.randperm(length - 1, generator=generator).tolist()
    cuts = [middle, *(cut for cut in drawn if cut != middle)]
    cuts = cuts if length <= ALL_CUTS else cuts[:CUTS]
    together = count if apart else 1
    positions = torch.arange(length, device=weighted.device)
    for start in range(0, len(cuts), together):
        some = cuts[start : start + together]
        lasts = [some[example % len(some)] for example in range(count)]
        later = positions > torch.tensor(lasts, device=weighted.device)[:, None]
        outputs = weighted.reshape(count, length, -1).sum(dim=-1)
        yield _Question(asked=outputs.masked_fill(later, 0).sum(), forbidden=later)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    share: float
    layers: tuple[str, ...]


class _Entries:
    """The tensors at which floating numbers enter, and every layer's output behind them."""

    def __init__(self, taps: Taps, *, examples: int, given: set[int]) -> None:
        self._examples = examples
        self._given = given
        self._outputs: list[tuple[str, Tensor]] = []
        self._entries: list[Tensor] = []
        on_layer(taps, self._heard)
        taps.replace_output(self._enter)

    def _heard(self, layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        if output.requires_grad and not isinstance(layer.module, LOOKED_UP):
            self._outputs.append((layer.name, output))

    def _enter(self, call: Call, output: Any) -> Any:
        """What is looked up in a table is where token numbers enter, if the table is frozen too."""
        if not isinstance(call.module, LOOKED_UP) or not isinstance(output, Tensor):
            return None
        leaf = output.detach().requires_grad_()
        self._entries.append(leaf)
        self._outputs.append((call.name, leaf))
        return leaf.clone()

    def follow(self, batch: Batch, model: nn.Module) -> Any:
        leaves = [tensor.detach().clone() for tensor in batch.inputs]
        for tensor in leaves:
            if tensor.is_floating_point():
                tensor.requires_grad_()
        self._entries += [tensor for tensor in leaves if tensor.requires_grad]
        # A copy is handed in: a model may write into its input, and nothing may into a leaf.
        outputs = batch.with_inputs(*(tensor.clone() for tensor in leaves)).forward(model)
        if not self._entries:  # integers: from the layer that first makes numbers of them
            self._entries = [tensor for _, tensor in self._outputs[:1]]
        return outputs

    def positions(self, output: Tensor) -> Tensor | None:
        """The output as `[B, T, ...]` where it and the entries share a time axis, or None."""
        lengths = {entry.shape[1] for entry in self._entries if entry.ndim >= 2} & self._given
        for length in lengths:
            if output.ndim == 2 and length > 3 and len(output) == self._examples * length:
                return output.reshape(self._examples, length, -1)
        if output.ndim >= 3 and output.shape[1] in lengths and output.shape[1] > 3:
            return output
        return None

    def ask(self, questions: Iterable[_Question]) -> _Answer:
        """The gradient on the forbidden part of the entries; where there is one, of every layer."""
        answer = _Answer(share=math.nan, layers=())
        if not self._entries:
            return answer
        for question in questions:
            if not question.asked.requires_grad:
                return _Answer(share=0.0, layers=())
            shares = self._shares(question, self._entries)
            share = max((s for s in shares if not math.isnan(s)), default=math.nan)
            answer = _Answer(share=share, layers=())
            if share > 0:
                return _Answer(share=share, layers=self._layers_behind(question))
        return answer

    def _layers_behind(self, question: _Question) -> tuple[str, ...]:
        names = [name for name, tensor in self._outputs if tensor.requires_grad]
        layers = [tensor for _, tensor in self._outputs if tensor.requires_grad]
        shares = self._shares(question, layers)
        return tuple(name for name, share in zip(names, shares, strict=True) if share > 0)

    def _shares(self, question: _Question, tensors: list[Tensor]) -> list[float]:
        found = torch.autograd.grad(question.asked, tensors, retain_graph=True, allow_unused=True)
        return [_share(gradient, question.forbidden) for gradient in found]


def _share(gradient: Tensor | None, forbidden: Tensor) -> float:
    """The largest gradient on what is forbidden over the largest on what is allowed."""
    if gradient is None or gradient.numel() == 0:
        return 0.0
    if gradient.shape[: forbidden.ndim] != forbidden.shape:
        return math.nan
    size = gradient.abs().float().reshape(*forbidden.shape, -1).amax(dim=-1)
    forbidden = forbidden.to(size.device)
    most, own = float(size[forbidden].max()), float(size[~forbidden].max())
    if most == 0:
        return 0.0
    return most / own if own else math.inf


def _pairs_examples(model: nn.Module, batch: Batch, output: Tensor) -> bool:
    """Whether the output has a place for each pair of examples, as similarities do: [B, B]."""
    if output.ndim < 2 or output.shape[1] != batch.examples:
        return False
    fewer = batch.first(batch.examples - 1)
    with torch.no_grad():
        other = main_output(fewer.with_inputs(*(t.clone() for t in fewer.inputs)).forward(model))
    return other.ndim >= 2 and other.shape[1] == fewer.examples


def _lengths(batch: Batch) -> set[int]:
    return {tensor.shape[1] for tensor in batch.inputs if tensor.ndim >= 2}
