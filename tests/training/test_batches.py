"""Any iterable of batches can say where it is and go there."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from leadline.core.errors import TrainingError
from leadline.training.batches import ReplayedBatches, positioned


def make_loader() -> DataLoader:
    data = TensorDataset(torch.arange(12), torch.arange(12))
    return DataLoader(data, batch_size=3, shuffle=True)


def test_a_replayed_epoch_goes_on_with_the_batches_not_yet_used() -> None:
    torch.manual_seed(0)
    batches = ReplayedBatches(make_loader())
    whole = [inputs.tolist() for inputs, _ in batches]
    torch.manual_seed(0)
    first = ReplayedBatches(make_loader())
    used = [inputs.tolist() for inputs, _ in itertools.islice(first, 2)]
    second = ReplayedBatches(make_loader())
    second.load_state_dict(first.state_dict())
    rest = [inputs.tolist() for inputs, _ in second]
    assert used + rest == whole


def test_what_knows_its_own_position_is_left_alone() -> None:
    replayed = ReplayedBatches([])
    assert positioned(replayed) is replayed


def test_batches_without_a_length_are_refused_with_the_reason() -> None:
    with pytest.raises(TrainingError, match="a generator without a length"):
        len(ReplayedBatches(x for x in ()))
