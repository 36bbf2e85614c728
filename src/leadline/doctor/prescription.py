"""Prescription: which remedy a cause asks for, in this patient.

One function for each cause that a Setup can be healed of; a cause that only its author can mend (a
`.detach()` in somebody's forward) has none, and its finding says in words what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from leadline.core.taps import plain_name
from leadline.doctor.causes.architecture import smallest_batch
from leadline.doctor.finding import Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedies import batches, inputs, layers, losses, optimisation, surgery
from leadline.doctor.remedy import Remedy
from leadline.measure.layers import ACTIVATIONS, PROBABILITIES

USUAL_RATES = {"SGD": 1e-2, "Adadelta": 1.0, "Adagrad": 1e-2, "Rprop": 1e-2}
"""Rates that are usual for an optimizer; 1e-3 for Adam and its kin."""


WITHOUT_LOSS = frozenset({"labels_shifted", "output_activation_wrong"})
"""Causes for which the loss cannot even be computed, and that have a remedy all the same."""


def prescribe(finding: Finding, patient: Patient) -> Remedy | None:
    """The change for this finding, None where only the user can make it."""
    make = REMEDIES.get(finding.cause)
    if make is None or (patient.seen is None and finding.cause not in WITHOUT_LOSS):
        return None
    return make(finding, patient)


def usual_rate(optimizer: Optimizer | None) -> float:
    """The rate that is usual for an optimizer of this class."""
    return USUAL_RATES.get(type(optimizer).__name__, 1e-3)


def ending_of(patient: Patient) -> tuple[str | None, str]:
    """The module that ends the model if that is an activation, and what ends it in a word.

    The word is that of the function: 'softmax', 'sigmoid', 'relu', 'linear' where nothing does.
    """
    seen = patient.seen
    assert seen is not None, "asked of patients whose loss can be computed"
    name = surgery.last_module(seen.model, seen.batch)
    if name is not None:
        kind = type(seen.model.get_submodule(name)).__name__.lower()
        kind = {"logsoftmax": "log_softmax", "leakyrelu": "leaky_relu", "softmax2d": "softmax"}.get(
            kind, kind
        )
        if kind in ACTIVATIONS | PROBABILITIES:
            return name, kind
        if kind != "identity":
            return None, "linear"
    node = seen.survey.graph[-1].partition("Backward")[0].lower() if seen.survey.graph else ""
    words = {"logsoftmax": "log_softmax", "clampmin": "relu", "softmax": "softmax"}
    node = words.get(node, node)
    return None, node if node in ACTIVATIONS | PROBABILITIES else "linear"


def outputs_are(patient: Patient) -> losses.Outputs:
    """Whether the model answers with probabilities or with logits."""
    return "probabilities" if ending_of(patient)[1] in ("softmax", "sigmoid") else "logits"


def _softmax_gone(finding: Finding, patient: Patient) -> Remedy:
    nature = patient.seen.nature if patient.seen is not None else None
    if nature is not None and nature.softmax_inside:
        return losses.without_softmax()
    name, kind = ending_of(patient)
    if name is not None and kind == "softmax":
        return layers.other_ending(name, None, was="nn.Softmax(dim=1)")
    return losses.on_logits_of_probabilities("softmax")


def _squashing_gone(finding: Finding, patient: Patient) -> Remedy | None:
    _, kind = ending_of(patient)
    return losses.on_logits_of_probabilities("sigmoid") if kind == "sigmoid" else None


def right_ending(finding: Finding, patient: Patient) -> Remedy | None:
    """The activation at the end that the loss asks for."""
    if patient.seen is None:  # binary_cross_entropy has refused what is not between 0 and 1
        return layers.other_ending(None, "sigmoid")
    name, kind = ending_of(patient)
    nature = patient.seen.nature
    if nature is None:
        return None
    was = f"nn.{kind}" if name is not None else ""
    if name is None and kind != "linear":
        return losses.fitting_loss(patient.problem, "logits")  # a function inside forward
    asked = {
        "log_of_probabilities": "softmax",
        "binary_probabilities": "sigmoid",
        "squared": "sigmoid" if patient.problem.kind == "labels" else None,
    }.get(nature.kind)
    if nature.kind == "nll":
        return losses.fitting_loss(patient.problem, "logits")
    if patient.problem.kind == "classes" and nature.kind in ("squared", "absolute", "other"):
        asked = "softmax"
    if patient.problem.kind == "labels" and nature.kind in ("absolute", "other"):
        asked = "sigmoid"
    return layers.other_ending(name, asked, axis=patient.problem.axis, was=was)


def _activations(finding: Finding, patient: Patient) -> Remedy | None:
    names = hidden_activations(patient)
    if not names:
        return None
    assert patient.seen is not None, "it has layers"
    kinds = {type(patient.seen.model.get_submodule(name)).__name__ for name in names}
    rectified = kinds <= {"ReLU", "ReLU6", "Threshold"}
    kind = "leaky_relu" if rectified else "relu"
    return layers.other_activations(names, kind, was=" and ".join(sorted(kinds)))


def hidden_activations(patient: Patient) -> list[str]:
    """The names of the activation modules before the last weight layer, softmaxes included."""
    seen = patient.seen
    assert seen is not None, "it has layers"
    order = [plain_name(layer.name) for layer in seen.survey.layers]
    affine = [plain_name(layer.name) for layer in seen.survey.layers if layer.is_affine]
    if not affine:
        return []
    known = dict(seen.model.named_modules())
    end = order.index(affine[-1])
    found = [
        name
        for name in order[:end]
        if name in known and type(known[name]).__name__.lower() in _ACTIVE
    ]
    return list(dict.fromkeys(found))


_ACTIVE = {word.replace("_", "") for word in ACTIVATIONS | PROBABILITIES}


def _standardised(finding: Finding, patient: Patient) -> Remedy | None:
    if patient.gathered is None or not patient.gathered[0].is_floating_point():
        return None
    return inputs.standardised_inputs(patient.gathered[0])


def _targets(finding: Finding, patient: Patient) -> Remedy | None:
    return None if patient.gathered is None else inputs.standardised_targets(patient.gathered[1])


def _labels(finding: Finding, patient: Patient) -> Remedy | None:
    if patient.gathered is None:
        return None
    numbers = patient.gathered[1]
    known = numbers[numbers != -100]
    return batches.labels_plus(-int(known.min())) if len(known) and int(known.min()) else None


def _mean(finding: Finding, patient: Patient) -> Remedy:
    assert patient.seen is not None, "its loss was asked"
    return losses.mean_instead_of_sum(patient.seen.batch.examples)


def _fitting(finding: Finding, patient: Patient) -> Remedy:
    return losses.fitting_loss(patient.problem, outputs_are(patient))


def _like_outputs(finding: Finding, patient: Patient) -> Remedy | None:
    seen = patient.seen
    if seen is None or seen.targets is None:
        return None
    same = seen.targets.numel() == seen.survey.outputs.numel()
    return losses.targets_like_outputs() if same else None


def _weights(finding: Finding, patient: Patient) -> Remedy:
    names = hidden_activations(patient)
    model = patient.seen.model if patient.seen is not None else nn.Identity()
    kinds = [type(model.get_submodule(name)).__name__ for name in names]
    smooth = sum(kind in ("Sigmoid", "Tanh", "Softsign") for kind in kinds)
    return layers.usual_weights("tanh" if smooth > len(kinds) / 2 else "relu")


def _norms(finding: Finding, patient: Patient) -> Remedy | None:
    seen = patient.seen
    assert seen is not None, "it has layers"
    known = dict(seen.model.named_modules())
    affine = [plain_name(x.name) for x in seen.survey.layers if x.is_affine][:-1]
    names = [n for n in dict.fromkeys(affine) if n in known]
    return layers.norms_behind(names) if names else None


def _rate_lower(finding: Finding, patient: Patient) -> Remedy | None:
    seen = patient.seen
    if seen is None or seen.step is None:
        return None
    typical = seen.step.typical
    known = 0 < typical < math.inf
    power = math.ceil(math.log10(typical / 0.01)) if known and typical > 0.01 else 1
    return optimisation.rate_times(10.0 ** -min(max(power, 1), 6), seen.step.rate)


def _usual_rate(finding: Finding, patient: Patient) -> Remedy:
    optimizer = patient.seen.optimizer if patient.seen is not None else None
    return optimisation.positive_rate(usual_rate(optimizer))


def _rate_higher(finding: Finding, patient: Patient) -> Remedy | None:
    seen = patient.seen
    if seen is None or seen.optimizer is None:
        return None
    groups = seen.optimizer.param_groups
    rate = max(float(group.get("initial_lr", group["lr"])) for group in groups)
    return optimisation.rate_times(1e3, rate) if rate > 0 else _usual_rate(finding, patient)


def _less_decay(finding: Finding, patient: Patient) -> Remedy | None:
    optimizer = patient.seen.optimizer if patient.seen is not None else None
    if optimizer is None:
        return None
    decay = max(float(g.get("weight_decay", 0)) for g in optimizer.param_groups)
    return optimisation.option("weight_decay", 1e-4, was=decay) if decay > 1e-4 else None


def _sign(finding: Finding, patient: Patient) -> Remedy:
    groups = patient.seen.optimizer.param_groups if patient.seen and patient.seen.optimizer else []
    if any(group.get("maximize") for group in groups):
        return optimisation.option("maximize", False, was=True)
    return losses.other_sign()


def _larger_batches(finding: Finding, patient: Patient) -> Remedy | None:
    assert patient.seen is not None, "it has norms"
    size = patient.seen.batch.examples
    few = smallest_batch(patient.seen)
    return optimisation.batches_of(32, size) if size < 32 and few else None


def _dropout(finding: Finding, patient: Patient) -> Remedy | None:
    assert patient.seen is not None, "it has layers"
    rates = [m.p for m in patient.seen.model.modules() if isinstance(m, _DropoutNd)]
    if finding.proven or not rates:
        return None  # dropped by a function in somebody's forward
    highest = max(rates)
    return layers.dropout_times(0.2 / highest if highest > 0.2 else 0.0)


REMEDIES: dict[str, Callable[[Finding, Patient], Remedy | None]] = {
    "input_not_finite": lambda finding, patient: batches.finite_only(),
    "labels_shifted": _labels,
    "shuffle_missing": lambda finding, patient: batches.shuffled(),
    "data_modified_in_place": lambda finding, patient: inputs.unwritten_inputs(),
    "input_not_normalized": _standardised,
    "input_double_normalized": _standardised,
    "target_not_normalized": _targets,
    "double_softmax": _softmax_gone,
    "activation_extra": _squashing_gone,
    "output_activation_wrong": right_ending,
    "hidden_activation_wrong": _activations,
    "loss_reduction_wrong": _mean,
    "loss_axis_wrong": _fitting,
    "target_broadcast_shape": _like_outputs,
    "loss_numerically_unstable": _fitting,
    "gradient_of_sqrt_at_zero": _fitting,
    "init_constant": _weights,
    "init_bad_scale": _weights,
    "norm_missing": _norms,
    "norm_eval_stats_broken": lambda finding, patient: layers.usual_momentum(),
    "batch_size_too_small": _larger_batches,
    "dropout_too_high": _dropout,
    "dropout_misuse": _dropout,
    "reg_too_strong": _less_decay,
    "lr_too_high": _rate_lower,
    "lr_too_low": _rate_higher,
    "lr_negative": _usual_rate,
    "optimizer_missing_params": lambda finding, patient: optimisation.every_parameter(),
    "params_frozen": lambda finding, patient: optimisation.trainable_again(finding.layers),
    "params_unregistered": lambda finding, patient: optimisation.every_parameter(),
    "gradient_sign_flipped": _sign,
}
"""The remedy of each cause that a Setup can be healed of."""
