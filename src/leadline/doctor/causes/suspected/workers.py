"""A fault of a DataLoader's workers: all of them draw the same random numbers.

Shown by drawing: two workers are asked twice for the same example. Where one worker gives two
different answers, its data set draws; where both workers give the same two, they draw the same.
torch seeds its own streams in every worker, Python's and NumPy's too; a generator that the data
set holds is copied into every worker as it stands, and a worker_init_fn may seed all of them alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from leadline.core.seeds import preserved_random_state
from leadline.core.taps import tensors_in
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedies.workers import own_streams

TWICE = 2
"""Times that each of two workers is asked for the same example."""


def certain(patient: Patient) -> Iterator[Finding]:
    """Workers whose examples show that they draw the same numbers."""
    loader = patient.setup.batches
    if not isinstance(loader, DataLoader) or loader.num_workers < 1:
        return
    if isinstance(loader.dataset, IterableDataset) or loader.collate_fn is None:
        return
    try:
        with preserved_random_state():
            torch.manual_seed(patient.setup.seed)
            first = _asked(loader)
            again = _asked(loader)
    except Exception as error:
        patient.limits.append(f"the workers could not be asked one by one: {error}")
        return
    drawn = not _same(first[0][0], first[0][1]) if len(first[0]) == TWICE else False
    if not drawn:
        return
    alike = len(first) > 1 and _same(first[0], first[1])
    repeated = _same(first, again)
    if not alike and not repeated:
        return
    yield Finding(
        cause="data_worker_seed_dup",
        severity="error" if alike else "warning",
        summary="every worker of the DataLoader draws the same random numbers"
        + (", and the same again in every epoch" if repeated else "")
        if alike
        else "the workers of the DataLoader draw the same random numbers again in every epoch",
        evidence=(
            Evidence(
                quantity="random examples of two workers that are the same",
                measured=float(TWICE if alike else 0),
                expected=f"0 of {TWICE}",
            ),
            Evidence(
                quantity="the same numbers again in the next epoch",
                measured=str(repeated),
                expected="False",
            ),
        ),
        remedy="seed the data set's own generator in worker_init_fn, from torch.initial_seed()",
        source="pytorch/pytorch#5059",
        change=own_streams(),
        proven=True,
    )


def _asked(loader: DataLoader[Any]) -> list[list[Any]]:
    """What each of the first two workers gives for the first example, asked twice."""
    workers = min(2, loader.num_workers)
    size = loader.batch_size or 1
    probe: DataLoader[Any] = DataLoader(
        loader.dataset,
        batch_sampler=[[0] * min(size, 2)] * (TWICE * workers),
        num_workers=workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
    batches = list(probe)
    return [batches[worker::workers] for worker in range(workers)]


def _same(one: Any, other: Any) -> bool:
    first, second = list(tensors_in(one)), list(tensors_in(other))
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )
