"""Suspicions about the labels: what a trained network, or the nearest neighbour, calls chance.

A network that errs on sound labels errs between classes that look alike: the right one is its
second or third choice. A label drawn by chance is as likely its last choice as any other. So among
the examples it is surest of, and never saw, the share of labels in the last third of its choices,
times three, estimates how many were drawn (the idea of confident learning, Northcutt et al. 2021).

Where nothing is learned at all, the inputs are asked without a network: when the five nearest
neighbours agree with a label no more often than chance has it, labels and inputs do not belong
together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from leadline.doctor.arm import Outcome, answers
from leadline.doctor.causes.suspected.data import class_numbers
from leadline.doctor.comparison import learns
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedy import Remedy

SUREST = 0.4
"""Part of the unseen examples, those the network is surest of, whose labels are looked at."""

RIGHT = 0.3
"""Part of the surest answers that must be right for the others to say anything of the labels."""

DRAWN = 0.12
"""Estimated share of labels drawn by chance from which on they are suspected."""

KNOWS = 0.7
"""Error up to which the last choices speak for themselves."""

NOTHING_HELD = 0.95
"""Error on held-out examples from which on what was learned of the others is theirs alone."""

EVENLY = 0.8
"""Beyond it: labels in the last third of choices, over those in the third before, at least.

A network that knows little errs too, but less the further down its choices one looks.
"""

FEWEST = 200
"""Examples without which nothing is said."""

VOTERS = 30
"""Neighbours that vote: so many that most labels drawn by chance leave the right one ahead."""

VOTED_RIGHT = 0.2
"""Part of the surest votes that must be right."""

MOST = 2000
"""Examples whose neighbours are looked for, at most."""

NOTHING = (math.nan, math.nan, 0)
"""What is known of the choices of a network that cannot be asked."""

SOURCE = "Northcutt, Jiang & Chuang 2021, Confident Learning"


def corrupted(patient: Patient, base: Outcome, *remedies: Remedy) -> Finding | None:
    """The finding that labels do not belong to their examples, if they do not. Cost: 1 arm."""
    numbers = class_numbers(patient)
    problem = patient.problem
    if numbers is None or problem.classes < 4 or len(numbers) < FEWEST:
        return None
    error = base.verdict.error
    unrelated = _unrelated(patient, numbers) if not learns(base) or error > NOTHING_HELD else None
    if unrelated is not None or not learns(base):
        return unrelated
    if not error > DRAWN or not patient.affords():
        return None
    share, before, looked = _drawn_share(patient, *remedies)
    if not looked:
        share, _, looked = _by_votes(patient, numbers)
    elif error > KNOWS and share < EVENLY * before:
        return None
    if looked < 60 or not share > DRAWN + 3 * math.sqrt(3 * share / looked):
        return None
    return Finding(
        cause="label_corrupted",
        severity="error" if share > 0.3 else "warning",
        summary=f"about {share:.0%} of the labels look drawn by chance: who never saw these "
        "examples is sure of them, and the label is among the last choices",
        evidence=(
            Evidence(
                quantity="estimated share of labels that are chance",
                measured=share,
                expected=f"below {DRAWN:g}",
            ),
            Evidence(quantity="examples looked at", measured=float(looked), expected="60 or more"),
        ),
        remedy="look at those examples; check that inputs and labels are shuffled together",
        source=SOURCE,
        proven=True,
    )


def _drawn_share(patient: Patient, *remedies: Remedy) -> tuple[float, float, int]:
    """The estimate, from a network trained on the even batches and asked on the odd ones."""
    count = max(2, patient.drawn.per_epoch or 2)
    epoch = patient.drawn.take(min(count, 2000))
    learned, unseen = epoch[::2], epoch[1::2]
    if not unseen:
        return NOTHING
    outcome = patient.arm_on(learned, *remedies)
    if outcome.ended or outcome.model is None:
        return NOTHING
    found = answers(outcome.model, unseen[:64], patient.execution)
    if found is None:
        return NOTHING
    outputs, targets = found
    if patient.problem.one_hot or patient.problem.soft:
        targets = targets.argmax(dim=1)
    return last_choices(outputs, targets)


def _by_votes(patient: Patient, numbers: Tensor) -> tuple[float, float, int]:
    """The estimate from the votes of neighbours, where a network learns too little to be asked.

    Votes that are equal count for the label, so that it is low: sound labels give 0.
    """
    assert patient.gathered is not None, "it has class numbers"
    inputs = patient.gathered[0]
    if not inputs.is_floating_point() or inputs[0].numel() < 4:
        return NOTHING
    rows, labels = inputs.flatten(1)[:MOST], numbers[:MOST]
    votes = neighbours_vote(rows, labels, patient.problem.classes)
    return last_choices(votes, labels, right=VOTED_RIGHT)


def neighbours_vote(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many of the 30 nearest other rows [N, D] have each label: [N, C].

    >>> rows = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    >>> neighbours_vote(rows, torch.tensor([0, 0, 0, 1, 1, 1]), 2)[0].tolist()
    [2.0, 3.0]
    """
    distances = torch.cdist(rows.float(), rows.float())
    distances.fill_diagonal_(math.inf)
    nearest = distances.topk(min(VOTERS, len(rows) - 1), dim=1, largest=False).indices
    return functional.one_hot(labels.clamp(0, classes - 1)[nearest], classes).sum(dim=1).float()


def last_choices(
    outputs: Tensor, labels: Tensor, *, right: float = RIGHT
) -> tuple[float, float, int]:
    """Three times the shares of labels in the last third of choices and in the one before.

    Of the examples that are sure enough, whose number comes last: none where fewer than `right` of
    them are answered right. `outputs` [N, C] are logits or
    probabilities, `labels` [N] class numbers.

    >>> outputs = torch.eye(6)[torch.arange(600) % 6] * 5 + torch.arange(6) * 0.01
    >>> last_choices(outputs, torch.arange(600) % 6)
    (0.0, 0.0, 240)
    """
    classes = outputs.shape[1]
    logits = outputs.clamp_min(1e-9).log() if bool((outputs >= 0).all()) else outputs
    top = logits.topk(2, dim=1).values
    sure = (top[:, 0] - top[:, 1]).argsort(descending=True)[: max(1, int(SUREST * len(logits)))]
    wanted = labels[sure]
    inside = (wanted >= 0) & (wanted < classes)
    sure, wanted = sure[inside], wanted[inside]
    if not len(sure):
        return NOTHING
    ranks = (logits[sure] > logits[sure].gather(1, wanted[:, None])).sum(dim=1)
    if float((logits[sure].argmax(dim=1) == wanted).float().mean()) < right:
        return NOTHING
    third = classes // 3
    last = float((ranks >= classes - third).float().mean())
    before = float((ranks >= classes - 2 * third).float().mean()) - last
    return last * classes / third, before * classes / third, len(sure)


def _unrelated(patient: Patient, numbers: Tensor) -> Finding | None:
    """What nearest neighbours say where no network learned."""
    assert patient.gathered is not None, "it has class numbers"
    inputs = patient.gathered[0]
    if not inputs.is_floating_point() or inputs[0].numel() < 4:
        return None
    agree, chance, near = neighbours_agree(inputs.flatten(1)[:MOST], numbers[:MOST])
    doubt = math.sqrt(chance * (1 - chance) / min(len(numbers), MOST))
    if agree > chance + 3 * doubt or near > 0.8:
        return None
    return Finding(
        cause="label_corrupted",
        severity="error",
        summary="the nearest neighbours of an example have its label no more often than chance: "
        "labels and inputs do not belong together",
        evidence=(
            Evidence(
                quantity="neighbours with the same label",
                measured=agree,
                expected=f"clearly above {chance:.3f}, which is chance",
            ),
            Evidence(
                quantity="distance to the neighbours over that to any example",
                measured=near,
                expected="below 0.8, where there are neighbours at all",
            ),
        ),
        remedy="check that inputs and labels are shuffled together and read in the same order",
        source="Cover & Hart 1967, Nearest neighbor pattern classification",
        proven=True,
    )


def neighbours_agree(rows: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """How often the 5 nearest neighbours share a label, how often chance has it, how near they are.

    >>> rows = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    >>> agree, chance, near = neighbours_agree(rows, torch.tensor([0, 0, 0, 1, 1, 1]))
    >>> round(agree, 2), chance
    (0.4, 0.5)
    """
    rows = rows.float()
    distances = torch.cdist(rows, rows)
    typical = float(distances.sum() / max(distances.numel() - len(rows), 1))
    distances.fill_diagonal_(math.inf)
    nearest = distances.topk(min(5, len(rows) - 1), dim=1, largest=False)
    agree = float((labels[nearest.indices] == labels[:, None]).float().mean())
    shares = torch.bincount(labels.clamp_min(0)).float() / len(labels)
    near = float(nearest.values.mean()) / typical if typical > 0 else 1.0
    return agree, float(shares.square().sum()), near
