"""The procedure: from a patient to ranked causes: certain ones, then trials of what is suspected.

    1  what one batch and the examples show beyond doubt; each with its remedy, tried
    2  every suspicion tried by itself against the training as it stands
    3  the one that helps most is applied, and what helped beside it is tried on top; again, until
       nothing helps any more or the allowance is spent

A suspicion whose remedy does not help is ruled out. The order of the findings is: what is certain,
causes nearer to the data first; then what the trials proved, by how much of the error went.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from leadline.doctor.arm import Outcome
from leadline.doctor.at_length import try_at_length
from leadline.doctor.causes.suspected import generalisation
from leadline.doctor.causes.suspected.labels import corrupted
from leadline.doctor.comparison import better, learns, trial_of
from leadline.doctor.course import RATES, Course, Tried, adopt, attempt, with_trial
from leadline.doctor.finding import Finding
from leadline.doctor.first_look import STRUCTURE, first_look
from leadline.doctor.patient import Patient
from leadline.doctor.rate_search import AHEAD, rate_remedied, retune, try_rates, with_other_rate
from leadline.doctor.unexplained import still_suspected, where_to_look

REBUILDS = frozenset({"layer_extra", "layer_missing", "capacity_too_small"})
"""Causes whose remedy is another network, named behind one that needs no other."""

OTHER_QUESTION = frozenset({"labels_shifted", "padding_in_loss"})
"""Causes whose remedy changes the targets: arms with and without it answer different questions."""

WELL = 0.1
"""Error of a healed training that is not looked into any further."""

TUNED_AROUND = frozenset({"loss_reduction_wrong"})
"""Causes that a rate may have been chosen for: no more than a note where the remedy does harm."""

WORSE = -0.25
"""Gain of a trial that went the wrong way: what it was to heal does no harm here."""

NOTHING_LEFT = 0.03
"""Error of a training as it was given in which there is nothing to find."""

ROUNDS = 3
"""Remedies on top of one another."""


def run(patient: Patient) -> tuple[Course, Outcome]:
    """Everything found, and the arm of the training as it was given."""
    certain, suspects = first_look(patient)
    sick = patient.arm()
    course = Course(base=sick, certain=[], proven=[], ruled_out=[], untried=[])
    for finding in certain:
        _treat_certain(patient, course, finding)
    treatable = [f for f in suspects if f.change is not None]
    course.certain += [f for f in suspects if f.change is None]
    suspects = treatable
    for _ in range(ROUNDS):
        if _answered(course) or _breaks_off(patient, course):
            course.untried += suspects
            break
        tried = list(_round(patient, course, suspects))
        helped = sorted((t for t in tried if t.helps), key=_order)
        course.ruled_out += [t.finding for t in tried if not t.helps]
        if not helped:
            break
        adopt(course, helped[0])
        suspects = [t.finding for t in helped[1:] if _distinct(t, helped[0])]
        course.ruled_out += [t.finding for t in helped[1:] if not _distinct(t, helped[0])]
        if not suspects and not patient.affords():
            break
    if not course.base.crashed:
        retune(patient, course)
        _last_look(patient, course)
    if not patient.affords() and not learns(course.base) and not course.proven:
        patient.limits.append(
            "it does not learn, and the allowance was spent before rates, optimizers and the rest "
            "could be tried: give it more seconds or steps"
        )
    explained = course.proven or any(f.severity == "error" for f in course.certain)
    if not explained and not course.base.crashed and not learns(course.base):
        try_at_length(patient, course)
        if not course.proven:
            course.certain += still_suspected(patient, course, STRUCTURE)
            patient.limits += where_to_look(patient, *course.remedies)
    told = {f.cause for f in [*course.ruled_out, *course.proven, *course.certain]}
    course.untried = [f for f in course.untried if f.cause not in told]
    return course, sick


def _breaks_off(patient: Patient, course: Course) -> bool:
    """Whether an error of the code ends the training as healed so far: then no trial can tell.

    A remedy would seem to help where the error only happens not to come.
    """
    base = course.base
    if not base.crashed:
        return False
    if base.steps:
        again = patient.arm(*course.remedies)
        said = f"the training breaks off after {base.steps} steps with {base.ended}"
        if (again.ended, again.steps) != (base.ended, base.steps):
            then = f"after {again.steps} steps" if again.ended else "not at all"
            said += f", and {then} when it is run again"
    else:
        said = f"the training breaks off at its first step with {base.ended}"
    patient.limits.append(f"{said}: what is suspected could not be tried")
    return True


def _answered(course: Course) -> bool:
    """Whether nothing is left to explain: what was found heals nearly all of the error."""
    verdict = course.base.verdict
    left = max(verdict.error, 0.0 if math.isnan(verdict.balanced) else verdict.balanced)
    found = bool(course.proven) or any(f.severity == "error" for f in course.certain)
    return left < (WELL if found else NOTHING_LEFT)


def _last_look(patient: Patient, course: Course) -> None:
    """What only the healed training shows: statistics, labels, examples by heart, its length."""
    modes = generalisation.other_in_evaluation(patient, course.base)
    if modes is not None and patient.affords():
        _prove(course, attempt(patient, course, modes))
    labels = corrupted(patient, course.base, *course.remedies)
    if labels is not None:
        course.certain.append(labels)
        return
    heart = generalisation.by_heart(patient, course.base)
    if heart is not None and patient.affords():
        _prove(course, attempt(patient, course, heart))
    if not course.proven and not any(f.severity == "error" for f in course.certain):
        _length(patient, course)


def _length(patient: Patient, course: Course) -> None:
    """Whether it stops too early, where nothing else is wrong."""
    falls = generalisation.falls_at_the_end(patient, course.base)
    if falls is not None:
        course.certain.append(falls)
    short = generalisation.too_short(patient, course.base, *course.remedies)
    if short is None:
        return
    finding, longer = short
    adopt(course, with_trial(patient, course, finding, longer, helps=True))


def _prove(course: Course, tried: Tried) -> None:
    if tried.helps:
        adopt(course, tried)
    else:
        course.ruled_out.append(tried.finding)


def _treat_certain(patient: Patient, course: Course, finding: Finding) -> None:
    """Try the remedy of a certain finding on what is healed so far; it stands in any case."""
    change = finding.change
    untried = change is None or change.apply is None or finding.cause in OTHER_QUESTION
    if change is None or untried or not patient.affords():
        sure = finding.severity == "error"
        course.certain.append(replace(finding, proven=finding.proven or sure))
        return
    outcome = patient.arm(*course.remedies, change)
    if finding.severity == "error" and _worse(outcome, course.base):
        change, outcome = with_other_rate(patient, course, change, outcome)
        finding = replace(finding, change=change)
    helps = better(outcome, course.base) or _runs_at_last(outcome, course.base)
    trial = trial_of(
        course.base,
        outcome,
        remedy=change.title,
        measured=patient.problem.measured,
        helps=helps,
    )
    proven = helps or finding.proven or finding.severity == "error"
    if trial.gain < WORSE and not proven and finding.cause in TUNED_AROUND:
        finding = replace(finding, severity="note")
    course.certain.append(replace(finding, proven=proven, trial=trial))
    if not trial.harms and finding.severity != "note":
        course.remedies.append(change)
        course.base = outcome


def _runs_at_last(treated: Outcome, without: Outcome) -> bool:
    """Whether it learns with the remedy, and without it breaks off before its first step."""
    return without.crashed and without.steps == 0 and learns(treated)


def _worse(treated: Outcome, without: Outcome) -> bool:
    trial = trial_of(without, treated, remedy="", measured="", helps=False)
    return trial.harms


def _round(patient: Patient, course: Course, suspects: list[Finding]) -> Iterator[Tried]:
    """Each suspicion by itself on the Setup as it stands; rates and optimizers among them."""
    for finding in suspects:
        if not patient.affords():
            course.untried.append(finding)
            continue
        yield attempt(patient, course, finding)
    if not any(f.cause in RATES for f in course.proven) and rate_remedied(course) is None:
        yield from try_rates(patient, course)


def _order(tried: Tried) -> float:
    """The largest gain first; a cause in the structure before one in the rate.

    To take layers out, or put them in, helps whatever makes learning hard: named behind what does.
    """
    cause = tried.finding.cause
    ahead = AHEAD if cause in STRUCTURE else -2 * AHEAD if cause in REBUILDS else 0.0
    return -(tried.gain + ahead)


def _distinct(tried: Tried, adopted: Tried) -> bool:
    """Two remedies of one kind exclude each other: a rate found for the sick network, say."""
    return not (tried.finding.cause in RATES and adopted.finding.cause in RATES)
