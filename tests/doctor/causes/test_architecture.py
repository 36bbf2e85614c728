"""Tests of the architecture faults: outputs that do not fit, leaks from examples or the future."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.check import check


class Mixer(nn.Module):
    """A network whose hidden numbers go through any function on their way."""

    def __init__(self, mix: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 32), nn.Linear(32, 5)
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mix(functional.relu(self.first(x))))


def test_a_cross_entropy_over_one_output_can_learn_nothing(verdict: Any, mlp: Any) -> None:
    batch = torch.randn(64, 20), torch.zeros(64, dtype=torch.long)
    assert verdict(mlp(outputs=1), batch, nn.CrossEntropyLoss())[0] == "error output_units_wrong"
    mended = torch.randn(64, 20), (torch.arange(64) % 2).float()[:, None]
    assert verdict(mlp(outputs=1), mended, nn.BCEWithLogitsLoss()) == []


def test_a_softmax_over_one_output_is_always_1(verdict: Any, mlp: Any) -> None:
    network = mlp(outputs=1)
    batch = torch.randn(64, 20), (torch.arange(64) % 2).float()[:, None]
    squashed = nn.Sequential(network, nn.Softmax(dim=1))
    assert verdict(squashed, batch, nn.BCELoss())[0] == "error output_activation_wrong"
    assert verdict(nn.Sequential(network, nn.Sigmoid()), batch, nn.BCELoss()) == []


MIXING = {
    "softmax over the batch": lambda x: torch.softmax(x, dim=0) * len(x),
    "mean over the batch": lambda x: x - x.mean(dim=0),
    "reshape that mixes the axes": lambda x: x.T.reshape(len(x), -1),
    "norm over the batch": lambda x: x / (x.norm(dim=0) + 1e-6),
    "attention over the batch": lambda x: functional.scaled_dot_product_attention(x, x, x),
    "shift by one example": lambda x: x.roll(1, dims=0),
    "cumulative sum": lambda x: x.cumsum(dim=0),
}


@pytest.mark.parametrize("kind", MIXING)
def test_what_mixes_the_examples_of_a_batch_is_a_leak(verdict: Any, rows: Any, kind: str) -> None:
    assert verdict(Mixer(MIXING[kind]), rows, nn.CrossEntropyLoss()) == ["warning batch_leak"]


class TimeFirst(nn.Module):
    """A tagger of sequences in torch's default layout, [T, B, F]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


def test_time_first_is_no_leak_between_examples(verdict: Any) -> None:
    batch = torch.randn(12, 6, 32), torch.arange(72).reshape(12, 6) % 4

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    assert verdict(TimeFirst(), batch, loss) == []


APART = {
    "softmax over the features": lambda x: torch.softmax(x, dim=1) * 32,
    "mean over the features": lambda x: x - x.mean(dim=1, keepdim=True),
    "a reshape there and back": lambda x: x.reshape(len(x), 4, 8).transpose(1, 2).flatten(1),
    "norm over the features": lambda x: x / (x.norm(dim=1, keepdim=True) + 1e-6),
    "attention over parts": lambda x: functional.scaled_dot_product_attention(
        *[x.view(len(x), 4, 8)] * 3
    ).flatten(1),
}


@pytest.mark.parametrize("kind", APART)
def test_what_keeps_the_examples_apart_is_none(verdict: Any, rows: Any, kind: str) -> None:
    assert verdict(Mixer(APART[kind]), rows, nn.CrossEntropyLoss()) == []


def test_the_leak_is_said_to_enter_behind_the_last_layer_it_is_seen_in(rows: Any) -> None:
    finding = check(Mixer(MIXING["shift by one example"]), rows, nn.CrossEntropyLoss()).findings[0]
    assert finding.layers == ("relu",)
    assert finding.evidence[0].measured == float("inf"), "the own example has no part in it at all"


class Recurrent(nn.Module):
    """The last state of an LSTM, classified."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 16, batch_first=batch_first)
        self.last = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.lstm(x)[0][:, -1])


def test_an_lstm_without_batch_first_reads_the_batch_as_time(verdict: Any) -> None:
    batch = torch.randn(32, 10, 6), torch.arange(32) % 4
    loss = nn.CrossEntropyLoss()
    assert verdict(Recurrent(batch_first=False), batch, loss) == ["error batch_leak"]
    assert verdict(Recurrent(batch_first=True), batch, loss) == []
    leak = check(Recurrent(batch_first=False), batch, loss).findings[0]
    assert "batch_first" in leak.remedy


def test_a_transformer_without_batch_first_reads_the_batch_as_time(verdict: Any) -> None:
    class Encoder(nn.Module):
        def __init__(self, *, batch_first: bool) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, dropout=0.0)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.last = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.encoder(x).mean(dim=1))

    batch = torch.randn(16, 6, 8), torch.arange(16) % 3
    assert verdict(Encoder(batch_first=False), batch, nn.CrossEntropyLoss()) == ["error batch_leak"]
    assert verdict(Encoder(batch_first=True), batch, nn.CrossEntropyLoss()) == []


def test_a_batch_norm_without_running_statistics_mixes_as_it_was_told(
    verdict: Any, conv_net: Any, images: Any
) -> None:
    network = conv_net()
    network[1] = nn.BatchNorm2d(16, track_running_stats=False)
    assert verdict(network, images, nn.CrossEntropyLoss()) == []


def test_the_missing_mask_of_a_language_model_is_found_and_the_layer_named(
    verdict: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    assert verdict(gpt(causal=(True, False)), text, language_loss) == ["error causal_mask_missing"]
    assert verdict(gpt(causal=(True, True)), text, language_loss) == []
    for causal, where in (((True, False), "blocks.1"), ((False, True), "blocks.0")):
        finding = check(gpt(causal=causal), text, language_loss).findings[0]
        assert finding.layers[0].startswith(where)


def test_a_model_that_shifts_its_labels_by_itself_needs_the_mask_too(
    verdict: Any, gpt: Any, text: Any
) -> None:
    class OwnLoss(nn.Module):
        def __init__(self, *, causal: bool) -> None:
            super().__init__()
            self.gpt = gpt(causal=(causal, causal))

        def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.gpt(input_ids)
            shifted = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
            return {"loss": functional.cross_entropy(*shifted), "logits": logits}

    batch = {"input_ids": text[0], "labels": text[0].clone()}
    assert verdict(OwnLoss(causal=False), batch) == ["error causal_mask_missing"]
    assert verdict(OwnLoss(causal=True), batch) == []


class Convolution(nn.Module):
    """A language model of one convolution, padded on the left or on both sides."""

    def __init__(self, *, left: int) -> None:
        super().__init__()
        self.tokens, self.mix = nn.Embedding(50, 16), nn.Conv1d(16, 32, 3)
        self.head = nn.Linear(32, 50)
        self.padding = (left, 2 - left)

    def forward(self, tokens: Tensor) -> Tensor:
        x = functional.pad(self.tokens(tokens).transpose(1, 2), self.padding)
        return self.head(functional.relu(self.mix(x)).transpose(1, 2))


def test_a_convolution_padded_on_both_sides_sees_the_next_token(
    verdict: Any, text: Any, language_loss: Any
) -> None:
    assert verdict(Convolution(left=1), text, language_loss) == ["error causal_mask_missing"]
    assert verdict(Convolution(left=2), text, language_loss) == []


@pytest.mark.parametrize("both_ways", [False, True])
def test_an_lstm_language_model_may_look_back_only(
    verdict: Any, text: Any, language_loss: Any, both_ways: bool
) -> None:
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(50, 16)
            self.lstm = nn.LSTM(16, 16, batch_first=True, bidirectional=both_ways)
            self.head = nn.Linear(32 if both_ways else 16, 50)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.lstm(self.tokens(tokens))[0])

    expected = ["error causal_mask_missing"] if both_ways else []
    assert verdict(Language(), text, language_loss) == expected


def test_an_encoder_that_tags_or_restores_tokens_is_not_accused(
    verdict: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    encoder = gpt(causal=(False, False))
    tokens = text[0]
    tags = torch.randint(0, 50, tokens.shape)
    assert verdict(encoder, (tokens, tags), language_loss) == []
    masked, labels = tokens.clone(), torch.full_like(tokens, -100)
    hidden = torch.rand(tokens.shape) < 0.3
    labels[hidden] = tokens[hidden]
    masked[hidden] = 0
    assert verdict(encoder, (masked, labels), language_loss) == []


def test_parameters_without_a_part_in_the_loss_are_a_note(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp()
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []
    network.spare = nn.Linear(20, 5)
    network.forward = lambda x: nn.Sequential.forward(network[:5], x)
    assert verdict(network, rows, nn.CrossEntropyLoss()) == ["note parameters_unused"]
    finding = check(network, rows, nn.CrossEntropyLoss()).findings[0]
    assert finding.layers == ("spare.weight", "spare.bias")
    total = sum(p.numel() for p in network.parameters())
    assert finding.evidence[0].measured == pytest.approx(105 / total)


def test_an_encoder_that_returns_its_own_loss_is_not_accused(verdict: Any, gpt: Any) -> None:
    class Restores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = gpt(causal=(False, False))

        def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.encoder(input_ids)
            loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
            return {"loss": loss, "logits": logits}

    tokens = torch.randint(0, 50, (8, 16))
    for labels in (torch.randint(0, 50, (8, 16)), tokens.clone()):
        assert verdict(Restores(), {"input_ids": tokens, "labels": labels}) == []


def test_a_loss_that_shifts_the_tokens_by_itself_needs_the_mask(
    verdict: Any, gpt: Any, text: Any
) -> None:
    def loss(outputs: Tensor, tokens: Tensor) -> Tensor:
        return functional.cross_entropy(outputs[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    batch = text[0], text[0]
    ahead, back = gpt(causal=(False, False)), gpt()
    assert verdict(ahead, batch, loss) == ["error causal_mask_missing"]
    assert verdict(back, batch, loss) == []


def test_a_network_that_compares_its_examples_on_purpose_is_healthy(verdict: Any, mlp: Any) -> None:
    class Similar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = mlp(outputs=16), mlp(outputs=16)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            left, right = (functional.normalize(z, dim=1) for z in (self.left(x), self.right(y)))
            return left @ right.T / 0.5

    batch = torch.randn(16, 20), torch.randn(16, 20), torch.arange(16)
    assert verdict(Similar(), batch, nn.CrossEntropyLoss()) == []
