"""Tests of the loader: every example once, resumed exactly, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from leadline.core.errors import ConfigError
from leadline.data.augment import Augmentation
from leadline.data.examples import ArrayExamples, Examples, FileExamples
from leadline.data.loader import Loader

EVERYTHING = Augmentation(flip=True, crop=2, rotation=5.0, color_jitter=0.1, cutout=2, mixup=0.2)


def examples(count: int = 10) -> ArrayExamples:
    luck = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 6, 6), generator=luck, dtype=torch.uint8)
    return ArrayExamples(pixels, torch.arange(count))


def make(
    data: Examples | None = None,
    *,
    batch_size: int = 4,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
) -> Loader:
    data = examples() if data is None else data
    return Loader(
        data,
        batch_size=batch_size,
        seed=seed,
        mean=(0.5,) * data.shape[0],
        std=(0.25,) * data.shape[0],
        device="cpu",
        num_classes=len(data),
        augmentation=augmentation,
        shuffle=shuffle,
        drop_last=drop_last,
    )


def seen(loader: Loader) -> list[int]:
    return [int(target) for _, targets in loader for target in targets]


def test_an_epoch_has_every_example_once_in_an_order_of_its_own() -> None:
    loader = make()
    first, second = seen(loader), seen(loader)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == seen(make())
    assert first != seen(make(seed=1))


def test_pictures_belong_to_their_targets_and_are_normalised() -> None:
    data = examples()
    for inputs, targets in make(data):
        expected = (data.images[targets].double() / 255 - 0.5) / 0.25
        torch.testing.assert_close(inputs, expected.float(), rtol=0, atol=1e-5)
        assert inputs.dtype == torch.float32
        assert targets.dtype == torch.int64


def test_without_shuffling_the_order_is_the_datas() -> None:
    assert seen(make(shuffle=False)) == list(range(10))


@pytest.mark.parametrize(
    ("count", "batch_size", "drop_last", "sizes"),
    [
        (10, 4, False, [4, 4, 2]),
        (10, 4, True, [4, 4]),
        (9, 4, False, [4, 5]),
        (9, 4, True, [4, 4]),
        (8, 4, False, [4, 4]),
        (5, 5, False, [5]),
        (3, 1, False, [1, 1, 1]),
        (3, 2, False, [3]),
        (1, 1, False, [1]),
    ],
)
def test_the_last_batch_is_ragged_dropped_or_merged(
    count: int, batch_size: int, drop_last: bool, sizes: list[int]
) -> None:
    loader = make(examples(count), batch_size=batch_size, drop_last=drop_last)
    assert [len(targets) for _, targets in loader] == sizes
    assert len(loader) == len(sizes)
    assert loader.state_dict() == {"seed": 0, "epoch": 1, "offset": 0}


def stream(loader: Loader, epochs: int) -> list[tuple[Tensor, Tensor]]:
    return [batch for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("count", [10, 9])
@pytest.mark.parametrize("drop_last", [False, True])
def test_resuming_after_any_batch_gives_exactly_the_rest(count: int, drop_last: bool) -> None:
    settings = {"augmentation": EVERYTHING, "drop_last": drop_last}
    whole = stream(make(examples(count), **settings), 3)  # type: ignore[arg-type]  # test values
    for stop in range(len(whole)):
        loader = make(examples(count), **settings)  # type: ignore[arg-type]  # test values
        handed_out = 0
        while handed_out <= stop:
            for _ in loader:
                handed_out += 1
                if handed_out > stop:
                    break
        resumed = make(examples(count), seed=99, **settings)  # type: ignore[arg-type]  # test values
        resumed.load_state_dict(loader.state_dict())
        rest: list[tuple[Tensor, Tensor]] = []
        while len(rest) < len(whole) - stop - 1:
            rest += stream(resumed, 1)
        for (inputs, targets), (again, labels) in zip(whole[stop + 1 :], rest, strict=True):
            assert torch.equal(inputs, again)
            assert torch.equal(targets, labels)


def test_an_iterator_left_early_is_continued_by_the_next() -> None:
    loader = make()
    first = next(iter(loader))[1].tolist()
    assert loader.state_dict() == {"seed": 0, "epoch": 0, "offset": 4}
    assert sorted(first + seen(loader)) == list(range(10))


def test_mixed_targets_are_probabilities() -> None:
    for _, targets in make(augmentation=Augmentation(cutmix=1.0)):
        assert targets.shape[1] == 10
        torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))


def test_augmentation_differs_between_epochs_but_not_between_runs() -> None:
    one = ArrayExamples(examples(1).images.expand(64, -1, -1, -1), torch.arange(64))
    first, second = make(one, augmentation=EVERYTHING), make(one, augmentation=EVERYTHING)
    a, b, c = next(iter(first))[0], next(iter(second))[0], stream(first, 2)[-1][0]
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_loader_draws_nothing_from_the_global_generators() -> None:
    torch.manual_seed(0)
    state, luck = torch.get_rng_state(), np.random.get_state()[1].copy()
    stream(make(augmentation=EVERYTHING), 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], luck)


def test_files_are_loaded_as_arrays_are(tmp_path: Path) -> None:
    data = examples()
    paths = []
    for index, picture in enumerate(data.images):
        path = tmp_path / f"{index}.png"
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
        paths.append(str(path))
    files = FileExamples(paths, data.targets, colour="RGB", size=6)
    held = stream(make(data, augmentation=EVERYTHING), 2)
    read = stream(make(files, augmentation=EVERYTHING), 2)
    for (inputs, targets), (again, labels) in zip(held, read, strict=True):
        assert torch.equal(inputs, again)
        assert torch.equal(targets, labels)
    loader = make(files)
    next(iter(loader))  # leaving early waits for what was being decoded ahead, and no longer
    assert loader.state_dict()["offset"] == 4


def test_a_batch_larger_than_the_data_is_refused_in_training_only() -> None:
    with pytest.raises(ConfigError) as caught:
        make(batch_size=11)
    assert str(caught.value) == (
        "expected a batch_size of at most 10, the number of training examples\n"
        "received 11\n"
        "do this  set batch_size to 2 or so: several steps an epoch"
    )
    assert len(make(batch_size=11, shuffle=False)) == 1


def test_empty_batches_and_empty_data_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size must be >= 1, received 0"):
        make(batch_size=0)
    with pytest.raises(ConfigError, match="examples must not be empty"):
        make(examples(0))


def test_augmentation_that_does_not_fit_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="crop must be < 6"):
        make(augmentation=Augmentation(crop=6))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"seed": 0, "epoch": 0}, "missing key offset"),
        ({"seed": 0, "epoch": 0, "offset": 0, "x": 1}, "unknown key x"),
        ({"seed": 0, "epoch": -1, "offset": 0}, "epoch must be a whole number >= 0, received -1"),
        ({"seed": 0, "epoch": 0, "offset": 11}, "offset must be <= 10.*not those of the saved run"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make().load_state_dict(state)
