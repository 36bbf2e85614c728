"""The catalogue of measurements: what each one asks, what it costs, which chapter it stands in.

One list, from which the tests that every measurement must pass are made, and `leadline list`
prints. The cost is in forward-backward passes of the given batch, P for short; a forward pass alone
is about a third of one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from leadline.core.names import look_up

Needs = Literal["inputs", "loss"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement: a function `(model, inputs)`, or `(model, batch, loss=...)`."""

    name: str
    home: str
    question: str
    cost: str
    needs: Needs

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself, from the file that is its home."""
        function: Callable[..., Any] = getattr(importlib.import_module(self.home), self.name)
        return function


def _row(home: str, name: str, needs: Needs, cost: str, question: str) -> Measurement:
    return Measurement(
        name=name, home=f"leadline.measure.{home}", question=question, cost=cost, needs=needs
    )


MEASUREMENTS: tuple[Measurement, ...] = (
    _row(
        "survey", "survey", "loss", "1 P", "what does one pass show of every layer and parameter?"
    ),
    _row(
        "signals.propagation",
        "signal_propagation",
        "inputs",
        "1/3 P",
        "does the signal keep its size?",
    ),
    _row(
        "signals.predicted_propagation",
        "predicted_propagation",
        "inputs",
        "1/3 P",
        "does a dense network do what mean-field theory says?",
    ),
    _row(
        "gradients.gradients",
        "gradient_flow",
        "loss",
        "1 P",
        "how much gradient arrives at each layer?",
    ),
    _row(
        "gradients.gradients",
        "parameter_gradients",
        "loss",
        "1 P",
        "how much gradient has each parameter?",
    ),
    _row(
        "gradients.updates", "update_ratio", "loss", "1 P and a step", "how far does one step move?"
    ),
    _row(
        "gradients.gradient_noise",
        "gradient_noise_scale",
        "loss",
        "2 P",
        "at which batch size is a gradient as much noise as signal?",
    ),
    _row(
        "gradients.gradient_alignment",
        "gradient_alignment",
        "loss",
        "1 P a batch",
        "do the gradients of successive batches agree?",
    ),
    _row(
        "gradients.shattering",
        "gradient_correlation",
        "inputs",
        "1 P",
        "do different examples' gradients still look alike at depth?",
    ),
    _row(
        "gradients.shattering",
        "shattering",
        "inputs",
        "1 P of 256 points",
        "is the gradient white noise?",
    ),
    _row(
        "jacobians.jacobian",
        "jacobian_spectrum",
        "inputs",
        "1 P an output when small, else about 150",
        "which directions are stretched, which are lost?",
    ),
    _row(
        "jacobians.jacobian_chain",
        "jacobian_chain",
        "inputs",
        "as jacobian_spectrum, a layer",
        "which layer stretches or loses them?",
    ),
    _row(
        "units.units", "units", "inputs", "1/3 P", "which units are dead, saturated or always on?"
    ),
    _row(
        "units.units", "duplicate_units", "inputs", "1/3 P", "which units are copies of each other?"
    ),
    _row(
        "units.attention",
        "attention",
        "inputs",
        "1/3 P",
        "where does attention look, layer by layer?",
    ),
    _row("units.attention", "attention_heads", "inputs", "1/3 P", "which heads have collapsed?"),
    _row(
        "receptive_fields.receptive_field",
        "receptive_field",
        "inputs",
        "1/3 P",
        "how much can a unit of a layer see?",
    ),
    _row(
        "receptive_fields.effective_receptive_field",
        "effective_receptive_field",
        "inputs",
        "1 P",
        "how much of that does it use?",
    ),
    _row(
        "curvature.eigenvalues",
        "eigenvalues",
        "loss",
        "about 2 P a product, some 20 products",
        "how sharply does the loss bend, and where to?",
    ),
    _row(
        "curvature.spectral_density",
        "spectral_density",
        "loss",
        "2 P x 40",
        "how are all curvatures spread?",
    ),
    _row("curvature.trace", "trace", "loss", "2 P x 60", "what do all curvatures sum up to?"),
    _row(
        "curvature.critical_point",
        "critical_point",
        "loss",
        "2 P x 300 at most",
        "is this a minimum, a maximum or a saddle?",
    ),
    _row(
        "curvature.edge_of_stability",
        "sharpness",
        "loss",
        "2 P x 20",
        "is the rate too large for the curvature?",
    ),
    _row(
        "curvature.landscape",
        "loss_along",
        "loss",
        "1/3 P x 21",
        "what does the loss look like on a line?",
    ),
    _row(
        "curvature.landscape",
        "loss_between",
        "loss",
        "1/3 P x 11",
        "is there a barrier between two states?",
    ),
    _row("curvature.landscape", "loss_on_plane", "loss", "1/3 P x 121", "and on a plane?"),
    _row(
        "representations.similarity",
        "layer_similarity",
        "inputs",
        "1/3 P",
        "which layers say the same (CKA)?",
    ),
    _row(
        "representations.rank",
        "representation_rank",
        "inputs",
        "1/3 P",
        "how many directions does each layer use?",
    ),
    _row(
        "influence",
        "influence",
        "inputs",
        "8/3 P of four examples",
        "does an output depend on other examples, or on the future?",
    ),
    _row(
        "determinism",
        "determinism",
        "inputs",
        "2 P of two examples",
        "is the answer the same twice?",
    ),
    _row(
        "efficiency",
        "gradient_cost",
        "loss",
        "some 20 P",
        "what does backpropagation save against finite differences?",
    ),
)
"""Every measurement, in the order of the chapters."""


def find_measurement(name: str) -> Measurement:
    """The measurement of a name; an unknown one gets 'did you mean'.

    >>> find_measurement("gradient_flow").cost
    '1 P'
    """
    return look_up(name, {entry.name: entry for entry in MEASUREMENTS}, kind="measurement")
