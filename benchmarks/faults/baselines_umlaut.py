"""UMLAUT's thresholds (Schoop et al., CHI 2021; `heuristics.py`, `errors.py`).

Two kinds of checks: of the layers before the training, and of input, rate and curves after each
epoch. All that fire are shown, in the order of the checks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from baselines_watch import Look, Watched, watch

from leadline.training.execution import Execution
from leadline.training.setup import Setup

# All from heuristics.py.
HIGHEST_DROPOUT = 0.5
HIGHEST_RATE = 0.01
LOWEST_RATE = 1e-7
HIGHEST_ACCURACY = 0.95  # of validation: more is called too good to be true
MARGIN = 0.05  # by which the validation may beat the training accuracy
SETTLED = 3  # epochs whose validation accuracy is not looked at

CAUSES: dict[str, tuple[str, ...]] = {
    # "Missing Softmax layer before loss": add it, or tell the loss that it gets logits.
    "no_softmax": ("output_activation_wrong",),
    # "Missing activation functions": layers with nothing nonlinear behind them.
    "missing_activations": ("activation_missing",),
    # "Last model layer has nonlinear activation": remove it.
    "activation_final_layer": ("activation_extra",),
    # "High dropout rate": lower it.
    "high_dropout_rate": ("dropout_too_high",),
    # "Image data may have incorrect shape": no word of the vocabulary is about layouts.
    "input_wrong_shape": (),
    # "Input data exceeds typical limits": scale it to [-1, 1].
    "input_normalization": ("input_not_normalized",),
    # "Input is not a Float type": its advice is to divide by a float.
    "input_not_floating": ("input_not_normalized",),
    # "NaN in input": no finite numbers to learn from.
    "nan_input": ("input_not_finite",),
    # "Learning Rate is high".
    "lr_high": ("lr_too_high",),
    # "Learning Rate is low".
    "lr_low": ("lr_too_low",),
    # "Possible overfitting": add dropout, or reduce the power of the model.
    "overfitting": ("reg_missing",),
    # "Check validation accuracy": it suspects overlap between training and validation data.
    "overconfident_val": ("validation_leak",),
}
"""The tool's errors by its own names, and the causes that its messages speak of."""


def umlaut(setup: Setup, *, execution: Execution | None = None) -> tuple[str, ...]:
    """The causes UMLAUT would name, in its order."""
    watched = watch(setup, execution or Execution(threads=1))
    symptoms = [*_before(watched)]
    for number in range(len(watched.looks)):
        symptoms += _after(watched, number)
    return tuple(dict.fromkeys(cause for symptom in symptoms for cause in CAUSES[symptom]))


def _before(watched: Watched) -> Iterator[str]:
    """The checks of the layers."""
    if watched.ending != "softmax" and not watched.from_logits:
        yield "no_softmax"
    if ("linear", "linear") in itertools.pairwise(watched.order):
        yield "missing_activations"
    if watched.ending not in ("linear", "softmax"):
        yield "activation_final_layer"
    if any(rate > HIGHEST_DROPOUT for rate in watched.dropouts):
        yield "high_dropout_rate"


def _after(watched: Watched, number: int) -> Iterator[str]:
    """The checks after an epoch."""
    look = watched.looks[number]
    shape = watched.inputs_shape
    if len(shape) == 4 and shape[2] != shape[3]:  # [B, C, H, W], and H is not W
        yield "input_wrong_shape"
    if watched.inputs_outside:
        yield "input_normalization"
    if not watched.inputs_floating:
        yield "input_not_floating"
    if watched.inputs_nan and look.loss != look.loss:
        yield "nan_input"
    if look.lr > HIGHEST_RATE:
        yield "lr_high"
    elif look.lr < LOWEST_RATE:
        yield "lr_low"
    if number and _overfits(watched.looks[number - 1], look):
        yield "overfitting"
    if number >= SETTLED and watched.loss not in ("squared", "absolute"):
        accuracy = look.held_out_accuracy
        if accuracy > HIGHEST_ACCURACY or accuracy > look.accuracy + MARGIN:
            yield "overconfident_val"


def _overfits(before: Look, now: Look) -> bool:
    """The validation loss up while the training loss is not; comparisons with NaN say no."""
    return now.held_out_loss > before.held_out_loss and now.loss <= before.loss
