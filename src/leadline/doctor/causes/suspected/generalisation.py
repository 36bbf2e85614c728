"""Suspicions about what is learned beyond the examples: by heart, in another mode, not to the end.

Looked at last, when the training as healed so far has been run: it learns its examples and not the
held-out ones; it answers in training mode and not in evaluation; it stops while it gets better.
"""

from __future__ import annotations

import math
from dataclasses import replace

from leadline.doctor.arm import Outcome
from leadline.doctor.comparison import FINER, GOOD, MATERIAL, better
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.prescription import hidden_activations
from leadline.doctor.remedies import layers, optimisation
from leadline.doctor.remedy import Remedy, together
from leadline.doctor.suspicion import suspect

GAP = 0.25
"""Error on the training examples over that on held-out ones below which they are known by heart."""

WRONG = 0.08
"""Error on held-out examples from which on there is something to gain."""

FEW = 3
"""Epochs, at most, that are few for any training: its curve alone may say that it is too short."""

MODES = 0.3
"""Difference of the errors in the two modes from which on the statistics are to blame."""


def by_heart(patient: Patient, base: Outcome) -> Finding | None:
    """The suspicion that nothing keeps the network from learning its examples by heart."""
    held = base.held_out
    if held is None or base.ended or patient.seen is None:
        return None
    if not (held.error > WRONG and base.training.error < GAP * held.error):
        return None
    change = regularised(patient)
    return suspect(
        "reg_missing",
        "the network knows its training examples by heart, and the held-out ones much less",
        Evidence(
            quantity="error on the training examples",
            measured=base.training.error,
            expected=f"above {GAP:g} of that on held-out ones",
        ),
        Evidence(
            quantity="error on held-out examples", measured=held.error, expected="about the same"
        ),
        change=change,
        source="Srivastava et al. 2014; Krogh & Hertz 1992",
    )


def regularised(patient: Patient) -> Remedy:
    """Dropout behind the last hidden activation, and a little weight decay."""
    names = hidden_activations(patient)
    decay = optimisation.option("weight_decay", 5e-4)
    if not names:
        return decay
    return together(layers.dropout_behind(names[-1], 0.5), decay)


def other_in_evaluation(patient: Patient, base: Outcome) -> Finding | None:
    """The suspicion that the norms' statistics are wrong: evaluation mode answers far worse."""
    there = base.in_training
    if there is None or base.ended or not patient.has_batch_norm:
        return None
    gap = base.training.error - there.error
    if not gap > MODES or there.error > 0.8:
        return None
    few = patient.steps < 30
    if few:
        return None
    return suspect(
        "norm_eval_stats_broken",
        "the same examples are answered far worse in evaluation mode: the running statistics of "
        "the batch norms do not fit",
        Evidence(
            quantity="error in evaluation mode",
            measured=base.training.error,
            expected=f"about {there.error:.3g}, as in training mode",
        ),
        change=layers.group_norms(),
        source="Ioffe & Szegedy 2015, section 3.1",
    )


def too_short(patient: Patient, base: Outcome, *remedies: Remedy) -> tuple[Finding, Outcome] | None:
    """The finding that it stops while it gets better, with the arm that went on. Cost: 3 arms."""
    epochs = patient.setup.epochs
    bad = base.verdict.error > 0.5
    worth = bad or (epochs <= FEW and base.verdict.error > GOOD)
    if not patient.whole or base.ended or not worth or not patient.affords(3):
        return None
    longer = patient.arm(*remedies, times=3)
    little = epochs <= FEW and not _reads_text(patient)
    material = 2 * MATERIAL if not bad else FINER if little else MATERIAL
    if not better(longer, base, material=material):
        return None
    return stops_early(patient, base, longer, times=3, factor=_enough(base, longer)), longer


def stops_early(
    patient: Patient, base: Outcome, longer: Outcome, *, times: int, factor: int
) -> Finding:
    """The finding that `times` as many steps are better; its remedy is `factor` as many epochs."""
    epochs = patient.setup.epochs
    finding = suspect(
        "epochs_too_few",
        f"the training stops after {epochs} epoch{'s' * (epochs != 1)} while it still gets better",
        Evidence(
            quantity="error at the end", measured=base.verdict.error, expected="no longer falling"
        ),
        Evidence(
            quantity=f"error after {times} times as many steps",
            measured=longer.verdict.error,
            expected="the same",
        ),
        change=optimisation.epochs_times(factor, epochs),
        source="Hoffer et al. 2017, Train longer, generalize better",
    )
    return replace(finding, proven=True)


FALLS = -0.2
"""Slope of the loss over the steps, both in logarithms: ten times as long takes a third off."""


def falls_at_the_end(patient: Patient, base: Outcome) -> Finding | None:
    """The suspicion that few epochs are too few, from the curve: the whole is too long to try."""
    total = patient.total_steps
    if patient.whole or total is None or patient.seen is None or patient.setup.epochs > FEW:
        return None
    if base.ended or base.verdict.error < 0.5 or _reads_text(patient):
        return None
    slope = _slope(base.losses)
    if not slope < FALLS:
        return None
    epochs = patient.setup.epochs
    return replace(
        suspect(
            "epochs_too_few",
            f"the loss still falls steadily, and {epochs} epoch{'s' * (epochs != 1)} will not "
            "bring it to its end",
            Evidence(
                quantity="slope of the loss over the steps, in logarithms",
                measured=slope,
                expected="near 0 at the end",
            ),
            Evidence(
                quantity="error so far", measured=base.verdict.error, expected="well below 0.5"
            ),
            change=optimisation.epochs_times(10, epochs),
            source="Hestness et al. 2017: learning curves follow a power law",
        ),
        severity="warning",
    )


def _reads_text(patient: Patient) -> bool:
    """Whether there is an answer at each place: a stream of text is often read only once."""
    return patient.seen is not None and patient.seen.survey.outputs.ndim > 2


def _slope(losses: tuple[float, ...]) -> float:
    """The slope of log loss over log step, over the last three quarters, by least squares."""
    start = len(losses) // 4
    points = [
        (math.log(step), math.log(loss))
        for step, loss in enumerate(losses, start=1)
        if step > start and loss > 0
    ]
    if len(points) < 20:
        return 0.0
    mean_x = math.fsum(x for x, _ in points) / len(points)
    mean_y = math.fsum(y for _, y in points) / len(points)
    above = math.fsum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / math.fsum((x - mean_x) ** 2 for x, _ in points)


def _enough(base: Outcome, longer: Outcome) -> int:
    """How many times the epochs: 5, or 10 where three times as many still leave most of it."""
    return 5 if longer.verdict.error < 0.5 * base.verdict.error else 10
