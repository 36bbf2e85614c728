"""Tests of a diagnosis: what it applies, what it refuses to, and how it is handed on."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from leadline.core.errors import TrainingError
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.remedy import Remedy
from leadline.doctor.trial import Arm, Trial
from leadline.training.setup import Setup


def setup_of(**changes: Any) -> Setup:
    parts: dict[str, Any] = {
        "model": lambda: nn.Linear(2, 1),
        "batches": [(torch.ones(4, 2), torch.ones(4, 1))] * 3,
        "loss": nn.MSELoss(),
        "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    }
    return Setup(**(parts | changes))


def epochs(factor: int) -> Remedy:
    return Remedy(
        title=f"epochs times {factor}", apply=lambda s: replace(s, epochs=s.epochs * factor)
    )


def trial(before: float, after: float) -> Trial:
    arms = [Arm(losses=(1.0,), error=error, surprise=error) for error in (before, after)]
    return Trial(
        remedy="", steps=1, without=arms[0], treated=arms[1], measured="", helps=after < before
    )


def finding(cause: str = "lr_too_low", **changes: Any) -> Finding:
    parts: dict[str, Any] = {
        "cause": cause,
        "severity": "error",
        "summary": "a sentence",
        "evidence": (Evidence(quantity="q", measured=math.nan, expected="a number"),),
        "remedy": "change it",
        "proven": True,
        "change": epochs(2),
    }
    return Finding(**(parts | changes))


def diagnosis_of(*findings: Finding, **changes: Any) -> Diagnosis:
    parts: dict[str, Any] = {
        "model": "Linear",
        "problem": "numbers",
        "measured": "squared error",
        "findings": findings,
        "ruled_out": (),
        "baseline": Arm(losses=(1.0, math.inf), error=math.nan, surprise=1.0),
        "limits": ("one limit",),
        "steps": 10,
        "seconds": 1.23456,
        "allowance": "30 s",
        "share": 0.123456,
    }
    return Diagnosis(**(parts | changes))


# ------------------------------------------------------------------------------- what is applied


@pytest.mark.parametrize(
    ("severities", "healthy"),
    [((), True), (("note",), True), (("note", "warning"), False), (("error",), False)],
)
def test_it_is_healthy_without_an_error_or_a_warning(severities: Any, healthy: bool) -> None:
    found = [finding(severity=severity) for severity in severities]
    assert diagnosis_of(*found).healthy is healthy


def test_every_proven_remedy_is_applied_in_rank_order() -> None:
    order: list[str] = []

    def noting(name: str) -> Remedy:
        def apply(setup: Setup) -> Setup:
            order.append(name)
            return setup

        return Remedy(title=name, apply=apply)

    diagnosis = diagnosis_of(
        finding(change=noting("first")), finding("lr_too_high", change=noting("second"))
    )
    setup = setup_of()
    assert diagnosis.treat(setup) is setup
    assert order == ["first", "second"]


def test_remedies_add_up_and_the_setup_given_stays_as_it_is() -> None:
    setup = setup_of()
    treated = diagnosis_of(finding(), finding("lr_too_high", change=epochs(5))).treat(setup)
    assert (treated.epochs, setup.epochs) == (10, 1)


@pytest.mark.parametrize(
    "left_out",
    [
        finding(proven=False),
        finding(severity="note"),
        finding(change=None),
        finding(trial=trial(0.1, 0.9)),  # it did harm in its trial
    ],
)
def test_what_is_not_proven_a_note_or_harmful_is_not_applied(left_out: Finding) -> None:
    sound = finding("lr_too_high", change=epochs(5), trial=trial(0.9, 0.1))
    diagnosis = diagnosis_of(left_out, sound)
    assert diagnosis.remedies == (sound.change,)
    assert diagnosis.treat(setup_of()).epochs == 5


@pytest.mark.parametrize(
    ("findings", "received", "remedy"),
    [
        ((), "no finding", "there is nothing to treat"),
        (
            (finding(proven=False), finding("graph_cut", change=None)),
            "lr_too_low (not proven); graph_cut (proven)",
            "read the findings' remedies and change the lines by hand",
        ),
        (
            (finding(change=Remedy(title="zero the gradients")),),
            "lr_too_low (proven)",
            "read the findings' remedies and change the lines by hand",
        ),
    ],
)
def test_without_a_remedy_to_apply_treating_is_an_error(
    findings: tuple[Finding, ...], received: str, remedy: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        diagnosis_of(*findings).treat(setup_of())
    assert caught.value.expected == (
        "a diagnosis with a proven remedy that can be applied to a Setup"
    )
    assert (caught.value.received, caught.value.remedy) == (received, remedy)


# ---------------------------------------------------------------------------- functions that train


def rerunning(name: str, log: list[str]) -> Remedy:
    @contextlib.contextmanager
    def around() -> Iterator[None]:
        log.append(f"enter {name}")
        yield
        log.append(f"leave {name}")

    return Remedy(title=name, rerun=around)


def test_a_function_is_run_inside_every_remedy() -> None:
    log: list[str] = []

    def train(start: int, *, stop: int) -> int:
        log.append("train")
        return stop - start

    diagnosis = diagnosis_of(
        finding(change=rerunning("a", log)), finding("lr_too_high", change=rerunning("b", log))
    )
    healed = diagnosis.treat(train)
    assert log == []
    assert healed(1, stop=9) == 8
    assert log == ["enter a", "enter b", "train", "leave b", "leave a"]


def test_the_remedies_come_off_when_the_function_fails() -> None:
    entered: list[bool] = []

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        entered.append(True)
        try:
            yield
        finally:
            entered.append(False)

    def train() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        diagnosis_of(finding(change=Remedy(title="", rerun=around))).treat(train)()
    assert entered == [True, False]


def test_a_function_with_a_recorded_setup_trains_that_setup_healed() -> None:
    torch.manual_seed(0)
    recorded = setup_of(epochs=1)

    def train() -> nn.Module:
        raise AssertionError("the sick loop was run")

    def error_of(model: nn.Module) -> float:
        return float((model(torch.ones(1, 2)) - 1).abs().detach())

    slow = diagnosis_of(finding(change=epochs(1)), recorded=recorded).treat(train)()
    long = diagnosis_of(finding(change=epochs(40)), recorded=recorded).treat(train)()
    assert error_of(long) < 1e-4 < error_of(slow)


def test_a_recorded_setup_without_a_remedy_of_its_own_leaves_the_function() -> None:
    log: list[str] = []
    diagnosis = diagnosis_of(finding(change=rerunning("a", log)), recorded=setup_of())
    diagnosis.treat(lambda: log.append("train"))()
    assert log == ["enter a", "train", "leave a"]


def test_a_function_without_a_remedy_is_named_by_its_kind() -> None:
    train: Callable[[], None] = lambda: None  # noqa: E731 - its type's name is in the message
    with pytest.raises(TrainingError, match="applied to a function"):
        diagnosis_of(finding()).treat(train)


# --------------------------------------------------------------------------------- how it is told


def test_it_is_plain_values_for_json() -> None:
    diagnosis = diagnosis_of(
        finding(trial=trial(0.9, 0.1)), ruled_out=(finding("lr_too_high", proven=False),)
    )
    plain = json.loads(json.dumps(diagnosis.to_plain(), allow_nan=False))
    assert plain == diagnosis.to_plain()
    assert {"model", "problem", "measured", "healthy", "baseline", "limits"} < set(plain)
    assert plain["healthy"] is False
    assert [f["cause"] for f in plain["findings"]] == ["lr_too_low"]
    assert [f["cause"] for f in plain["ruled_out"]] == ["lr_too_high"]
    assert plain["baseline"]["losses"] == [1.0, "inf"]
    assert plain["cost"] == {"steps": 10, "seconds": 1.235, "allowance": "30 s", "share": 0.1235}
    entry = plain["findings"][0]
    assert {"cause", "severity", "proven", "evidence", "remedy", "trial"} < set(entry)
    assert entry["trial"]["gain"] == pytest.approx(0.8889)


def test_what_is_not_known_is_null() -> None:
    plain = diagnosis_of(baseline=None, share=None).to_plain()
    assert (plain["baseline"], plain["cost"]["share"], plain["findings"]) == (None, None, [])


def test_its_text_names_the_cause_and_the_limits() -> None:
    text = str(diagnosis_of(finding()))
    assert "lr_too_low" in text and "one limit" in text
