"""Tests of doctor/setup_diagnosis: the order of findings, the cost, what is said of limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from leadline.core.errors import MeasurementError
from leadline.doctor.course import Course
from leadline.doctor.finding import Finding
from leadline.doctor.patient import patient_of
from leadline.doctor.setup_diagnosis import _ranked, diagnose_setup
from leadline.training.execution import Execution
from leadline.training.setup import Setup


def network(*ends: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3), *ends)


def setup_of(*ends: nn.Module, lr: float = 0.05, epochs: int = 10, held: bool = True) -> Setup:
    rows = torch.randn(240, 4, generator=torch.Generator().manual_seed(0))
    labels = rows[:, :3].argmax(dim=1)
    pairs = [(rows[i : i + 24], labels[i : i + 24]) for i in range(0, 240, 24)]
    return Setup(
        model=lambda: network(*ends),
        batches=pairs[:8],
        validation=pairs[8:] if held else None,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=lr),
        epochs=epochs,
    )


def test_a_healthy_setup_has_no_finding_and_keeps_its_weights_and_streams() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    diagnosis = diagnose_setup(setup_of(), seconds=5)
    assert diagnosis.healthy
    assert diagnosis.findings == ()
    assert diagnosis.baseline is not None
    assert diagnosis.baseline.error < 0.3
    assert torch.equal(torch.get_rng_state(), before)


def test_errors_come_before_what_is_only_a_note() -> None:
    diagnosis = diagnose_setup(setup_of(nn.Softmax(dim=1), held=False), seconds=5)
    severities = [finding.severity for finding in diagnosis.findings]
    assert diagnosis.findings[0].cause == "double_softmax"
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert diagnosis.findings[-1].cause == "validation_missing"


def test_a_functional_dropout_in_evaluation_is_certain_without_a_trial() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 3)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.last(nn.functional.dropout(self.first(rows).relu(), 0.2))  # type: ignore[no-any-return]

    diagnosis = diagnose_setup(replace(setup_of(), model=Net), seconds=5)
    (finding,) = diagnosis.findings
    assert (finding.cause, finding.severity) == ("dropout_misuse", "warning")
    assert finding.proven and finding.trial is None and finding.change is None


def test_a_length_is_named_behind_all_else_that_is_proven() -> None:
    def found(cause: str, *, proven: bool = True) -> Finding:
        return Finding(
            cause=cause, severity="warning", summary="", evidence=(), remedy="", proven=proven
        )

    course = Course(
        base=patient_of(setup_of(), execution=None, steps=None, seconds=5).arm(),
        certain=[found("params_frozen", proven=False), found("padding_in_loss")],
        proven=[found("epochs_too_few")],
        ruled_out=[],
        untried=[],
    )
    ranked = [finding.cause for finding in _ranked(course)]
    assert ranked == ["padding_in_loss", "epochs_too_few", "params_frozen"]


def test_what_it_cost_is_told_in_steps_seconds_and_as_a_share() -> None:
    diagnosis = diagnose_setup(setup_of(), seconds=5)
    assert diagnosis.steps > 80  # the baseline alone
    assert 0 < diagnosis.seconds < 60
    assert diagnosis.share is not None
    assert diagnosis.allowance == "5 s"


def test_an_allowance_in_steps_is_kept() -> None:
    diagnosis = diagnose_setup(setup_of(nn.Softmax(dim=1), epochs=500), steps=600)
    assert diagnosis.steps <= 600
    assert "600 steps" in diagnosis.allowance


def test_the_same_setup_gives_the_same_diagnosis(timeless: Any) -> None:
    first, second = (
        diagnose_setup(setup_of(lr=30.0), steps=2000, seconds=60).to_plain() for _ in range(2)
    )
    assert timeless(first) == timeless(second)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_arms_run_in_the_execution_that_is_given(precision: str) -> None:
    execution = Execution(precision=precision, threads=1)  # type: ignore[arg-type]
    diagnosis = diagnose_setup(setup_of(nn.Softmax(dim=1)), seconds=5, execution=execution)
    assert diagnosis.findings[0].cause == "double_softmax"


def test_what_the_allowance_did_not_reach_is_a_limit() -> None:
    setup = setup_of(epochs=900)
    sick = replace(
        setup,
        model=lambda: nn.Sequential(
            nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3)
        ),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-2),
    )
    diagnosis = diagnose_setup(sick, steps=1)
    limit = next(said for said in diagnosis.limits if "these could be tried" in said)
    assert limit.startswith("the allowance was spent before these could be tried: ")
    assert "hidden_activation_wrong" in limit
    assert any(said.startswith("it does not learn, and the allowance") for said in diagnosis.limits)


def test_batches_that_can_be_run_through_once_are_a_limit() -> None:
    setup = setup_of()
    once = replace(setup, batches=(batch for batch in setup.batches))
    diagnosis = diagnose_setup(once, seconds=5)
    assert any("only once" in limit for limit in diagnosis.limits)
    assert diagnosis.problem == "one of 3 classes"
    assert diagnosis.baseline is not None and diagnosis.baseline.error < 0.5


def test_a_setup_without_batches_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="batches that are empty"):
        diagnose_setup(replace(setup_of(), batches=[]))


def test_a_broadcast_target_is_a_finding_and_no_flood_of_warnings(
    recwarn: pytest.WarningsRecorder,
) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(256, 4)
    rows = list(zip(inputs.split(32), inputs.sum(dim=1).split(32), strict=True))
    setup = Setup(
        model=lambda: nn.Linear(4, 1),
        batches=rows,
        loss=nn.MSELoss(),
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
        epochs=5,
    )
    diagnosis = diagnose_setup(setup, seconds=5)
    assert diagnosis.findings[0].cause == "target_broadcast_shape"
    assert not recwarn.list
