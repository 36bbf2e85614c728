"""Tests of what sequences and the models that read them give away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from leadline.doctor.causes.suspected.sequences import (
    certain,
    data_shift,
    filler_of,
    suspicions,
)
from leadline.doctor.patient import Patient


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 50, (64, 20))


def shifting(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy of a loss that shifts its targets by itself."""
    return functional.cross_entropy(outputs[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


def test_targets_that_are_the_inputs_are_named(
    patient_for: Any, named: Any, gpt: Any, tokens: Tensor, language_loss: Any
) -> None:
    patient = patient_for(gpt, (tokens[:, :16], tokens[:, :16]), loss=language_loss)
    assert named(certain(patient)) == ["error labels_shifted"]


def test_targets_two_places_on_are_named(
    patient_for: Any, named: Any, gpt: Any, tokens: Tensor, language_loss: Any
) -> None:
    patient = patient_for(gpt, (tokens[:, :16], tokens[:, 2:18]), loss=language_loss)
    assert named(certain(patient)) == ["error labels_shifted"]


def test_targets_that_the_loss_shifts_once_more_are_named(
    patient_for: Any, named: Any, gpt: Any, tokens: Tensor
) -> None:
    patient = patient_for(gpt, (tokens[:, :16], tokens[:, 1:17]), loss=shifting)
    assert named(certain(patient)) == ["error labels_shifted"]


@pytest.mark.parametrize("data", [0, 2, -1])
@pytest.mark.parametrize("loss", ["plain", "shifting"])
def test_the_remedy_holds_each_place_against_the_next_token(
    patient_for: Any, gpt: Any, tokens: Tensor, language_loss: Any, data: int, loss: str
) -> None:
    ahead = data + 1 if loss == "shifting" else data
    pair = tokens[:, 2:18], tokens[:, 2 + data : 18 + data]
    patient = patient_for(gpt, pair, loss=shifting if loss == "shifting" else language_loss)
    found = list(certain(patient))
    assert len(found) == (ahead != 1)
    for finding in found:
        inputs, targets = next(iter(finding.change(patient.setup).batches))
        places = min(inputs.shape[1], 14)
        wanted = tokens[:32, 3:] if loss == "plain" else tokens[:32, 2:]
        assert torch.equal(targets[:, :places], wanted[:, :places])
        assert torch.equal(inputs, tokens[:32, 2 : 2 + inputs.shape[1]])
        assert not list(certain(Patient(finding.change(patient.setup), seconds=2)))


def test_next_tokens_are_healthy_whoever_shifts_them(
    patient_for: Any, gpt: Any, tokens: Tensor, language_loss: Any
) -> None:
    plain = patient_for(gpt, (tokens[:, :16], tokens[:, 1:17]), loss=language_loss)
    inside = patient_for(gpt, (tokens[:, :16], tokens[:, :16]), loss=shifting)
    assert not [*certain(plain), *certain(inside), *suspicions(plain)]


def test_a_model_that_sees_every_place_may_give_back_what_it_is_shown(
    patient_for: Any, gpt: Any, tokens: Tensor, language_loss: Any
) -> None:
    pair = tokens[:, :16], tokens[:, :16]
    patient = patient_for(lambda: gpt((False, False)), pair, loss=language_loss)
    assert not list(certain(patient))


def test_tokens_that_are_all_alike_say_nothing_of_a_shift() -> None:
    same = torch.ones(4, 8, dtype=torch.long)
    assert data_shift(same, same) is None


class Reader(nn.Module):
    """Reads words with an LSTM: its last place, its final state, the mean, or the packed end."""

    def __init__(self, reads: str) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 16, padding_idx=0)
        self.cell = nn.LSTM(16, 24, batch_first=True)
        self.head = nn.Linear(24, 2)
        self.reads = reads

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        lengths = (words != 0).sum(1).clamp_min(1)
        if self.reads == "packed":
            x = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, (final, _) = self.cell(x)
        if self.reads == "last":
            return self.head(states[:, -1])
        if self.reads == "mean":
            return self.head(states.mean(1))
        if self.reads == "masked":
            return self.head(states[torch.arange(len(words)), lengths - 1])
        return self.head(final[-1])


def reviews(*, first: bool = False) -> tuple[Tensor, Tensor]:
    """Words from 1 to 29, 0 behind 4 to 30 of them (or before); whether the first is above 15."""
    words = torch.randint(1, 30, (512, 30))
    labels = (words[:, 0] > 15).long()
    behind = torch.arange(30)[None] >= (4 + torch.arange(512) % 27)[:, None]
    words[behind] = 0
    return (words.flip(1) if first else words), labels


@pytest.mark.parametrize("reads", ["last", "final"])
def test_a_state_read_behind_the_end_is_named(patient_for: Any, named: Any, reads: str) -> None:
    (found,) = named(certain(patient_for(lambda: Reader(reads), reviews())))
    assert found.endswith("state_read_at_padding")


@pytest.mark.parametrize("reads", ["packed", "masked", "mean"])
def test_a_state_read_at_the_end_is_healthy(patient_for: Any, reads: str) -> None:
    assert not list(certain(patient_for(lambda: Reader(reads), reviews())))


def test_padding_before_the_words_is_healthy(patient_for: Any) -> None:
    assert not list(certain(patient_for(lambda: Reader("last"), reviews(first=True))))


@pytest.mark.parametrize("reads", ["last", "final"])
def test_the_remedy_reads_what_a_packed_network_reads(patient_for: Any, reads: str) -> None:
    patient = patient_for(lambda: Reader(reads), reviews())
    (finding,) = certain(patient)
    torch.manual_seed(1)
    healed = finding.change(patient.setup).model()
    torch.manual_seed(1)
    packed = Reader("packed")
    words = reviews()[0][:40]
    torch.testing.assert_close(healed(words), packed(words))
    assert not list(certain(Patient(finding.change(patient.setup), seconds=2)))


def test_reading_at_the_end_trains_better(patient_for: Any) -> None:
    patient = patient_for(lambda: Reader("last"), reviews(), epochs=8)
    (finding,) = certain(patient)
    treated, without = patient.arm(finding.change), patient.arm()
    assert treated.training.error < 0.7 * without.training.error


def test_black_rows_of_a_picture_are_not_taken_for_padding(digits: tuple[Tensor, Tensor]) -> None:
    columns = digits[0].unflatten(1, (8, 8)).transpose(1, 2)  # the outer ones are black in most
    assert bool((columns[:, -1] == 0).all(1).float().mean() > 0.5)
    assert filler_of(columns) is None


def test_frames_of_zeros_behind_sounds_are_taken_for_padding() -> None:
    frames = torch.randn(32, 12, 5)
    frames[torch.arange(12)[None] >= (4 + torch.arange(32) % 8)[:, None]] = 0
    assert torch.equal(filler_of(frames), torch.zeros(5))


def language_model(tie: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Embedding(50, 16), nn.LayerNorm(16), nn.Linear(16, 50, bias=False))
        if tie == "copied":
            model[2].weight = nn.Parameter(model[0].weight.detach().clone())
        elif tie == "tied":
            model[2].weight = model[0].weight
        return model

    return build


def test_a_head_that_copies_the_embedding_is_named_and_tied(
    patient_for: Any, named: Any, text: Any, language_loss: Any
) -> None:
    patient = patient_for(language_model("copied"), text, loss=language_loss)
    assert named(certain(patient)) == ["warning weight_tying_broken"]
    (finding,) = certain(patient)
    healed = finding.change(patient.setup).model()
    assert healed[2].weight is healed[0].weight
    assert len(list(healed.parameters())) == 3


@pytest.mark.parametrize("tie", ["tied", "apart"])
def test_a_head_that_is_tied_or_meant_apart_is_healthy(
    patient_for: Any, text: Any, language_loss: Any, tie: str
) -> None:
    assert not list(certain(patient_for(language_model(tie), text, loss=language_loss)))
