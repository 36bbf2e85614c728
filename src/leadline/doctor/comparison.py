"""Comparison: when one training is better than another, by more than chance and by enough to count.

Healthy trainings can always be hurried a little: a larger rate, another optimizer, one more norm.
So a difference counts only when a good part of the error goes with it, and when it is more than
what the number of examples leaves to chance.
"""

from __future__ import annotations

import math

from leadline.doctor.arm import Outcome
from leadline.doctor.problem import Verdict
from leadline.doctor.trial import Trial, smoothed

MATERIAL = 0.25
"""Part of the error that has to go before a difference counts."""

SMALLEST = 0.02
"""Difference of errors, on the scale on which 1 is ignorance, below which none counts."""

LEARNED = 0.1
"""Error that has to go for a training to have begun to learn."""

FINER = 0.1
"""Part of the error that has to go for one rate to be preferred to another."""

GOOD = 0.12
"""Error of a training that is good enough to be left alone, however much a hurry would gain."""

SURE = 3.0
"""Standard errors that a difference must exceed."""


def better(treated: Outcome, without: Outcome, *, material: float = MATERIAL) -> bool:
    """Whether the treated training ends clearly better."""
    if _broken(treated) or without.crashed:
        return False
    if _broken(without):
        return learns(treated) or _converges(treated)
    if math.isnan(treated.verdict.error) or math.isnan(without.verdict.error):
        return False
    return _clearly(treated.verdict, without.verdict, material) or starts(treated, without)


def starts(treated: Outcome, without: Outcome) -> bool:
    """Whether it learns nothing without the remedy, and something beyond doubt with it."""
    if _broken(treated) or _broken(without):
        return False
    new, old = treated.verdict, without.verdict
    gone = old.error - new.error
    sure = gone > max(LEARNED, SURE * new.doubt_beside(old))
    return sure and not learns(without) and learns(treated)


def _clearly(new: Verdict, old: Verdict, material: float) -> bool:
    gone = old.error - new.error
    doubt = new.doubt_beside(old)
    by_error = gone > max(material * old.error, SMALLEST, SURE * doubt)
    if by_error:
        return True
    finer = old.surprise - new.surprise
    by_surprise = finer > max(1.5 * material * old.surprise, 5 * SMALLEST)
    return by_surprise and gone > -doubt and old.error > 5 * SMALLEST


def closer(treated: Outcome, without: Outcome) -> bool:
    """Whether of two remedies of one kind this one leaves less, beyond doubt, however little."""
    if _broken(treated) or _broken(without):
        return _broken(without) and not _broken(treated)
    new, old = treated.verdict, without.verdict
    return old.error - new.error > max(FINER * old.error, SURE * new.doubt_beside(old))


def fairer(treated: Outcome, without: Outcome) -> bool:
    """Whether neglected classes are known better, or all of them where they are asked alike."""
    new, old = treated.verdict, without.verdict
    unknown = math.isnan(new.balanced + old.balanced)
    if unknown or _broken(treated) or _broken(without):
        return False
    if learns(without) and not neglects(without):
        return better(treated, without)
    gone = old.balanced - new.balanced
    return gone > max(MATERIAL * old.balanced, 3 * SMALLEST) and gone > SURE * old.doubt


def neglects(outcome: Outcome) -> bool:
    """Whether the rare classes are known far worse than all together are, or than it could tell.

    A network that says no to everyone may still put those to whom yes is due in front.
    """
    verdict = outcome.verdict
    known = min(verdict.error, verdict.surprise)
    return not _broken(outcome) and verdict.balanced > 1.5 * known + 0.05


def hurries(treated: Outcome, without: Outcome) -> bool:
    """Whether a rate or an optimizer makes a difference that is more than haste.

    Nearly every healthy training can be hurried. So the training has to learn nothing as it is, or
    little, or nearly all of its error has to go.
    """
    return starts(treated, without) or _much(treated, without, bad=0.6, nearly_all=0.1)


def quickens(treated: Outcome, without: Outcome) -> bool:
    """Whether more steps over the same examples take most of the error away."""
    return starts(treated, without) or _much(treated, without, bad=0.6, nearly_all=0.25)


def mends(treated: Outcome, without: Outcome) -> bool:
    """Whether a change in the network or its loss makes a difference that is more than taste.

    Sigmoids, squared errors and wide first weights train many small networks well enough.
    """
    return _much(treated, without, bad=0.35, nearly_all=0.15)


def wakes(treated: Outcome, without: Outcome) -> bool:
    """Whether a training that learned nothing learns with the remedy, or is better by much."""
    return starts(treated, without) or mends(treated, without)


def _much(treated: Outcome, without: Outcome, *, bad: float, nearly_all: float) -> bool:
    if not better(treated, without):
        return False
    if _broken(without):
        return True
    new, old = treated.verdict.error, without.verdict.error
    return (old > bad and new < 0.6 * old) or (old > GOOD and new < nearly_all * old)


def diverges(outcome: Outcome) -> bool:
    """Whether the loss breaks off or ends far above where it began."""
    if outcome.ended or not outcome.losses:
        return True
    start = smoothed(outcome.losses[:3], last=3)
    return smoothed(outcome.losses, last=5) > 3 * abs(start) + 1e-12


def _broken(outcome: Outcome) -> bool:
    return bool(outcome.ended) or math.isinf(outcome.verdict.error)


def _converges(outcome: Outcome) -> bool:
    """Whether the loss falls well below its start, and the answers are no worse than chance."""
    losses = outcome.losses
    late = losses[len(losses) // 2 :]
    fell = bool(late) and smoothed(late, last=8) < 0.8 * losses[0]
    return fell and outcome.verdict.error < 1.1


def learns(outcome: Outcome) -> bool:
    """Whether the answers are clearly better than those of a model that knows nothing."""
    verdict = outcome.training
    return not _broken(outcome) and verdict.error < 0.9 - verdict.doubt


def trial_of(
    without: Outcome, treated: Outcome, *, remedy: str, measured: str, helps: bool
) -> Trial:
    """The two arms as a Trial."""
    return Trial(
        remedy=remedy,
        steps=max(without.steps, treated.steps),
        without=without.arm,
        treated=treated.arm,
        measured=measured,
        helps=helps,
    )
