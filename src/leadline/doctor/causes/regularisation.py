"""Faults of regularisation: dropout that takes too much, or does not know when to stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from leadline.core.taps import Operation, Taps
from leadline.doctor.causes.numerics import ROUNDING
from leadline.doctor.examination import Examination, copied, settings
from leadline.doctor.finding import Evidence, Finding

HIGH_DROPOUT = 0.7
"""Share beyond which a dropout layer is a mistake: 0.5 is usual, GoogLeNet goes as far as 0.7."""

STRONG_DECAY = 0.02
"""Coupled weight decay (in the gradient) above the usual 1e-5 to 1e-2."""

STRONG_APART = 5.0
"""AdamW's decay, apart from the gradient: it holds every weight below 1 over this number."""

COUPLED = ("SGD", "Adam", "RMSprop", "Adagrad", "Adadelta", "Adamax")
"""Optimizers whose weight_decay is added to the gradient: AdamW's and Muon's is not."""

SAMPLING = ("normal", "bernoulli", "multinomial", "poisson", "exponential", "uniform")
"""Functions that draw, beside those that begin with rand."""


def signs(seen: Examination) -> Iterator[Finding]:
    """What dropout and weight decay say."""
    yield from _high(seen)
    yield from _in_evaluation(seen)
    yield from _decay(seen)


def _high(seen: Examination) -> Iterator[Finding]:
    high = {
        name: module.p
        for name, module in seen.model.named_modules()
        if isinstance(module, _DropoutNd | nn.AlphaDropout) and module.p > HIGH_DROPOUT
    }
    if high:
        name, worst = max(high.items(), key=lambda pair: pair[1])
        yield Finding(
            cause="dropout_too_high",
            severity="error" if worst >= 1 else "warning",
            summary=f"dropout removes {worst:.0%} of the units of {name!r}"
            + (": nothing is left" if worst >= 1 else ": little is left to learn with"),
            layers=tuple(high),
            evidence=(Evidence(quantity="dropout", measured=worst, expected="0.1 to 0.5"),),
            remedy="use 0.5 or less; p is the share that is removed, not kept",
            source="Srivastava et al. 2014, section 7.3",
        )


def _in_evaluation(seen: Examination) -> Iterator[Finding]:
    found = seen.determinism
    if found is None or found.repeated > ROUNDING or not found.redrawn > ROUNDING:
        return
    dropping, sampling = _draws(seen)
    meant = bool(sampling) and not dropping
    yield Finding(
        cause="dropout_misuse",
        severity="note" if meant else "warning",
        summary="the model draws samples in evaluation mode too: predictions change from call to "
        "call, as a variational network's do"
        if meant
        else "the model still draws random numbers in evaluation mode: predictions change from "
        "call to call",
        layers=dropping or sampling,
        evidence=(
            Evidence(
                quantity="relative difference of two passes in evaluation mode",
                measured=found.redrawn,
                expected="0",
            ),
        ),
        remedy="if it is not meant: draw only if self.training"
        if meant
        else "use nn.Dropout, or F.dropout(x, p, training=self.training); attention has dropout_p "
        "too, which must be 0 in evaluation",
        proven=True,
    )


def _draws(seen: Examination) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers that drop units in evaluation mode, and those that draw samples."""
    dropping: list[str] = []
    sampling: list[str] = []

    def listen(operation: Operation, inputs: tuple[Any, ...], output: Any) -> None:
        if "dropout" in operation.function:
            if not torch.equal(inputs[0], output):
                dropping.append(operation.name)
        elif operation.function.startswith("rand") or operation.function in SAMPLING:
            sampling.append(operation.name)

    with Taps(seen.model) as taps, torch.no_grad():
        seen.model.eval()
        taps.on_operation(listen)
        copied(seen.batch.first(2)).forward(seen.model)
    return tuple(dict.fromkeys(dropping)), tuple(dict.fromkeys(sampling))


def _decay(seen: Examination) -> Iterator[Finding]:
    kind = type(seen.optimizer).__name__
    if kind not in (*COUPLED, "AdamW"):
        return
    strongest = max((float(g.get("weight_decay") or 0) for g in settings(seen)), default=0.0)
    apart = kind == "AdamW"
    if strongest > (STRONG_APART if apart else STRONG_DECAY):
        yield Finding(
            cause="reg_too_strong",
            severity="warning",
            summary="the weight decay pulls harder than most losses can",
            evidence=(
                Evidence(
                    quantity="weight_decay",
                    measured=strongest,
                    expected="0.01 to 0.1" if apart else "1e-5 to 1e-2",
                ),
            ),
            remedy="use 0.01"
            if apart
            else "use 5e-4, or AdamW for a decay that is apart from the gradient",
            source="Loshchilov & Hutter 2019",
        )
