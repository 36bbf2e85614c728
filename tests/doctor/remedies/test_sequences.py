"""Tests of remedies for sequence models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.remedies.sequences import (
    lengths_of,
    next_token_targets,
    states_at_the_end,
    tied,
)

TOKENS = torch.arange(24).reshape(2, 12)


@pytest.mark.parametrize(("data", "loss"), [(0, 0), (2, 0), (-1, 0), (1, 1), (3, 0)])
def test_targets_become_the_next_tokens_or_those_that_the_loss_shifts(
    make_setup: Any, data: int, loss: int
) -> None:
    inputs, targets = TOKENS[:, 1:9], TOKENS[:, 1 + data : 9 + data]
    sick = make_setup(batches=[(inputs, targets)], validation=[(inputs, targets)])
    healed = next_token_targets(data=data, loss=loss)(sick)
    for batches in (healed.batches, healed.validation):
        ((shown, told),) = list(batches)
        assert shown.shape == told.shape and shown.shape[1] >= 7
        assert torch.equal(told, shown + 1 - loss)


def test_marks_of_targets_that_do_not_count_stay_with_their_tokens(make_setup: Any) -> None:
    targets = TOKENS[:, :8].clone()
    targets[:, 6:] = -100
    sick = make_setup(batches=[(TOKENS[:, :8], targets)])
    ((_, told),) = list(next_token_targets(data=0, loss=0)(sick).batches)
    assert (told[:, 5:] == -100).all() and (told[:, :5] == TOKENS[:, 1:6]).all()


def test_a_sequence_of_nothing_but_filler_has_one_place() -> None:
    rows = torch.zeros(2, 3, 4)
    rows[0, 1] = 1
    assert lengths_of(rows, torch.zeros(4)).tolist() == [2, 1]


class Reads(nn.Module):
    """Reads the last place of a recurrent layer, in either layout."""

    def __init__(self, *, first: bool, both: bool = False) -> None:
        super().__init__()
        self.cell = nn.GRU(2, 3, num_layers=2, batch_first=first, bidirectional=both)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cell(x if self.first else x.transpose(0, 1))
        return states[:, -1] if self.first else states[-1]


@pytest.mark.parametrize("first", [True, False])
def test_each_sequence_is_read_as_if_it_were_alone(make_setup: Any, first: bool) -> None:
    remedy = states_at_the_end(["cell"], torch.zeros(2))
    healed = remedy(make_setup(model=lambda: Reads(first=first))).model()
    rows = torch.randn(3, 5, 2)
    rows[0, 2:], rows[1, 4:] = 0, 0
    plain = Reads(first=first)
    plain.load_state_dict(healed.state_dict())
    alone = [plain(rows[i : i + 1, :length]) for i, length in enumerate((2, 4, 5))]
    torch.testing.assert_close(healed(rows), torch.cat(alone))
    torch.testing.assert_close(copy.deepcopy(healed)(rows), torch.cat(alone))


def test_a_layer_whose_sequences_were_shortened_before_is_left_alone(make_setup: Any) -> None:
    class Shortened(Reads):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:, ::2])

    remedy = states_at_the_end(["cell"], torch.zeros(2))
    healed = remedy(make_setup(model=lambda: Shortened(first=True))).model()
    plain = Shortened(first=True)
    plain.load_state_dict(healed.state_dict())
    rows = torch.randn(3, 6, 2)
    rows[:, 3:] = 0
    assert torch.equal(healed(rows), plain(rows))


def test_a_tied_head_is_one_parameter_that_learns_from_both(make_setup: Any) -> None:
    sick = make_setup(model=lambda: nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)))
    model = tied("0", "1")(sick).model()
    assert model[0].weight is model[1].weight
    assert len(list(model.parameters())) == 1
