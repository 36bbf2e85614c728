"""Tests that objects are known by themselves, and copied at first sight."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from leadline.doctor.recording.objects import (
    Cards,
    ModelCard,
    Serials,
    loader_card,
    model_card,
    optimizer_card,
)


def test_a_serial_number_is_never_given_again() -> None:
    serials = Serials()
    numbers = [serials.of(torch.zeros(2)) for _ in range(50)]
    kept = torch.zeros(2)
    assert len(set(numbers)) == 50
    assert serials.of(kept) == serials.of(kept) not in numbers


def test_a_model_is_copied_as_it_was_and_found_again() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    model[0].bias.requires_grad_(False)
    card = model_card(model, number=0, room=10_000, serials=Serials())
    with torch.no_grad():
        model[0].weight.zero_()
    assert card.initial is not None and bool(card.initial[0].weight.any())  # type: ignore[index]
    assert (card.frozen, card.norms, card.dropouts, card.trainable) == (("0.bias",), 1, 1, 3)
    cards: Cards[ModelCard] = Cards()
    cards.add(model, card)
    assert cards.find(model) is card and cards.find(nn.Linear(1, 1)) is None


def test_a_model_that_is_too_large_or_refuses_is_not_copied() -> None:
    class Single(nn.Linear):
        def __deepcopy__(self, memo: object) -> object:
            raise RuntimeError("there can be only one")

    large = model_card(nn.Linear(9, 9), number=0, room=8, serials=Serials())
    single = model_card(Single(1, 1), number=0, room=800, serials=Serials())
    assert large.initial is None and "more than a recording copies" in large.problem
    assert single.initial is None and "only one" in single.problem


def test_an_optimizer_tells_whether_it_has_a_memory_and_a_scale() -> None:
    weights = [nn.Parameter(torch.ones(2))]
    plain = torch.optim.SGD(weights, lr=0.1)
    heavy = torch.optim.SGD(weights, lr=0.1, momentum=0.9)
    adam = torch.optim.Adam(weights)
    cards = [
        optimizer_card(o, number=0, made=None, serials=Serials()) for o in (plain, heavy, adam)
    ]
    assert [card.remembers for card in cards] == [False, True, True]
    assert [card.adaptive for card in cards] == [False, False, True]


def test_a_loader_tells_its_order_and_the_part_it_draws_from() -> None:
    data = TensorDataset(torch.zeros(10, 1))
    part = Subset(Subset(data, range(0, 10, 2)), [0, 1])
    inner = loader_card(DataLoader(part, batch_size=2, shuffle=True), number=0)
    assert (inner.order, inner.part, inner.dataset) == ("random", frozenset({0, 2}), id(data))
    assert loader_card(DataLoader(data), number=0).order == "sequential"
    own = DataLoader(data, batch_sampler=[[0, 1], [2]])
    assert loader_card(own, number=0).order == "own"
