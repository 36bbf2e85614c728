"""Faults of precision, shown by computing the same in a wider type: overflow, lost steps, rounding.

Half precision fails in two ways. What is larger than 65,504 becomes infinite in float16; and a
step smaller than half the spacing of the weights (1/256 of them in bfloat16, 1/2,048 in float16) is
rounded away. float32 fails where a difference of large numbers, or a number next to 0, is all that
counts: then float64 gives another loss, or another gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from leadline.core.errors import LeadlineError
from leadline.core.seeds import preserved_random_state
from leadline.core.taps import Taps, tensors_in
from leadline.doctor.causes.numerics import ROUNDING
from leadline.doctor.experiments import Precision, double_precision
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.prescription import outputs_are
from leadline.doctor.remedies.losses import fitting_loss
from leadline.doctor.remedies.precision import computed_in
from leadline.doctor.remedy import Remedy
from leadline.training.loop import steps
from leadline.training.state import TrainingState

NARROW = (torch.float16, torch.bfloat16)

LOOKED_AT = 4
"""Steps whose changes are looked at; the first of them, which Adam makes in full, is not."""

LOST, NEARLY_ALL = 0.7, 0.95
"""Share of the weights that hear a gradient and do not change: a warning, and an error."""

OTHER_LOSS, OTHER_GRADIENT = 1e-2, 0.1
"""Relative differences to float64 that no rounding explains: float32 resolves 1e-7 of a number."""

SOURCE = "Micikevicius et al. 2018, Mixed Precision Training, section 3"


def certain(patient: Patient) -> Iterator[Finding]:
    """What a wider type shows beyond doubt."""
    yield from _overflow(patient)
    yield from _lost(patient)
    yield from _rounding(patient)


def suspicions(patient: Patient) -> Iterator[Finding]:
    """Nothing about precision needs a trial: see `certain`."""
    yield from ()


@dataclass(frozen=True, kw_only=True)
class _Overflow:
    function: str
    dtype: torch.dtype
    largest: float


class _Watching(TorchFunctionMode):
    """Finds the first function that answers infinity in half precision, and a number in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.found: _Overflow | None = None
        self.narrow = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        narrow = isinstance(result, Tensor) and result.dtype in NARROW
        self.narrow |= narrow
        if self.found is None and narrow and not bool(torch.isfinite(result.detach()).all()):
            largest = _in_float32(func, args, kwargs)
            if largest is not None:
                name = getattr(func, "__name__", "a function").strip("_")
                self.found = _Overflow(function=name, dtype=result.dtype, largest=largest)
        return result


def _in_float32(func: Any, args: Any, kwargs: Any) -> float | None:
    """The largest answer of a function whose arguments are numbers, computed in float32."""
    given = [t for t in tensors_in((args, kwargs)) if t.is_floating_point()]
    if not given or not all(bool(torch.isfinite(t.detach()).all()) for t in given):
        return None

    def wide(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.detach().float()
        return type(value)(map(wide, value)) if type(value) in (tuple, list) else value

    name = getattr(func, "__name__", "")
    if name in ("half", "bfloat16", "to", "type", "type_as"):
        return max(float(t.detach().abs().max()) for t in given[:1])
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            result = func(*wide(tuple(args)), **{k: wide(v) for k, v in kwargs.items()})
    except Exception:
        return None  # it cannot be asked again by itself
    if not isinstance(result, Tensor) or not bool(torch.isfinite(result).all()):
        return None
    return float(result.abs().max())


def _overflow(patient: Patient) -> Iterator[Finding]:
    seen = patient.seen
    if seen is None:
        return
    watching = _Watching()
    model = seen.model
    try:
        with preserved_random_state(), Taps(model), torch.no_grad(), watching:
            outputs = seen.batch.forward(model)
            seen.batch.loss_of(outputs, seen.loss)
    except (LeadlineError, RuntimeError, TypeError, ValueError):
        return
    if watching.found is not None:
        found = watching.found
        yield _overflows(
            f"a {found.function} gives infinity in {_name(found.dtype)}, and a number in float32",
            Evidence(
                quantity=f"largest answer of {found.function} in float32",
                measured=found.largest,
                expected=f"at most {torch.finfo(found.dtype).max:,.0f}, the largest number of "
                + _name(found.dtype),
            ),
        )
    elif watching.narrow or _narrow_weights(patient):
        yield from _overflowing_gradient(patient)


def _overflowing_gradient(patient: Patient) -> Iterator[Finding]:
    """Gradients that are infinite in half precision, and numbers in float32."""
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    bad = [
        name
        for name, gradient in seen.survey.gradients.items()
        if gradient is not None and not bool(torch.isfinite(gradient).all())
    ]
    if not bad or not math.isfinite(seen.survey.loss):
        return
    setup = computed_in("float32")(patient.setup)
    try:
        with preserved_random_state():
            model = setup.model()
            setup.loss(seen.batch.forward(model), seen.batch.targets).backward()
    except (LeadlineError, RuntimeError, TypeError, ValueError):
        return
    wide = [p.grad for _, p in model.named_parameters() if p.grad is not None]
    if not wide or not all(bool(torch.isfinite(g).all()) for g in wide):
        return  # infinite in float32 as well: it is no matter of precision
    yield _overflows(
        "the gradient is infinite in half precision, and a number in float32",
        Evidence(
            quantity="parameters whose gradient is not finite",
            measured=float(len(bad)),
            expected="0, as in float32",
        ),
        layers=tuple(reversed(bad)),
    )


def _overflows(summary: str, evidence: Evidence, *, layers: tuple[str, ...] = ()) -> Finding:
    return Finding(
        cause="low_precision_overflow",
        severity="error",
        summary=summary,
        layers=layers,
        evidence=(evidence,),
        remedy="compute in bfloat16 or float32; keep losses, norms and sums in float32",
        source=SOURCE,
        change=computed_in("float32"),
        proven=True,
    )


def _narrow_weights(patient: Patient) -> set[torch.dtype]:
    model = patient.seen.model if patient.seen is not None else None
    return {p.dtype for p in model.parameters() if p.dtype in NARROW} if model else set()


def _lost(patient: Patient) -> Iterator[Finding]:
    """Weights in half precision that their steps are too small for."""
    narrow = _narrow_weights(patient)
    if not narrow:
        return
    shares = _shares_lost(patient)
    if len(shares) < 2:
        return
    share = sorted(shares)[len(shares) // 2]
    if not share > LOST:
        return
    name = " and ".join(sorted(map(_name, narrow)))
    spacing = max(torch.finfo(dtype).eps for dtype in narrow)
    yield Finding(
        cause="low_precision_update_lost",
        severity="error" if share > NEARLY_ALL else "warning",
        summary=f"the weights are kept in {name}, and most steps are smaller than half its "
        "spacing: they are rounded away",
        evidence=(
            Evidence(
                quantity="share of the weights with a gradient that a step leaves as they were",
                measured=share,
                expected=f"below {LOST:g}",
            ),
            Evidence(
                quantity=f"spacing of {name}, as a part of a weight",
                measured=spacing,
                expected="below the relative change of a step, about 1e-3",
            ),
        ),
        remedy="keep the weights in float32, and compute under torch.autocast",
        source=SOURCE,
        change=computed_in("float32"),
        proven=True,
    )


def _shares_lost(patient: Patient) -> list[float]:
    """For each of the first steps but one: of the weights that hear a gradient, those that stay.

    Without the schedule: a warm-up's first steps are small on purpose.
    """
    accumulate = patient.setup.accumulate
    batches = patient.drawn.take(LOOKED_AT * accumulate)
    plain = replace(
        patient.setup, batches=batches, epochs=1, schedule=None, validation=None, patience=0
    )
    shares: list[float] = []
    with preserved_random_state():
        state = TrainingState(plain, patient.execution)
        held = [p for p in state.model.parameters() if p.dtype in NARROW and p.requires_grad]
        before = [p.detach().clone() for p in held]
        try:
            for step in steps(plain, patient.execution, state=state):
                patient.allowance.spent_steps += 1
                pairs = [
                    (p, old) for p, old in zip(held, before, strict=True) if p.grad is not None
                ]
                heard = sum(int((p.grad != 0).sum()) for p, _ in pairs if p.grad is not None)
                stayed = sum(
                    int(((p.grad != 0) & (p == old)).sum()) for p, old in pairs
                    if p.grad is not None
                )  # fmt: skip
                if heard and step.index > 1:
                    shares.append(stayed / heard)
                before = [p.detach().clone() for p in held]
        except (LeadlineError, RuntimeError, TypeError, ValueError) as error:
            patient.limits.append(f"steps in half precision could not be followed: {error}")
    return shares


def _rounding(patient: Patient) -> Iterator[Finding]:
    """A loss or a gradient that float64 gives otherwise."""
    seen = patient.seen
    if seen is None or _narrow_weights(patient) or not math.isfinite(seen.survey.loss):
        return
    if seen.determinism is not None and seen.determinism.redrawn > ROUNDING:
        return  # it draws: two types draw different numbers
    found = double_precision(patient)
    if found is None or not math.isfinite(found.wide_loss + found.gradient_apart):
        return
    if found.loss_apart < OTHER_LOSS and found.gradient_apart < OTHER_GRADIENT:
        return
    change = _wider(patient, found)
    yield Finding(
        cause="loss_numerically_unstable",
        severity="error" if max(found.loss_apart, found.gradient_apart) > 0.5 else "warning",
        summary="float64 gives another "
        + ("loss" if found.loss_apart >= OTHER_LOSS else "gradient")
        + " than float32: what counts is lost in rounding, "
        + ("in the loss" if found.in_loss else "in the model"),
        evidence=(
            Evidence(
                quantity="loss in float32",
                measured=found.loss,
                expected=f"{found.wide_loss:.6g}, as in float64",
            ),
            Evidence(
                quantity="relative difference of the gradients in float32 and float64",
                measured=found.gradient_apart,
                expected=f"below {OTHER_GRADIENT:g}",
            ),
        ),
        remedy=change.title,
        source="Goldberg 1991, What Every Computer Scientist Should Know About Floating-Point",
        change=change,
        proven=True,
    )


def _wider(patient: Patient, found: Precision) -> Remedy:
    known = patient.problem.kind != "unknown"
    if found.in_loss and known:
        return fitting_loss(patient.problem, outputs_are(patient))
    return computed_in("float64")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
