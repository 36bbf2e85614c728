"""Tests of the remedies of the data: the same examples, none lost, as many batches as promised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from leadline.core.seeds import seed_everything
from leadline.data.examples import ArrayExamples
from leadline.data.loader import Loader
from leadline.doctor.remedies.batches import (
    Balanced,
    Mapped,
    Shuffled,
    balanced,
    counted,
    finite_only,
    labels_plus,
    shuffled,
)
from leadline.training.execution import Execution
from leadline.training.loop import steps


def sorted_batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    """Examples 0, 1, 2 …, cut into batches of these sizes; the target is the number."""
    numbers = torch.arange(sum(sizes))
    return [(part[:, None].float(), part) for part in numbers.split(list(sizes))]


def class_of(targets: Tensor) -> Tensor:
    return targets


# ------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("sizes", [(4, 4, 4), (4, 4, 1), (4, 1, 4, 1), (7,)])
def test_shuffled_batches_hold_every_example_once_with_its_own_target(sizes: Any) -> None:
    batches = Shuffled(sorted_batches(*sizes))
    drawn = list(batches)
    assert len(drawn) == len(batches) == len(sizes)
    assert [len(x) for x, _ in drawn] == list(sizes)
    assert sorted(torch.cat([y for _, y in drawn]).tolist()) == list(range(sum(sizes)))
    assert all(torch.equal(x[:, 0], y.float()) for x, y in drawn)


def test_each_epoch_is_shuffled_anew_and_the_seed_decides_how() -> None:
    batches = Shuffled(sorted_batches(16, 16))

    def epoch() -> list[int]:
        return torch.cat([y for _, y in batches]).tolist()

    seed_everything(1)
    first, second = epoch(), epoch()
    seed_everything(1)
    assert first == epoch() != second


@pytest.mark.parametrize("sizes", [(8, 8), (8, 3, 8, 3), (8, 8, 8, 1)])
def test_a_training_goes_through_shuffled_batches_to_their_end(
    make_setup: Any, sizes: tuple[int, ...]
) -> None:
    data = [(torch.randn(n, 4), torch.randint(0, 3, (n,))) for n in sizes]
    mended = shuffled()(make_setup(batches=data, epochs=2))
    assert len(list(steps(mended, Execution()))) == 2 * len(sizes)


# ------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize(("offset", "said"), [(-1, "labels - 1"), (1, "labels + 1")])
def test_labels_are_counted_from_0_in_training_and_validation(
    make_setup: Any, offset: int, said: str
) -> None:
    data = [(torch.randn(3, 4), torch.tensor([1, 2, -100]))]
    remedy = labels_plus(offset)
    assert said in remedy.diff
    mended = remedy(make_setup(batches=data, validation=data))
    for batches in (mended.batches, mended.validation):
        ((inputs, targets),) = list(batches)
        assert targets.tolist() == [1 + offset, 2 + offset, -100]
        assert inputs is data[0][0]
    assert data[0][1].tolist() == [1, 2, -100]
    assert remedy(make_setup(batches=data)).validation is None


def test_mapped_batches_have_the_length_of_their_source() -> None:
    assert len(Mapped(sorted_batches(2, 2, 1), lambda x, y: (x, y))) == 3


# ----------------------------------------------------------------------------------------- classes


def test_classes_come_equally_often() -> None:
    """95 : 5 becomes 1 : 1; 2,000 draws stray by 2 % at three standard deviations of 1.1 %."""
    targets = (torch.arange(2000) % 20 == 0).long()
    data = [(targets[:, None].float(), targets)]
    remedy = balanced(targets.bincount(), wanted=class_of)
    ((inputs, drawn),) = list(Balanced(data, 1 / targets.bincount().double(), class_of))
    assert drawn.float().mean().item() == pytest.approx(0.5, abs=0.035)
    assert torch.equal(inputs[:, 0], drawn.float())
    assert "WeightedRandomSampler" in remedy.diff


def test_a_class_that_never_comes_does_no_harm() -> None:
    data = sorted_batches(4, 4)
    weights = 1 / torch.tensor([1, 1, 1, 1, 1, 1, 1, 1, 0]).clamp_min(1).double()
    assert sum(len(x) for x, _ in Balanced(data, weights, class_of)) == 8


def test_ignored_labels_are_not_drawn() -> None:
    targets = torch.tensor([0, 1, -100, -100, -100, -100])
    drawn = list(Balanced([(torch.zeros(6, 1), targets)], torch.ones(2).double(), class_of))
    assert int(drawn[0][1].min()) >= 0


@pytest.mark.parametrize("sizes", [(8, 8), (8, 3, 8, 3)])
def test_balanced_batches_have_the_sizes_of_their_source(make_setup: Any, sizes: Any) -> None:
    data = [(torch.randn(n, 4), torch.randint(0, 3, (n,))) for n in sizes]
    mended = balanced(torch.tensor([5, 5, 5]), wanted=class_of)(make_setup(batches=data))
    assert [len(x) for x, _ in mended.batches] == list(sizes)
    assert len(list(steps(mended, Execution()))) == len(sizes)


# --------------------------------------------------------------------------------- finite examples


def test_examples_that_are_not_finite_are_left_out(make_setup: Any) -> None:
    inputs = torch.randn(8, 4)
    inputs[2, 1], inputs[5, 0] = torch.nan, -torch.inf
    targets = torch.arange(8)
    mended = finite_only()(make_setup(batches=[(inputs, targets)]))
    ((kept, wanted),) = list(mended.batches)
    assert wanted.tolist() == [0, 1, 3, 4, 6, 7]
    assert torch.equal(kept, inputs[wanted])


def test_targets_that_are_not_finite_leave_their_examples_out(make_setup: Any) -> None:
    data = [(torch.randn(3), torch.tensor([[1.0], [torch.nan], [2.0]]))]
    ((_, wanted),) = list(finite_only()(make_setup(batches=data)).batches)
    assert wanted.flatten().tolist() == [1.0, 2.0]


def test_a_batch_with_nothing_finite_is_left_out_and_not_counted(make_setup: Any) -> None:
    bad = torch.full((8, 4), torch.nan)
    data = [*make_setup().batches, (bad, torch.zeros(8, dtype=torch.long))]
    mended = finite_only()(make_setup(batches=data, epochs=2))
    assert len(mended.batches) == len(list(mended.batches)) == 4
    assert len(list(steps(mended, Execution()))) == 8


# ---------------------------------------------------------------------------------------- counting


def test_counting_leaves_a_loader_where_it_stood() -> None:
    pictures = ArrayExamples(torch.zeros(20, 1, 2, 2, dtype=torch.uint8), torch.arange(20))
    loader = Loader(
        pictures, batch_size=8, seed=3, mean=(0.0,), std=(1.0,), device="cpu", num_classes=20
    )
    before, drawn = loader.state_dict(), torch.get_rng_state()
    assert counted(loader, lambda batch: len(batch[0])) == 20
    assert loader.state_dict() == before
    assert torch.equal(torch.get_rng_state(), drawn)
