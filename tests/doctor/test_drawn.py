"""Tests of drawn batches: both arms see the same, and their source is left where it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from leadline.core.errors import MeasurementError
from leadline.core.seeds import seed_everything
from leadline.data.examples import ArrayExamples
from leadline.data.loader import Loader
from leadline.doctor import drawn as source_of_drawn
from leadline.doctor.drawn import Drawn
from leadline.training.batches import Positioned


def numbered(count: int) -> TensorDataset:
    """Examples whose input is their number."""
    return TensorDataset(torch.arange(count)[:, None].float(), torch.arange(count))


def numbers(batches: list[Any]) -> list[list[int]]:
    return [targets.tolist() for _, targets in batches]


class Without(Dataset[Any]):
    """Any iterable of batches, without a length; `fails` is the batch that raises."""

    def __init__(self, count: int, *, fails: int | None = None) -> None:
        self.count = count
        self.fails = fails
        self.passes = 0

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        for number in range(self.count):
            if number == self.fails:
                raise OSError("the disk is gone")
            yield number


# ---------------------------------------------------------------------------------- what is drawn


def test_epochs_follow_one_another() -> None:
    assert Drawn([1, 2, 3], seed=0).take(8) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_what_was_taken_once_is_the_beginning_of_what_is_taken_later() -> None:
    loader = DataLoader(numbered(64), batch_size=8, shuffle=True)
    drawn = Drawn(loader, seed=3)
    one, twenty, five = drawn.take(1), drawn.take(20), drawn.take(5)
    assert numbers(one) == numbers(twenty)[:1]
    assert numbers(five) == numbers(twenty)[:5]


def test_a_shuffled_loader_gives_each_epoch_an_order_of_its_own() -> None:
    drawn = Drawn(DataLoader(numbered(32), batch_size=8, shuffle=True), seed=0)
    batches = numbers(drawn.take(8))
    first, second = ([n for batch in part for n in batch] for part in (batches[:4], batches[4:]))
    assert sorted(first) == sorted(second) == list(range(32))
    assert first != second


def test_the_batches_are_those_that_a_training_with_the_seed_sees() -> None:
    """The oracle is the plain loop: seed everything, then one epoch behind the other."""
    loader = DataLoader(numbered(32), batch_size=8, shuffle=True)
    seed_everything(5)
    expected = [batch for _ in range(3) for batch in loader]
    assert numbers(Drawn(loader, seed=5).take(12)) == numbers(expected)


def test_what_a_training_does_ahead_of_its_first_batch_is_done_first() -> None:
    """The oracle is the plain loop: seed, build the model, then draw."""
    loader = DataLoader(numbered(32), batch_size=8, shuffle=True)

    def build() -> torch.nn.Module:
        return torch.nn.Linear(7, 5)

    seed_everything(5)
    build()
    expected = [batch for _ in range(2) for batch in loader]
    assert numbers(Drawn(loader, seed=5, ahead=build).take(8)) == numbers(expected)
    assert numbers(Drawn(loader, seed=5).take(8)) != numbers(expected)


def test_the_seed_decides_what_is_drawn() -> None:
    loader = DataLoader(numbered(64), batch_size=8, shuffle=True)
    takes = [numbers(Drawn(loader, seed=seed).take(8)) for seed in (0, 0, 1)]
    assert takes[0] == takes[1] != takes[2]


def test_random_augmentation_is_the_same_again() -> None:
    class Noisy(Dataset[Any]):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> tuple[Tensor, float, float]:
            return torch.randn(2), random.random(), float(np.random.rand())

    def flat(batches: list[Any]) -> list[float]:
        return [float(x) for batch in batches for part in batch for x in part.flatten()]

    loader = DataLoader(Noisy(), batch_size=4)
    drawn = Drawn(loader, seed=1)
    assert flat(drawn.take(2)) == flat(drawn.take(5)[:2])
    assert drawn.limits == []


# ------------------------------------------------------------------------- as it was found: nothing


def streams() -> tuple[Any, ...]:
    state: Any = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), state[1].tolist(), state[2]


def own_generator() -> Any:
    return DataLoader(
        numbered(64), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(7)
    )


def own_sampler() -> Any:
    data = numbered(64)
    sampler = RandomSampler(data, generator=torch.Generator().manual_seed(7))
    return DataLoader(data, batch_size=8, sampler=sampler)


def plain_loader() -> Any:
    return DataLoader(numbered(64), batch_size=8, shuffle=True)


@pytest.mark.parametrize("make", [plain_loader, own_generator, own_sampler])
def test_the_random_streams_stand_where_they_stood(make: Callable[[], Any]) -> None:
    loader = make()
    before = streams()
    drawn = Drawn(loader, seed=0)
    drawn.take(3)
    drawn.take(20)
    assert streams() == before


@pytest.mark.parametrize("make", [plain_loader, own_generator, own_sampler])
def test_a_training_behind_it_sees_what_it_would_have_seen(make: Callable[[], Any]) -> None:
    torch.manual_seed(11)
    expected = numbers(list(make()))
    loader = make()
    torch.manual_seed(11)
    Drawn(loader, seed=0).take(20)
    assert numbers(list(loader)) == expected


def test_a_loader_of_leadline_keeps_its_position() -> None:
    pictures = ArrayExamples(torch.zeros(64, 1, 2, 2, dtype=torch.uint8), torch.arange(64))
    loader, twin = (
        Loader(
            pictures, batch_size=8, seed=3, mean=(0.0,), std=(1.0,), device="cpu", num_classes=64
        )
        for _ in range(2)
    )
    assert isinstance(loader, Positioned)
    for one in (loader, twin):
        iterator = iter(one)
        for _ in range(3):
            next(iterator)
    before = loader.state_dict()
    Drawn(loader, seed=0).take(20)
    assert loader.state_dict() == before
    assert numbers(list(loader)) == numbers(list(twin))


def test_a_source_is_put_back_after_an_error_too() -> None:
    class Failing(Dataset[Any]):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> Tensor:
            raise ValueError("no such file")

    generator = torch.Generator().manual_seed(7)
    loader = DataLoader(Failing(), batch_size=8, shuffle=True, generator=generator)
    own, before = generator.get_state(), streams()
    with pytest.raises(MeasurementError):
        Drawn(loader, seed=0).take(1)
    assert torch.equal(generator.get_state(), own)
    assert streams() == before


def test_what_is_written_into_the_drawn_batches_does_not_reach_the_users_own() -> None:
    own = [(torch.ones(3), torch.zeros(3)), {"x": torch.ones(3), "names": ["a"]}, torch.ones(3)]

    class Persistent:
        def __iter__(self) -> Iterator[Any]:
            return iter(own)

    for source in (own, Persistent()):
        pair, mapping, alone = Drawn(source, seed=0).take(3)
        for tensor in (*pair, mapping["x"], alone):
            tensor.fill_(9.0)
        assert mapping["names"] == ["a"]
    assert own[0][0].sum() == 3 and own[0][1].sum() == 0  # type: ignore[index, union-attr]
    assert own[1]["x"].sum() == 3 and own[2].sum() == 3  # type: ignore[index, union-attr, call-overload]


def test_what_a_list_holds_in_every_epoch_is_the_same_copy_each_time() -> None:
    """A network that writes into a list's batches finds in epoch 2 what it wrote in epoch 1."""
    pair = (torch.ones(3), torch.zeros(3))
    drawn = Drawn([pair, pair], seed=0).take(6)
    assert all(batch is drawn[0] for batch in drawn)
    assert drawn[0][0] is not pair[0]


# --------------------------------------------------------------------------------------- its length


def test_the_length_is_what_len_says() -> None:
    assert Drawn([1, 2, 3], seed=0).per_epoch == 3


def test_without_len_the_length_is_known_when_an_epoch_ended() -> None:
    drawn = Drawn(Without(5), seed=0)
    assert drawn.per_epoch is None
    drawn.take(3)
    assert drawn.per_epoch is None
    drawn.take(7)
    assert drawn.per_epoch == 5


# ----------------------------------------------------------------------------- sources that are odd


def test_a_generator_is_drawn_to_its_end_and_said_to_be_gone() -> None:
    source = (number for number in range(5))
    drawn = Drawn(source, seed=0)
    assert drawn.once
    assert drawn.take(2) == [0, 1]
    assert drawn.take(4) == [0, 1, 2, 3]
    assert drawn.take(7) == [0, 1, 2, 3, 4, 0, 1]
    assert drawn.per_epoch == 5
    assert drawn.limits == [
        "the batches can be run through only once: the ones drawn here are gone for the training; "
        "pass a list or a DataLoader"
    ]


def test_only_as_much_of_a_generator_is_drawn_as_is_asked_for() -> None:
    source = (number for number in range(5))
    Drawn(source, seed=0).take(2)
    assert list(source) == [2, 3, 4]


def test_making_it_draws_nothing() -> None:
    source = Without(5)
    Drawn(source, seed=0)
    assert source.passes == 0


def test_batches_that_come_out_differently_each_time_are_said_to() -> None:
    class Unrepeatable:
        def __init__(self) -> None:
            self.own = random.Random(0)

        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Iterator[Tensor]:
            return (torch.tensor(self.own.random()) for _ in range(4))

    drawn = Drawn(Unrepeatable(), seed=0)
    drawn.take(1)
    assert drawn.limits == []
    drawn.take(4)
    drawn.take(9)
    assert drawn.limits == [
        "the batches come out differently each time they are run through: what was seen here is "
        "one of many courses of the training"
    ]


def test_a_nan_in_a_batch_does_not_make_it_another() -> None:
    drawn = Drawn([torch.tensor(float("nan")), torch.tensor(1.0)], seed=0)
    drawn.take(1)
    drawn.take(2)
    assert drawn.limits == []


def test_batches_that_end_with_an_error_are_used_as_far_as_they_came() -> None:
    source = Without(10, fails=3)
    drawn = Drawn(source, seed=0)
    assert drawn.take(7) == [0, 1, 2, 0, 1, 2, 0]
    assert drawn.limits == ["the batches ended after 3 with OSError: the disk is gone"]
    assert source.passes == 1


def test_batches_that_fail_at_once_are_an_error() -> None:
    with pytest.raises(MeasurementError) as caught:
        Drawn(Without(10, fails=0), seed=0).take(1)
    assert caught.value.expected == "batches that can be run through"
    assert caught.value.received == "OSError: the disk is gone"
    assert "for batch in batches" in caught.value.remedy


def test_an_iterable_whose_iter_fails_is_an_error_of_the_same_words() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Any]:
            raise FileNotFoundError("no folder of that name")

    with pytest.raises(MeasurementError) as caught:
        Drawn(Broken(), seed=0).take(1)
    assert caught.value.received == "FileNotFoundError: no folder of that name"


@pytest.mark.parametrize("empty", [[], iter(()), DataLoader(numbered(4), 8, drop_last=True)])
def test_empty_batches_are_an_error(empty: Any) -> None:
    with pytest.raises(MeasurementError) as caught:
        Drawn(empty, seed=0).take(1)
    assert caught.value.expected == "a Setup with at least one batch"
    assert caught.value.received == "batches that are empty"
    assert "drop_last" in caught.value.remedy


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_of_drawn, "MEMORY", 3 * 4 * 100)
    batches = [torch.full((100,), float(n)) for n in range(10)]
    drawn = Drawn(batches, seed=0)
    taken = [int(batch[0]) for batch in drawn.take(10)]
    assert taken == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert drawn.limits == ["only 4 batches were kept (1 GiB); longer trials go through them again"]
    drawn.take(20)
    assert len(drawn.limits) == 1
