"""Data of a recorded loop: classes in order, contents that change, the same chance again."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.epochs import epoch_length, trained_forwards
from leadline.doctor.recording.events import Event
from leadline.doctor.recording.rerun_surroundings import data_kept, training_shuffled
from leadline.doctor.recording.tape import Tape
from leadline.doctor.remedy import Remedy

FEW = 8
"""Examples per batch below which a batch of one class may be chance."""


def signs(tape: Tape) -> Iterator[Finding]:
    """What the tape says of the batches."""
    yield from _in_order(tape)
    yield from _changed(tape)
    yield from _same_chance(tape)


def _labels(tape: Tape) -> list[Tensor]:
    """The class numbers of the batches of the first epoch, in order."""
    forwards = trained_forwards(tape)
    if not forwards:
        return []
    model = forwards[0].subject
    first = trained_forwards(tape, model)[: epoch_length(tape, model)]
    kept = [tape.batches[e["kept"]].targets for e in first if e["kept"] is not None]
    return [
        t.reshape(-1)
        for t in kept
        if isinstance(t, Tensor) and t.ndim >= 1 and t.numel() == len(t) and not _continuous(t)
    ]


def _continuous(targets: Tensor) -> bool:
    return targets.is_floating_point() and not bool(((targets == 0) | (targets == 1)).all())


def _in_order(tape: Tape) -> Iterator[Finding]:
    labels = _labels(tape)
    if len(labels) < 4 or min(map(len, labels[:-1])) < FEW:
        return
    every = torch.cat(labels)
    classes = len(torch.unique(every))
    if classes < 2:
        return
    present = [len(torch.unique(batch)) for batch in labels]
    expected = _expected_classes(every, len(labels[0]))
    mean = sum(present) / len(present)
    if mean > 1 + 0.34 * (expected - 1):
        return
    single = sum(count == 1 for count in present)
    loader = trained_forwards(tape)[0]["loader"]
    order = tape.loaders[loader].order if loader >= 0 else "own"
    yield Finding(
        cause="shuffle_missing",
        severity="error" if single >= 0.5 * len(present) else "warning",
        summary="the examples come sorted by class: a batch holds "
        f"{mean:.1f} of {classes} classes on average, and each part of an epoch unlearns the rest",
        evidence=(
            Evidence(
                quantity="classes in a batch, on average",
                measured=mean,
                expected=f"about {expected:.1f}, if they are drawn at random",
            ),
            Evidence(
                quantity="batches of one class only",
                measured=float(single),
                expected=f"0 of {len(present)}",
            ),
            Evidence(quantity="order of the loader", measured=order, expected="random"),
        ),
        remedy="pass shuffle=True to the training's DataLoader",
        source="Deci-AI/super-gradients#416",
        proven=True,
        change=Remedy(
            title="shuffle the training examples",
            lines=("- DataLoader(training, ...)", "+ DataLoader(training, ..., shuffle=True)"),
            rerun=training_shuffled if order == "sequential" else None,
        ),
    )


def _expected_classes(labels: Tensor, size: int) -> float:
    """How many classes a batch would hold on average if its examples were drawn at random."""
    shares = torch.unique(labels, return_counts=True)[1].double() / len(labels)
    return float((1 - (1 - shares) ** size).sum())


def _changed(tape: Tape) -> Iterator[Finding]:
    """What a data set holds is not what it held an epoch before."""
    for card in tape.loaders:
        digests = [e["data"] for e in tape.of("epoch_begun", subject=card.number)]
        pairs = list(itertools.pairwise(digests))
        names = {k for a, b in pairs for k in a if k in b and a[k] != b[k]}
        changes = sum(any(a.get(n) != b.get(n) for n in names) for a, b in pairs)
        if changes < max(1, min(2, len(pairs))):
            continue  # a cache that fills up changes once
        yield Finding(
            cause="data_modified_in_place",
            severity="error" if changes > 1 else "warning",
            summary=f"the data set's own array ({', '.join(sorted(names))}) changes while it is "
            "read: each epoch sees other numbers",
            layers=tuple(sorted(names)),
            evidence=(
                Evidence(
                    quantity="epochs that began with other contents than the one before",
                    measured=float(changes),
                    expected=f"0 of {len(pairs)}",
                ),
            ),
            remedy="change a copy in __getitem__: image = self.images[index].clone() or .copy(); "
            "look for -=, /=, mul_() and the like",
            proven=changes > 1,
            change=Remedy(
                title="let __getitem__ change a copy",
                lines=("- image = self.images[index]", "+ image = self.images[index].clone()"),
                rerun=data_kept,
            ),
        )
        return


def _same_chance(tape: Tape) -> Iterator[Finding]:
    yield from _same_workers(tape)
    yield from _same_seed(tape)


def _same_workers(tape: Tape) -> Iterator[Finding]:
    """Worker processes whose random streams begin alike."""
    for card in tape.loaders:
        starts = [e for e in tape.of("worker") if e.subject == card.number]
        epochs: dict[int, list[Event]] = {}
        for event in starts:
            epochs.setdefault(event["epoch"], []).append(event)
        streams = {name for event in starts for name in event["streams"]}
        for name in sorted(streams):
            alike = [
                len(group) - len({e["streams"].get(name) for e in group})
                for group in epochs.values()
                if len(group) > 1
            ]
            if alike and min(alike) > 0:
                yield _worker_finding(card.workers, name, alike=sum(alike), starts=len(starts))
                return


def _worker_finding(workers: int, name: str, *, alike: int, starts: int) -> Finding:
    return Finding(
        cause="data_worker_seed_dup",
        severity="warning",
        summary=f"{name} begins alike in the loader's {workers} workers: they draw the same random "
        "numbers, and augment alike",
        evidence=(
            Evidence(
                quantity=f"workers in which {name} begins as in another",
                measured=float(alike),
                expected=f"0 of {starts}",
            ),
        ),
        remedy="seed from torch.initial_seed() in worker_init_fn, or make the generator in "
        "__getitem__ from it; keep no seeded generator in the data set",
        source="pytorch/pytorch#5059",
        proven=True,
        change=Remedy(
            title="give each worker a seed of its own",
            lines=(
                "  def worker_init_fn(worker_id):",
                "-     np.random.seed(0)",
                "+     np.random.seed(torch.initial_seed() % 2**32)",
            ),
        ),
    )


def _same_seed(tape: Tape) -> Iterator[Finding]:
    """The same seed set again during the training: for each example, or for each epoch."""
    inside = Counter(e["seed"] for e in tape.of("seeded") if e["in_loader"])
    seed, count = inside.most_common(1)[0] if inside else (0, 0)
    where = "while examples are loaded"
    if count < 10:
        forked = {e.updates for e in tape.of("stream_restored")}  # what a seed began is over
        later = [
            e
            for e in tape.of("seeded")
            if not e["in_loader"] and e.updates > 0 and e.updates not in forked
        ]
        seeds = Counter((e["seed"]) for e in later)
        seed, count = seeds.most_common(1)[0] if seeds else (0, 0)
        where = "again during the training"
        drawn = {e.updates for e in later if e["seed"] == seed}
        if count < 2 or len(drawn) < 2 or not _continues(tape, min(drawn)):
            return
    yield Finding(
        cause="data_worker_seed_dup",
        severity="warning",
        summary=f"the seed {seed} is set {where}: order, augmentation and dropout are the same "
        "each time",
        evidence=(
            Evidence(quantity="times that this seed was set", measured=float(count), expected="1"),
        ),
        remedy="set the seed once, before the training",
        proven=True,
        change=Remedy(
            title="set the seed once",
            lines=(
                "+ torch.manual_seed(seed)",
                "  for epoch in ...:",
                "-     torch.manual_seed(seed)",
            ),
        ),
    )


def _continues(tape: Tape, updates: int) -> bool:
    """Whether a model that was trained before some update is trained after it too: one training."""
    before = {n for e in tape.of("backward") if e.updates < updates for n in e["models"] or ()}
    after = {n for e in tape.of("backward") if e.updates >= updates for n in e["models"] or ()}
    return bool(before & after)
