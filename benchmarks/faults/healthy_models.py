"""The networks of the healthy recipes, with the choices that a fault may get wrong as arguments.

B batch, T time, D width, V symbols. All give logits or plain numbers; those that read padded
sequences find the lengths themselves: padding is 0, in every feature.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Activation = Callable[[], nn.Module]


def mlp(
    *sizes: int,
    hidden: Activation = nn.ReLU,
    norm: bool = False,
    dropout: float = 0.0,
    ending: tuple[nn.Module, ...] = (),
) -> nn.Sequential:
    """Linear layers with `hidden` between them; `ending` follows the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        layers.append(nn.Linear(inputs, outputs))
        layers += [nn.BatchNorm1d(outputs)] if norm else []
        layers.append(hidden())
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]), *ending)


def convnet(
    *channels: int,
    classes: int,
    first: int = 1,
    norm: bool = True,
    per_stage: int = 1,
    hidden: Activation = nn.ReLU,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Stages of convolutions, each stage at half the resolution; an average over the picture."""
    layers: list[nn.Module] = []
    inputs = first
    for outputs in channels:
        for _ in range(per_stage):
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            layers += [nn.BatchNorm2d(outputs)] if norm else []
            layers.append(hidden())
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def plain_convnet(classes: int = 10, *, width: int = 8, dropout: float = 0.0) -> nn.Sequential:
    """Two convolutions and two dense layers for 28 x 28 pixels, without normalisation."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(98 * width, 64), nn.ReLU()),
        *([nn.Dropout(dropout)] if dropout else []),
        nn.Linear(64, classes),
    )


def segmenter(width: int = 8, *, norm: bool = True, per_stage: int = 1) -> nn.Sequential:
    """A small encoder and decoder: one logit per pixel of pictures with one channel."""

    def stage(inputs: int, outputs: int, *, stride: int = 1) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for part in range(per_stage):
            first = part == 0
            layers.append(
                nn.Conv2d(
                    inputs if first else outputs,
                    outputs,
                    3,
                    stride=stride if first else 1,
                    padding=1,
                )
            )
            layers += [nn.BatchNorm2d(outputs)] if norm else []
            layers.append(nn.ReLU())
        return layers

    return nn.Sequential(
        *stage(1, width),
        *stage(width, 2 * width, stride=2),
        *stage(2 * width, 2 * width),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        *stage(2 * width, width),
        nn.Conv2d(width, 1, 1),
    )


class Series(nn.Module):
    """Convolutions over time for series [B, T, D]; the mean over time goes into the head."""

    def __init__(self, inputs: int, outputs: int, *, width: int = 32, norm: bool = True) -> None:
        super().__init__()

        def stage(size: int) -> list[nn.Module]:
            norms = [nn.BatchNorm1d(width)] if norm else []
            return [nn.Conv1d(size, width, 5, padding=2), *norms, nn.ReLU()]

        self.body = nn.Sequential(*stage(inputs), *stage(width), nn.MaxPool1d(2), *stage(width))
        self.head = nn.Linear(width * 2, outputs)

    def forward(self, series: Tensor) -> Tensor:
        features = self.body(series.transpose(1, 2))  # [B, D, T / 2]
        return self.head(torch.cat([features.mean(2), features[:, :, -1]], dim=1))


class Reader(nn.Module):
    """A recurrent network over padded sequences; its state at each one's end goes into the head.

    `symbols` 0 takes numbers [B, T, D] instead of words [B, T]. `at_end` False reads the state at
    the last place of the batch instead, wherever a sequence ended.
    """

    def __init__(
        self,
        *,
        symbols: int,
        width: int,
        outputs: int,
        cell: type[nn.RNNBase] = nn.LSTM,
        features: int = 32,
        dropout: float = 0.0,
        at_end: bool = True,
        layers: int = 1,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, features, padding_idx=0) if symbols else None
        self.cell = cell(features, width, batch_first=True, num_layers=layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)
        self.at_end = at_end

    def forward(self, inputs: Tensor) -> Tensor:
        lengths = _lengths(inputs)
        features = inputs if self.embedding is None else self.embedding(inputs)
        states, _ = self.cell(self.dropout(features))  # [B, T, D]
        last = states[torch.arange(len(states)), lengths - 1] if self.at_end else states[:, -1]
        return self.head(self.dropout(last))


class PackedReader(Reader):
    """The same with packed sequences, which stop at each one's end."""

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs if self.embedding is None else self.embedding(inputs)
        packed = pack_padded_sequence(
            self.dropout(features), _lengths(inputs), batch_first=True, enforce_sorted=False
        )
        packed_states, _ = self.cell(packed)
        states, lengths = pad_packed_sequence(packed_states, batch_first=True)
        last = states[torch.arange(len(states)), lengths - 1]
        return self.head(self.dropout(last))


class Attentive(nn.Module):
    """A transformer encoder over padded words [B, T]; the mean over the words goes into the head.

    `batch_first` False hands [B, T, D] to layers that take the first axis for time.
    """

    def __init__(
        self,
        *,
        symbols: int,
        outputs: int,
        width: int = 32,
        length: int = 64,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width, padding_idx=0)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.1, batch_first=batch_first, norm_first=True
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        known = inputs != 0
        features = self.embedding(inputs) + self.position[: inputs.shape[1]]
        mask = None if not self.layer.self_attn.batch_first else ~known
        features = self.layer(features, src_key_padding_mask=mask)
        weights = known.unsqueeze(2).float()
        return self.head((features * weights).sum(1) / weights.sum(1))


def _lengths(inputs: Tensor) -> Tensor:
    """How far the sequences go before the padding begins, at least 1."""
    filled = inputs != 0 if inputs.ndim == 2 else (inputs != 0).any(dim=2)
    places = torch.arange(1, inputs.shape[1] + 1, device=inputs.device)
    return (filled * places).amax(dim=1).clamp(min=1).cpu()


class Block(nn.Module):
    """Causal attention and a two-layer network, each on a normalised input, each added to it."""

    def __init__(self, width: int, heads: int, *, causal: bool, norm: bool, residual: bool) -> None:
        super().__init__()
        make_norm = nn.LayerNorm if norm else nn.Identity
        self.norm1, self.norm2 = make_norm(width), make_norm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.heads, self.causal, self.residual = heads, causal, residual

    def forward(self, x: Tensor) -> Tensor:
        x = self._attend(self.norm1(x)) + (x if self.residual else 0)
        return self.dense(self.norm2(x)) + (x if self.residual else 0)

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=2)
        )
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(attended.transpose(1, 2).flatten(2))


class LanguageModel(nn.Module):
    """An embedding, a body [B, T, D] -> [B, T, D], and a head that shares the embedding's weights.

    `tied` False gives the head weights of its own; "copied" a copy of the embedding's.
    """

    def __init__(
        self,
        *,
        symbols: int,
        width: int,
        body: nn.Module,
        tied: bool | str = True,
        length: int = 0,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        nn.init.normal_(self.embedding.weight, std=0.02 if length else 0.1)
        self.position = nn.Parameter(0.02 * torch.randn(length, width)) if length else None
        self.body = body
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.head = nn.Linear(width, symbols, bias=False)
        if tied == "copied":
            self.head.weight = nn.Parameter(self.embedding.weight.detach().clone())
        elif tied:
            self.head.weight = self.embedding.weight

    def forward(self, symbols: Tensor) -> Tensor:
        features = self.embedding(symbols)
        if self.position is not None:
            features = features + self.position[: symbols.shape[1]]
        return self.head(self.norm(self.body(features)))


def gpt(
    *,
    symbols: int,
    width: int = 48,
    layers: int = 2,
    length: int = 64,
    causal: bool = True,
    tied: bool | str = True,
    norm: bool = True,
    residual: bool = True,
) -> LanguageModel:
    """A small GPT: pre-norm blocks, learned positions, tied head."""
    blocks = [Block(width, 4, causal=causal, norm=norm, residual=residual) for _ in range(layers)]
    return LanguageModel(
        symbols=symbols,
        width=width,
        body=nn.Sequential(*blocks),
        tied=tied,
        length=length,
        norm=norm,
    )


class States(nn.Module):
    """All states of a recurrent network, both directions added where it has two."""

    def __init__(self, width: int, cell: type[nn.RNNBase], *, causal: bool = True) -> None:
        super().__init__()
        self.cell = cell(width, width, batch_first=True, bidirectional=not causal)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cell(x)
        return states if states.shape == x.shape else sum(states.chunk(2, dim=2))


def recurrent_language_model(
    *,
    symbols: int,
    width: int = 96,
    cell: type[nn.RNNBase] = nn.LSTM,
    causal: bool = True,
    tied: bool | str = True,
) -> LanguageModel:
    """Predicts the next symbol from the states of a recurrent network."""
    return LanguageModel(
        symbols=symbols, width=width, body=States(width, cell, causal=causal), tied=tied
    )


class CausalConvolutions(nn.Module):
    """Residual convolutions over time that see what came before only."""

    def __init__(self, width: int, *, layers: int = 3, causal: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 3, dilation=2**i) for i in range(layers)
        )
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)  # [B, D, T]
        for i, layer in enumerate(self.layers):
            reach = 2 * 2**i
            before = reach if self.causal else reach // 2
            x = x + functional.gelu(layer(functional.pad(x, (before, reach - before))))
        return x.transpose(1, 2)


def convolutional_language_model(
    *, symbols: int, width: int = 64, causal: bool = True, tied: bool | str = True
) -> LanguageModel:
    """Predicts the next symbol with dilated convolutions."""
    return LanguageModel(
        symbols=symbols, width=width, body=CausalConvolutions(width, causal=causal), tied=tied
    )


class Composer(nn.Module):
    """Chords [B, T, notes] to the logits of the next ones, by an LSTM."""

    def __init__(self, notes: int, *, width: int = 96, causal: bool = True) -> None:
        super().__init__()
        self.enter = nn.Linear(notes, width)
        self.states = States(width, nn.LSTM, causal=causal)
        self.head = nn.Linear(width, notes)

    def forward(self, chords: Tensor) -> Tensor:
        return self.head(self.states(self.enter(chords).relu()))
