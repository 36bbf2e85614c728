"""Batches in an order that three numbers describe: the seed, the epoch, the offset.

The order of an epoch is a permutation drawn from (seed, epoch); the luck of a batch's
augmentation is drawn from (seed, epoch, offset). Nothing else has to be saved: a loader told the
three numbers continues with exactly the batches that were still to come, on any machine.

Pictures in memory are moved to the device once; pictures in files are decoded one batch ahead.

The surprising choice: a last batch of a single example is merged into the one before it, because
BatchNorm cannot normalise over one value, and the example should not be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from leadline.core.config import config_error
from leadline.core.errors import ConfigError
from leadline.core.seeds import derive_seed
from leadline.data.augment import Augmentation, augment
from leadline.data.examples import ArrayExamples, Examples

SHARE_OF_DEVICE = 4  # pictures live on the accelerator when they fill at most one part in so many
STATE_KEYS = ("seed", "epoch", "offset")
Batch = tuple[Tensor, Tensor]


class Loader:
    """Batches `(inputs, targets)` on the device, normalised and augmented.

    - inputs: float32 `[B, C, H, W]`.
    - targets: int64 `[B]`, or probabilities `[B, K]` when the augmentation mixes examples.

    `iter(loader)` yields what is left of the current epoch and then moves to the next one.
    With `shuffle` a batch larger than the data is an error; without (to evaluate) it holds all.

    >>> pictures = ArrayExamples(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.arange(5))
    >>> loader = Loader(pictures, batch_size=2, seed=0, mean=(0.0,), std=(1.0,), device="cpu",
    ...                 num_classes=5, shuffle=False)
    >>> [targets.tolist() for _, targets in loader]
    [[0, 1], [2, 3, 4]]
    >>> loader.state_dict()
    {'seed': 0, 'epoch': 1, 'offset': 0}
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        num_classes: int,
        augmentation: Augmentation | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self._device = torch.device(device)
        self._augmentation = augmentation or Augmentation()
        self._augmentation.check_fits(examples.shape)
        _check_sizes(batch_size, len(examples), shuffle=shuffle)
        self._examples = _placed(examples, self._device)
        self._targets = examples.targets.to(self._device)
        self._batch_size = batch_size
        self._mean, self._std = tuple(mean), tuple(std)
        self._num_classes = num_classes
        self._shuffle = shuffle
        self._drop_last = drop_last and len(examples) >= batch_size
        self._seed, self._epoch, self._offset = seed, 0, 0

    def __len__(self) -> int:
        """How many batches a whole epoch has."""
        return len(self._bounds(0))

    def __iter__(self) -> Iterator[Batch]:
        """The batches that are left of this epoch; at their end the next epoch begins."""
        seed, epoch = self._seed, self._epoch
        order = self._order(seed, epoch)
        bounds = self._bounds(self._offset)
        for (start, stop), pictures in zip(bounds, self._pictures(order, bounds), strict=True):
            generator = _generator(seed, epoch, start)
            batch = augment(
                pictures.to(self._device, non_blocking=True),
                self._targets.index_select(0, order[start:stop]),
                options=self._augmentation,
                num_classes=self._num_classes,
                generator=generator,
                mean=self._mean,
                std=self._std,
            )
            self._offset = stop
            yield batch
        self._epoch, self._offset = epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Where the loader is: `seed`, `epoch`, and `offset`, the examples already handed out."""
        return {"seed": self._seed, "epoch": self._epoch, "offset": self._offset}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go where `state` says; the next `iter` continues from there."""
        problems = [f"missing key {key}" for key in STATE_KEYS if key not in state]
        problems += [f"unknown key {key}" for key in state if key not in STATE_KEYS]
        problems += [
            f"{key} must be a whole number{' >= 0' if key != 'seed' else ''}, received {value!r}"
            for key, value in state.items()
            if type(value) is not int or (key != "seed" and value < 0)
        ]
        if not problems and state["offset"] > len(self._examples):
            problems.append(
                f"offset must be <= {len(self._examples)}, the number of examples, "
                f"received {state['offset']}: the data are not those of the saved run"
            )
        if problems:
            raise config_error("loader state", problems)
        self._seed, self._epoch, self._offset = (state[key] for key in STATE_KEYS)

    def _order(self, seed: int, epoch: int) -> Tensor:
        count = len(self._examples)
        if not self._shuffle:
            return torch.arange(count, device=self._device)
        order = torch.randperm(count, generator=_generator(seed, epoch))
        return order.to(self._device)

    def _bounds(self, offset: int) -> list[tuple[int, int]]:
        """Where the batches from `offset` on begin and end."""
        count, size = len(self._examples), self._batch_size
        starts = range(offset, count, size)
        bounds = [(start, min(start + size, count)) for start in starts]
        if not bounds:
            return bounds
        last = bounds[-1][1] - bounds[-1][0]
        if self._drop_last:
            return bounds if last == size else bounds[:-1]
        if last == 1 and len(bounds) > 1 and size > 1:
            bounds[-2:] = [(bounds[-2][0], count)]
        return bounds

    def _pictures(self, order: Tensor, bounds: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
        if isinstance(self._examples, ArrayExamples):
            for start, stop in bounds:
                yield self._examples.take(order[start:stop])
            return
        places = order.cpu()
        with ThreadPoolExecutor(1) as ahead:
            waiting: list[Future[Tensor]] = []
            for start, stop in bounds:
                waiting.append(ahead.submit(self._examples.take, places[start:stop]))
                if len(waiting) == 2:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()


def _check_sizes(batch_size: int, count: int, *, shuffle: bool) -> None:
    if batch_size < 1:
        raise config_error("Loader", [f"batch_size must be >= 1, received {batch_size}"])
    if not count:
        raise config_error("Loader", ["examples must not be empty, received none"])
    if shuffle and batch_size > count:
        raise ConfigError(
            expected=f"a batch_size of at most {count}, the number of training examples",
            received=f"{batch_size}",
            remedy=f"set batch_size to {max(1, count // 4)} or so: several steps an epoch",
            problems=(f"batch_size must be <= {count}, received {batch_size}",),
        )


def _placed(examples: Examples, device: torch.device) -> Examples:
    """The examples with their pixels on the device, where they are in memory and leave room."""
    if not isinstance(examples, ArrayExamples):
        return examples
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if examples.images.nbytes > free // SHARE_OF_DEVICE:
            return examples
    return examples.to(device)


def _generator(*numbers: int) -> torch.Generator:
    """A generator of its own for these numbers: hashed, since near seeds give near streams."""
    return torch.Generator().manual_seed(derive_seed(*numbers))
