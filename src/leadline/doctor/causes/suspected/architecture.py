"""Suspicions about width and depth: layers too narrow, too many, too few, maps that are gone.

Everything here suits some networks, so that it counts only when a training with the remedy goes
better: bottlenecks are meant in an autoencoder, a single linear layer is right where the classes
lie apart, and a deep plain network learns when its first weights are well chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from leadline.core.errors import LeadlineError
from leadline.core.seeds import preserved_random_state
from leadline.core.taps import ROOT, plain_name
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.prescription import hidden_activations
from leadline.doctor.remedies import layers, widening
from leadline.doctor.remedies.widening import Chain
from leadline.doctor.remedy import Remedy
from leadline.doctor.suspicion import suspect
from leadline.measure.batch import main_output
from leadline.measure.layers import JOINS
from leadline.measure.survey import LayerRecord

NARROW = 4
"""Units of a hidden layer up to which it is suspected, whatever the problem."""

OF_CLASSES = 4
"""A hidden layer of fewer units than a quarter of the classes is suspected too."""

WIDE = 32
"""Units that a narrow layer is given, at least."""

MANY = 5
"""Weight layers of one width, activation in between, from which on some are left out."""

DEEP = 6
"""Weight layers without a norm and without residual paths from which on norms are tried."""

BETWEEN = ("pool", "dropout", "flatten", "identity", "upsample")
"""Kinds of layers that hand on the units they are given."""


def certain(patient: Patient) -> Iterator[Finding]:
    """An activation behind another of the same kind, which changes nothing: a note."""
    seen = patient.seen
    if seen is None:
        return
    known = dict(seen.model.named_modules())
    doubled = [
        second.name
        for first, second in itertools.pairwise(seen.survey.layers)
        if first.is_activation and first.kind == second.kind and first.shape == second.shape
    ]
    names = [plain_name(name) for name in doubled if isinstance(known.get(name), nn.Module)]
    if not doubled:
        return
    yield Finding(
        cause="activation_extra",
        severity="note",
        summary="an activation follows another of the same kind: a second rectifier changes "
        "nothing, a second sigmoid or tanh flattens",
        layers=tuple(doubled),
        evidence=(
            Evidence(
                quantity="activations behind one of the same kind",
                measured=float(len(doubled)),
                expected="0",
            ),
        ),
        remedy="leave the second one out; look for activation='relu' in a layer that is followed "
        "by a ReLU",
        source="Theia: Wardat et al. 2024",
        change=widening.one_activation(names) if len(names) == len(doubled) else None,
    )


def suspicions(patient: Patient) -> Iterator[Finding]:
    """What the widths and the order of the layers let one suspect."""
    if patient.seen is None or not _order(patient):
        return
    yield from _narrow(patient)
    yield from _single_layer(patient)
    yield from _vanished_maps(patient)
    yield from _pooled_first(patient)
    yield from _too_many(patient)
    yield from _without_norms(patient)


def _order(patient: Patient) -> list[LayerRecord]:
    assert patient.seen is not None, "asked by the caller"
    return list(patient.seen.survey.layers)


def _runs(patient: Patient, change: Remedy) -> bool:
    """Whether the changed model can be built, and answers in the shape it answered in."""
    assert patient.seen is not None and change.apply is not None, "asked by the caller"
    try:
        with preserved_random_state(), torch.no_grad():
            model = change(patient.setup).model().to(patient.seen.survey.outputs.device)
            answer = main_output(patient.seen.batch.first(2).forward(model))
        return answer.shape[1:] == patient.seen.survey.outputs.shape[1:]
    except (LeadlineError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        patient.limits.append(
            f"not tried, for the model cannot be rebuilt so: {change.title} "
            f"({str(error).strip().splitlines()[0]})"
        )
        return False


def chains_of(patient: Patient) -> list[Chain]:
    """Dense, convolutional and recurrent layers that one dense layer or convolution reads."""
    assert patient.seen is not None, "asked by the caller"
    known = {plain_name(name): module for name, module in patient.seen.model.named_modules()}
    order = _order(patient)
    calls = [layer.name for layer in order]
    found = []
    for index, layer in enumerate(order):
        module = known.get(layer.name)
        wide = isinstance(module, nn.Linear | _ConvNd | nn.RNNBase)
        if module is None or not wide or f"{layer.name} (call 2)" in calls:
            continue
        norms: list[str] = []
        for behind in order[index + 1 :]:
            reader = known.get(behind.name)
            kind = behind.kind.lower()
            if isinstance(reader, nn.Linear | _ConvNd):
                units = _units(module)
                if _inputs(reader) % units == 0 and f"{behind.name} (call 2)" not in calls:
                    chain = Chain(
                        layer=layer.name, norms=tuple(norms), reader=behind.name, units=units
                    )
                    found.append(chain)
                break
            if "norm" in kind and isinstance(reader, nn.Module):
                norms.append(behind.name)
            elif not (behind.is_activation or any(word in kind for word in BETWEEN)):
                break
    return found


def _units(module: nn.Module) -> int:
    if isinstance(module, nn.RNNBase):
        return module.hidden_size
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)  # type: ignore[arg-type]  # a convolution's is a number


def _inputs(module: nn.Module) -> int:
    return int(module.in_features if isinstance(module, nn.Linear) else module.in_channels)  # type: ignore[arg-type]  # a convolution's is a number


def _narrow(patient: Patient) -> Iterator[Finding]:
    """Hidden layers of a few units, or of far fewer than there are answers."""
    if _gives_back_its_input(patient):
        return
    bound = max(NARROW, patient.problem.classes // OF_CLASSES)
    narrow = [chain for chain in chains_of(patient) if chain.units <= bound]
    if not narrow:
        return
    width = max(WIDE, 2 * patient.problem.classes)
    change = widening.wider(narrow, {chain.layer: width for chain in narrow})
    if not _runs(patient, change):
        return
    least = min(chain.units for chain in narrow)
    yield suspect(
        "capacity_too_small",
        f"all that the network knows passes through {least} unit{'s' * (least != 1)}",
        Evidence(
            quantity="units of the narrowest hidden layer",
            measured=float(least),
            expected=f"above {bound}",
        ),
        change=change,
        layers=tuple(chain.layer for chain in narrow),
        source="Goodfellow et al. 2016, section 5.2: capacity",
    )


def _gives_back_its_input(patient: Patient) -> bool:
    """Whether the targets are the inputs: an autoencoder, which has a bottleneck on purpose."""
    if patient.gathered is None:
        return False
    inputs, targets = patient.gathered
    return inputs.numel() == targets.numel() and bool(
        torch.equal(inputs.reshape(-1).float(), targets.reshape(-1).float())
    )


def _single_layer(patient: Patient) -> Iterator[Finding]:
    """A network that is one linear layer, on a problem that may need a curve."""
    affine = [layer for layer in _order(patient) if layer.is_affine]
    if len(affine) != 1 or any(layer.is_activation for layer in _before(patient, affine[0])):
        return
    assert patient.seen is not None, "asked by the caller"
    name = "" if affine[0].name == ROOT else affine[0].name
    module = dict(patient.seen.model.named_modules()).get(name)
    if type(module) is not nn.Linear or any(_recurs(m) for m in patient.seen.model.modules()):
        return
    change = widening.hidden_layer(name, units=2 * WIDE)
    if not _runs(patient, change):
        return
    yield suspect(
        "layer_missing",
        "the network is a single linear layer: it can only learn what is linear in its inputs",
        Evidence(quantity="layers with weights", measured=1.0, expected="2 or more"),
        change=change,
        layers=(affine[0].name,),
        source="Minsky & Papert 1969: a single layer cannot learn XOR",
    )


def _recurs(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase | nn.RNNCellBase)


def _before(patient: Patient, layer: LayerRecord) -> Sequence[LayerRecord]:
    order = _order(patient)
    return order[: order.index(layer)]


def _vanished_maps(patient: Patient) -> Iterator[Finding]:
    """Convolutions over pictures of one pixel, which pooling left of them."""
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    known = {plain_name(name): module for name, module in seen.model.named_modules()}
    order = _order(patient)
    blind = [
        index
        for index, layer in enumerate(order)
        if isinstance(known.get(layer.name), nn.Conv2d)
        and len(layer.shape) == 4
        and tuple(layer.shape[2:]) == (1, 1)
        and _sees_patches(known[layer.name])
    ]
    flat = next((x.name for x in order if isinstance(known.get(x.name), nn.Flatten)), None)
    if not blind or flat is None:
        return
    pools = [
        layer.name
        for layer in order[: blind[-1]]
        if layer.name in known and widening.is_pooling(known[layer.name])
    ]
    size = next((x.shape[2:] for x in reversed(order) if len(x.shape) == 4), (1, 1))
    change = widening.larger_maps(pools[-max(1, len(pools) // 2) :], flat, size)
    if not pools or not _runs(patient, change):
        return
    yield suspect(
        "layer_extra",
        "so many pooling layers come first that the last convolutions see a single pixel",
        Evidence(
            quantity="convolutions over maps of one pixel",
            measured=float(len(blind)),
            expected="0",
        ),
        change=change,
        layers=tuple(pools),
        source="Nikanjam et al. 2021, NeuraLint: too much pooling",
    )


def _pooled_first(patient: Patient) -> Iterator[Finding]:
    """Pictures that are pooled, and perhaps blown up again, ahead of the first weights."""
    assert patient.seen is not None, "asked by the caller"
    known = {plain_name(name): module for name, module in patient.seen.model.named_modules()}
    ahead = list(itertools.takewhile(lambda layer: not layer.is_affine, _order(patient)))
    pools = [x.name for x in ahead if x.name in known and widening.is_pooling(known[x.name])]
    if not pools:
        return
    blown_up = [x.name for x in ahead if isinstance(known.get(x.name), nn.Upsample)]
    change = widening.unpooled([*pools, *blown_up])
    if not _runs(patient, change):
        return
    yield suspect(
        "layer_extra",
        "the inputs are pooled before any weight has seen them: their detail is lost",
        Evidence(
            quantity="pooling layers ahead of the first weights",
            measured=float(len(pools)),
            expected="0",
        ),
        change=change,
        layers=tuple(pools),
        source="Springenberg et al. 2015; Nikanjam et al. 2021, NeuraLint",
    )


def _sees_patches(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


def _too_many(patient: Patient) -> Iterator[Finding]:
    """Many dense layers of one width in a row: every second is left out."""
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    known = {plain_name(name): module for name, module in seen.model.named_modules()}
    order = _order(patient)
    if any(layer.kind in JOINS or "norm" in layer.kind.lower() for layer in order):
        return  # residual paths and norms carry any depth
    same = [
        layer.name
        for layer in order
        if type(known.get(layer.name)) is nn.Linear and _square(known[layer.name])
    ]
    if len(same) < MANY - 1:
        return
    left_out = same[1::2]
    names = list(left_out)
    for name in left_out:
        at = next(i for i, layer in enumerate(order) if layer.name == name)
        for behind in order[at + 1 :]:
            if behind.is_affine or behind.name not in known:
                break
            names.append(behind.name)
    change = widening.skipped(names, layers=len(left_out))
    if not _runs(patient, change):
        return
    yield suspect(
        "layer_extra",
        f"{len(same) + 1} hidden layers of one width: more than their gradient, or the data, may "
        "bear",
        Evidence(
            quantity="dense layers from one width to the same",
            measured=float(len(same)),
            expected=f"below {MANY - 1} without norms or residual paths",
        ),
        change=change,
        layers=tuple(left_out),
        source="Glorot & Bengio 2010",
    )


def _square(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and module.in_features == module.out_features


def _without_norms(patient: Patient) -> Iterator[Finding]:
    """Deep, without a norm; with residual paths where it consists of convolutions."""
    seen = patient.seen
    assert seen is not None, "asked by the caller"
    order = _order(patient)
    kinds = {layer.kind.lower() for layer in order}
    if any("norm" in kind for kind in kinds):
        return
    if any(isinstance(module, nn.SELU) for module in seen.model.modules()):
        return  # it normalises by itself (Klambauer et al. 2017)
    known = {plain_name(name): module for name, module in seen.model.named_modules()}
    affine = [layer.name for layer in order if layer.is_affine]
    weighted = [name for name in affine if isinstance(known.get(name), nn.Linear | nn.Conv2d)]
    if len(affine) < DEEP or len(weighted) < len(affine) or not hidden_activations(patient):
        return
    convolutions = sum(isinstance(known[name], nn.Conv2d) for name in weighted)
    joined = bool(kinds & JOINS)
    if joined and 2 * convolutions < len(weighted):
        return
    lacking = "norms" if joined else "norms or residual paths"
    change = layers.norms_behind(list(dict.fromkeys(weighted[:-1])))
    if not _runs(patient, change):
        return
    yield suspect(
        "norm_missing",
        f"{len(affine)} layers with weights and no {lacking}",
        Evidence(
            quantity=f"layers with weights, without {lacking}",
            measured=float(len(affine)),
            expected=f"below {DEEP}",
        ),
        change=change,
        source="Ioffe & Szegedy 2015",
    )
