"""The first look: what is certain, and what is suspected, before any trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from leadline.core.errors import LeadlineError
from leadline.doctor.causes.suspected import (
    architecture,
    data,
    depth,
    evaluation,
    fitting,
    loss_answers,
    network,
    numerics,
    optimisation,
    pictures,
    sequences,
    workers,
)
from leadline.doctor.causes.suspected import training_loop as loop
from leadline.doctor.finding import Finding
from leadline.doctor.patient import Patient
from leadline.doctor.prescription import prescribe

STRUCTURE = frozenset(
    {
        "input_not_normalized",
        "input_double_normalized",
        "target_not_normalized",
        "hidden_activation_wrong",
        "activation_missing",
        "loss_wrong",
        "init_constant",
        "init_bad_scale",
        "norm_missing",
        "reg_too_strong",
        "dropout_too_high",
        "dropout_misuse",
        "params_frozen",
        "clip_too_small",
        "scheduler_misused",
        "norm_eval_stats_broken",
        "class_imbalance",
        "optimizer_params_wrong",
    }
)
"""Causes that are named before the learning rate where both remedies help as much."""

ON_TRIAL = STRUCTURE | {
    "reg_missing",
    "lr_too_high",
    "lr_too_low",
    "optimizer_wrong",
    "batch_size_too_small",
    "batch_size_too_large",
    "epochs_too_few",
    "capacity_too_small",
    "activation_extra",
    "layer_extra",
    "layer_missing",
}
"""Causes that count only as far as a trial shows it, unless one batch made an error of them."""

EXPLAINS = {
    "input_not_finite": {"nonfinite_value"},
    "low_precision_overflow": {"nonfinite_value", "gradient_of_sqrt_at_zero"},
    "low_precision_update_lost": {"lr_too_low"},
    "clip_misplaced": {"nonfinite_value"},
    "gradient_sign_flipped": {"loss_wrong", "loss_numerically_unstable"},
}
"""What a cause brings about and would otherwise be named beside it."""

Look = Callable[[Patient], Iterable[Finding]]

CERTAIN: tuple[Look, ...] = (
    data.certain,
    sequences.certain,
    loss_answers.certain,
    numerics.certain,
    pictures.certain,
    workers.certain,
)
"""Who says what is beyond doubt ahead of the check, causes nearer to the data first."""

FITTING: tuple[Look, ...] = (
    fitting.certain,
    architecture.certain,
    loop.certain,
    evaluation.certain,
    optimisation.options,
)
"""And who does behind it."""

SUSPECTED: tuple[Look, ...] = (
    data.suspicions,
    sequences.suspicions,
    fitting.suspicions,
    loss_answers.suspicions,
    numerics.suspicions,
    loop.suspicions,
    depth.suspicions,
    network.suspicions,
    architecture.suspicions,
    optimisation.other_batches,
)
"""Who says what a trial has to prove."""


def first_look(patient: Patient) -> tuple[list[Finding], list[Finding]]:
    """What is certain, and what is suspected, before any trial; each cause once."""
    checked = [_with_change(patient, f) for f in patient.checked.checkup.findings]
    doubtful = [f for f in checked if f.severity != "error"]
    if not data.all_alike(patient):  # one batch of one class among others is chance
        doubtful = [f for f in doubtful if f.cause != "shuffle_missing"]
    sure = [f for look in CERTAIN for f in _seen_by(look, patient)]
    sure += [f for f in checked if f.severity == "error"]
    sure += [f for look in FITTING for f in _seen_by(look, patient)]
    standing = [f for f in doubtful if f.proven or f.cause not in ON_TRIAL]
    weighed = [f for f in doubtful if f not in standing]
    for look in SUSPECTED:
        weighed += _seen_by(look, patient)
    certain = _once([*sure, *standing], ())
    weighed = without_explained(weighed, by=certain)
    certain = without_explained(certain, by=certain)
    treatable = [f for f in weighed if f.change is not None]
    others = [f for f in weighed if f.change is None]
    return certain, _once([*treatable, *others], {f.cause for f in certain})


def without_explained(findings: Iterable[Finding], *, by: Iterable[Finding]) -> list[Finding]:
    """The findings that are no consequence of one of those others."""
    explained = {word for finding in by for word in EXPLAINS.get(finding.cause, ())}
    return [finding for finding in findings if finding.cause not in explained]


def _seen_by(look: Look, patient: Patient) -> list[Finding]:
    """What one family sees; one that fails on this patient is said, and the others go on."""
    seen: list[Finding] = []
    try:
        for finding in look(patient):
            seen.append(_with_change(patient, finding))  # kept where a later one fails
    except (
        LeadlineError,
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
    ) as error:
        name = look.__module__.rpartition(".")[2]
        patient.limits.append(f"all that {name} looks at could not be told: {error}")
    return seen


def _once(findings: list[Finding], known: set[str] | tuple[str, ...]) -> list[Finding]:
    seen = set(known)
    kept = []
    for finding in findings:
        if finding.cause not in seen:
            kept.append(finding)
            seen.add(finding.cause)
    return kept


def _with_change(patient: Patient, finding: Finding) -> Finding:
    if finding.change is not None:
        return finding
    try:
        return replace(finding, change=prescribe(finding, patient))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        patient.limits.append(f"no remedy could be made for {finding.cause}: {error}")
        return finding
