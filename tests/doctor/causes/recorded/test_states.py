"""Tests that a best state that was kept without a copy is found, and a copy is healthy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from leadline.doctor.causes.recorded.states import signs
from leadline.doctor.record import record

Loader = DataLoader[Any]
Keep = Callable[[nn.Module], Any]


def train(loader: Loader, keep: Keep) -> nn.Module:
    """Keep the state behind the first epoch, train two more, and go back to it."""
    model = nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = None
    for epoch in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        if epoch == 0:
            state = keep(model)
    model.load_state_dict(state)
    return model


def test_a_state_kept_by_reference_is_proven_and_its_remedy_keeps_the_first(
    loader: Loader,
) -> None:
    def keep(model: nn.Module) -> Any:
        return model.state_dict()

    with record() as tape:
        train(loader, keep)
    (finding,) = signs(tape)
    assert (finding.cause, finding.proven) == ("best_state_by_reference", True)
    assert finding.evidence[0].measured == 32
    assert finding.change is not None and finding.change.rerun is not None
    kept: list[Any] = []

    def remember(model: nn.Module) -> Any:
        kept.append(model.weight.detach().clone())  # type: ignore[operator]
        return model.state_dict()

    with record() as healed, finding.change.rerun():
        model = train(loader, remember)
    assert torch.equal(model.weight, kept[0])  # type: ignore[arg-type]
    assert list(signs(healed)) == []


def test_checkpoints_of_later_epochs_do_not_hide_it(loader: Loader) -> None:
    model = nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    best: Any = None
    with record() as tape:
        for epoch in range(3):
            for inputs, targets in loader:
                optimizer.zero_grad()
                functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            best = model.state_dict() if epoch == 0 else best
            copy.deepcopy(model.state_dict())  # to a file, say
        model.load_state_dict(best)
    (finding,) = signs(tape)
    assert finding.cause == "best_state_by_reference"
    assert finding.evidence[0].measured == 32


def test_a_dictionary_of_the_same_tensors_is_no_copy(loader: Loader) -> None:
    with record() as tape:
        train(loader, lambda model: {k: v.cpu() for k, v in model.state_dict().items()})
    assert [finding.cause for finding in signs(tape)] == ["best_state_by_reference"]


def test_copies_and_states_of_other_models_are_healthy(loader: Loader) -> None:
    with record() as tape:
        train(loader, lambda model: copy.deepcopy(model.state_dict()))
        train(loader, lambda model: {k: v.clone() for k, v in model.state_dict().items()})
        other = nn.Linear(64, 10)
        other.load_state_dict(train(loader, lambda m: copy.deepcopy(m.state_dict())).state_dict())
    assert list(signs(tape)) == []
