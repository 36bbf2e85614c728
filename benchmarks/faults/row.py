"""One row of the benchmark: a case, a seed, and all that is done with it, in a process of its own.

The doctor looks at the buggy program and at its fixed twin. With `repair`, the buggy program, the
twin, the treated program and the one found by random search under the same number of steps are
trained and scored. With `baselines`, the published thresholds speak too.
"""

from __future__ import annotations

import math
import time
import traceback
from dataclasses import dataclass, replace
from typing import Any

import torch
from case import Case, Subject, scale, train

from leadline.core.errors import LeadlineError
from leadline.doctor.diagnose import diagnose
from leadline.doctor.diagnosis import Diagnosis
from leadline.training.execution import Execution
from leadline.training.setup import Setup


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to do: which case of which suite, with which seed."""

    suite: str
    name: str
    seed: int
    scale: str
    repair: bool
    baselines: bool
    twins: bool
    device: str


def suite_cases(suite: str) -> tuple[Case, ...]:
    """The cases of a suite: 'real', 'seeded' or 'healthy'."""
    if suite == "real":
        import real

        return real.cases()
    if suite == "seeded":
        import seeded

        return seeded.cases()
    import healthy_cases

    return healthy_cases.cases()


def attempt(job: Job) -> dict[str, Any]:
    """The row, or why there is none: a case that cannot be built does not stop the others."""
    try:
        return run(job)
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
        return {"case": job.name, "seed": job.seed, "failed": failed}


def run(job: Job) -> dict[str, Any]:
    """The row as plain values; what fails is written down, and the rest goes on."""
    torch.set_num_threads(1)
    scale(job.scale)  # type: ignore[arg-type]  # one of two words, by the command line
    case = next(case for case in suite_cases(job.suite) if case.name == job.name)
    case = replace(case, execution=replace(case.execution, device=job.device))
    row: dict[str, Any] = {
        "case": case.name,
        "suite": job.suite,
        "split": case.split,
        "seed": job.seed,
        "faults": list(case.faults),
        "metric": case.metric,
        "higher_is_better": case.higher_is_better,
        "enough": case.enough,
        "form": "setup" if isinstance(case.buggy(job.seed), Setup) else "loop",
    }
    subject = case.buggy(job.seed)
    diagnosis = _look(row, "buggy", subject, case)
    if case.fixed is not None and job.twins:
        _look(row, "fixed", case.fixed(job.seed), case)
    if job.baselines and isinstance(subject, Setup):
        row["baselines"] = _baselines(subject, case.execution)
    if job.repair and case.fixed is not None:
        row["scores"] = _scores(case, job.seed, diagnosis)
    return row


def _look(row: dict[str, Any], which: str, subject: Subject, case: Case) -> Diagnosis | None:
    begun = time.perf_counter()
    try:
        diagnosis = diagnose(subject, execution=case.execution)
    except Exception as error:  # a crash is a result too
        where = traceback.format_exc(limit=-3)
        row[which] = {"crash": f"{type(error).__name__}: {error}", "where": where}
        return None
    row[which] = {
        "findings": [
            {
                "cause": f.cause,
                "severity": f.severity,
                "proven": f.proven,
                "gain": None if f.trial is None else _plain(f.trial.gain),
                "remedy": None if f.change is None else f.change.title,
            }
            for f in diagnosis.findings
        ],
        "ruled_out": [f.cause for f in diagnosis.ruled_out],
        "limits": list(diagnosis.limits),
        "steps": diagnosis.steps,
        "seconds": round(time.perf_counter() - begun, 2),
        "share": None if diagnosis.share is None else round(diagnosis.share, 3),
        "error": None if diagnosis.baseline is None else _plain(diagnosis.baseline.error),
    }
    return diagnosis


def _plain(value: float) -> float | str:
    return round(value, 4) if math.isfinite(value) else str(value)


def _scores(case: Case, seed: int, diagnosis: Diagnosis | None) -> dict[str, Any]:
    """What the programs reach; the treated one is the buggy one where nothing could be treated."""
    scores: dict[str, Any] = {}
    begun = time.perf_counter()
    scores["buggy"] = _score(case, case.buggy(seed))
    scores["seconds"] = round(time.perf_counter() - begun, 2)
    assert case.fixed is not None, "asked by the caller"
    scores["fixed"] = _score(case, case.fixed(seed))
    subject = case.buggy(seed)
    try:
        if diagnosis is None:
            scores["treated"] = scores["buggy"]
        else:
            scores["treated"] = _score(case, diagnosis.treat(subject))
    except LeadlineError as error:
        scores["treated"], scores["untreated"] = scores["buggy"], str(error.received)
    except Exception as error:
        scores["treated"], scores["crash"] = scores["buggy"], f"{type(error).__name__}: {error}"
    if isinstance(subject, Setup) and diagnosis is not None:
        import random_search

        try:
            found = random_search.search(
                case.buggy(seed), steps=diagnosis.steps, seed=seed, execution=case.execution
            )
            scores["random"] = _score(case, found)
        except Exception as error:
            scores["random"], scores["random_crash"] = scores["buggy"], str(error)
    return scores


def _score(case: Case, subject: Subject) -> float | str:
    """What the program reaches; in words where it does not run, as torch refuses some faults."""
    try:
        value = case.score(train(subject, case.execution))
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        return f"does not run: {type(error).__name__}"
    return round(value, 5) if math.isfinite(value) else str(value)


def _baselines(subject: Setup, execution: Execution) -> dict[str, Any]:
    import baselines

    found = {}
    for name in ("umlaut", "autotrainer", "deepdiagnosis"):
        try:
            found[name] = list(getattr(baselines, name)(subject, execution=execution))
        except Exception as error:
            found[name] = [f"crash: {type(error).__name__}"]
    return found
