"""Influence: which examples and which positions an output depends on, proven by gradients.

An example's output must not depend on another example of its batch once the model is in
evaluation mode, and the output at a position of a causal model not on later positions. The
gradient of one output with respect to every input says which it depends on: where the dependence
is absent the gradient is exactly zero, since every path of the graph is multiplied by zero or is
not there. Inputs that are integers, token numbers say, are followed from the tables that they are
looked up in, or from the first layer that makes floating numbers of them.

The output that is asked is weighted by random numbers: a plain sum would not see what a softmax or
a normalisation over the same axis does, since their sums are constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.taps import Call, Taps
from leadline.measure.batch import Batch, main_output, read_batch
from leadline.measure.layers import Layer, on_layer

EXAMPLES = 3
"""How many examples are asked: one whose output is followed, and neighbours on both sides."""


LOOKED_UP = (nn.Embedding, nn.EmbeddingBag)
"""Layers that make floating numbers of integers."""


@dataclass(frozen=True, kw_only=True)
class Influence:
    """How strongly an output hangs on what should not matter to it.

    `examples` is the largest gradient of one example's output with respect to another example,
    divided by the largest with respect to its own; `future` the same for later positions against
    the position itself and earlier ones. Zero means proven independent; NaN that the shapes do not
    tell examples or positions apart, or that the output pairs examples on purpose ([B, B]).
    `example_layers` and `future_layers` name the layers at whose output the dependence is still
    there, in depth order: it enters behind the last of them.
    """

    examples: float
    future: float
    example_layers: tuple[str, ...] = ()
    future_layers: tuple[str, ...] = ()


def influence(model: nn.Module, batch: Any, *, seed: int = 0) -> Influence:
    """Measure on which examples and positions the output depends, in evaluation mode.

    The batch needs two examples; three are used. Positions are those of an output `[B, T, ...]`
    whose inputs are `[B, T, ...]` too. Cost: 1 forward and 2 backward passes of three examples.
    Read it: `examples` above 0 is a leak across the batch; `future` above 0 is natural for an
    encoder and an error in a language model.

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
        middle = given.examples // 2
        across = listener.ask(weighted[middle].sum(), example=middle)
        if across.share > 0 and _pairs_examples(model, given, output):
            across = _Answer(share=math.nan, layers=())
        ahead = _Answer(share=math.nan, layers=())
        if timed is not None:
            last = output.shape[1] // 2 - 1
            ahead = listener.ask(weighted[middle, : last + 1].sum(), position=last)
    return Influence(
        examples=across.share,
        future=ahead.share,
        example_layers=across.layers,
        future_layers=ahead.layers,
    )


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

    def ask(
        self, asked: Tensor, *, example: int | None = None, position: int | None = None
    ) -> _Answer:
        """The gradient on the forbidden part of the entries; where there is one, of every layer."""
        if not self._entries:
            return _Answer(share=math.nan, layers=())
        if not asked.requires_grad:
            return _Answer(share=0.0, layers=())
        names = [name for name, tensor in self._outputs if tensor.requires_grad]
        layers = [tensor for _, tensor in self._outputs if tensor.requires_grad]
        shares = self._shares(asked, self._entries, example=example, position=position)
        share = max((s for s in shares if not math.isnan(s)), default=math.nan)
        if not share > 0:
            return _Answer(share=share, layers=())
        within = self._shares(asked, layers, example=example, position=position)
        return _Answer(
            share=share,
            layers=tuple(name for name, entry in zip(names, within, strict=True) if entry > 0),
        )

    def _shares(
        self, asked: Tensor, tensors: list[Tensor], *, example: int | None, position: int | None
    ) -> list[float]:
        found = torch.autograd.grad(asked, tensors, retain_graph=True, allow_unused=True)
        return [self._share(g, example=example, position=position) for g in found]

    def _share(
        self, gradient: Tensor | None, *, example: int | None, position: int | None
    ) -> float:
        """The largest gradient on what is forbidden over the largest on what is allowed."""
        if gradient is None:
            return 0.0
        if gradient.ndim == 0 or len(gradient) != self._examples:
            return math.nan
        size = gradient.abs().float()
        if example is not None:
            allowed = size[example].max()
            forbidden = torch.cat([size[:example], size[example + 1 :]]).max()
        else:
            assert position is not None
            if gradient.ndim < 2 or gradient.shape[1] <= position + 1:
                return math.nan
            if gradient.shape[1] not in self._given:
                return math.nan
            allowed, forbidden = size[:, : position + 1].max(), size[:, position + 1 :].max()
        if float(forbidden) == 0:
            return 0.0
        return float(forbidden / allowed) if float(allowed) else math.inf


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
