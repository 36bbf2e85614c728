"""Remedies of sequence models: next tokens for targets, states read at the end, a tied head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from leadline.core.grafts import graft_before, graft_behind
from leadline.doctor.remedies.answers import behind_the_end
from leadline.doctor.remedies.batches import Mapped
from leadline.doctor.remedies.surgery import operated
from leadline.doctor.remedy import Remedy
from leadline.training.setup import Setup


def next_token_targets(*, data: int, loss: int) -> Remedy:
    """Targets such that the answer at each place is held against the token after it.

    As they are, target j is token j + `data`, and the loss holds the answer at place p against
    target p + `loss`. What marks a target that does not count is kept.
    """
    wanted = 1 - loss

    def apply(setup: Setup) -> Setup:
        change = _Shifted(data, wanted)
        held_out = None if setup.validation is None else Mapped(setup.validation, change)
        return replace(setup, batches=Mapped(setup.batches, change), validation=held_out)

    after = {0: "tokens", 1: "tokens[:, 1:]"}[wanted]
    before = {-1: "tokens one place back", 0: "tokens", 1: "tokens[:, 1:]"}.get(
        data, f"tokens[:, {data}:]"
    )
    return Remedy(
        title="the next token for the target of each place",
        apply=apply,
        lines=(
            f"- targets = {before}",
            f"+ targets = {after}" + ("  # the loss shifts them itself" if loss else ""),
        ),
    )


class _Shifted:
    """Turns targets [B, T] that are the tokens `data` places on into those `wanted` places on."""

    def __init__(self, data: int, wanted: int) -> None:
        self.data = data
        self.wanted = wanted

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets, a place shorter where the last token's successor is not known."""
        length = inputs.shape[1]
        columns = []
        for place in range(length):
            known, token = place + self.wanted - self.data, place + self.wanted
            if 0 <= known < length:
                columns.append(targets[:, known])
            elif token < length:
                columns.append(inputs[:, token].to(targets.dtype))
        return inputs[:, : len(columns)], torch.stack(columns, dim=1)


def lengths_of(rows: Tensor, filler: Tensor) -> Tensor:
    """How far sequences [B, T, ...] go before the filler begins, at least 1: [B].

    >>> lengths_of(torch.tensor([[3, 4, 0], [0, 0, 0]]), torch.tensor(0)).tolist()
    [2, 1]
    """
    known = ~behind_the_end(rows, filler.to(rows.device))
    return known.sum(dim=1).clamp_min(1)


def states_at_the_end(names: Sequence[str], filler: Tensor) -> Remedy:
    """Let recurrent layers stop at each sequence's end, and hold their last state from there on.

    `names` are modules of the kind of nn.LSTM; `filler` is what stands behind the ends of the
    model's first input. A model that reads the last place then reads the state at the end.
    """

    def change(model: nn.Module) -> None:
        ends = _Ends(filler)
        graft_before(model, ends)
        for name in names:
            layer = model.get_submodule(name)
            graft_before(layer, _Packed(ends))
            graft_behind(layer, _HeldOn(ends))

    return Remedy(
        title="read the state at each sequence's end",
        apply=lambda setup: operated(setup, change),
        lines=(
            "- states, last = lstm(x)",
            "+ packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)",
            "+ states, last = lstm(packed)",
        ),
    )


class _Ends:
    """Notes the lengths of what the model was given."""

    def __init__(self, filler: Tensor) -> None:
        self.filler = filler
        self.lengths: Tensor | None = None
        self.longest = 0

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.lengths = lengths_of(inputs[0], self.filler).cpu()
        self.longest = inputs[0].shape[1]


class _Packed:
    def __init__(self, ends: _Ends) -> None:
        self.ends = ends

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows, *states = inputs
        assert self.ends.lengths is not None, "noted by the model's hook"
        first = bool(getattr(module, "batch_first", False))
        if not isinstance(rows, Tensor) or rows.shape[1 if first else 0] != self.ends.longest:
            return None
        packed = pack_padded_sequence(
            rows, self.ends.lengths, batch_first=first, enforce_sorted=False
        )
        return (packed, *states)


class _HeldOn:
    def __init__(self, ends: _Ends) -> None:
        self.ends = ends

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        packed, *states = output
        if not isinstance(packed, PackedSequence):
            return None
        first = bool(getattr(module, "batch_first", False))
        rows, lengths = pad_packed_sequence(
            packed, batch_first=True, total_length=self.ends.longest
        )
        places = torch.arange(self.ends.longest)[None].minimum(lengths[:, None] - 1)
        index = places.to(rows.device)[:, :, None].expand(-1, -1, rows.shape[2])
        held = rows.gather(1, index)
        return (held if first else held.transpose(0, 1), *states)


def tied(embedding: str, head: str) -> Remedy:
    """Let the head have the embedding's weights themselves instead of a copy."""

    def change(model: nn.Module) -> None:
        weight: Any = model.get_submodule(embedding).weight
        model.get_submodule(head).weight = weight

    return Remedy(
        title=f"one weight for {embedding} and {head}",
        apply=lambda setup: operated(setup, change),
        lines=(
            f"- {head}.weight = nn.Parameter({embedding}.weight.clone())",
            f"+ {head}.weight = {embedding}.weight",
        ),
    )
