"""Predicted propagation: mean-field theory laid beside what a dense network really does.

The theory follows the forward pass. From the inputs' size and likeness on, each layer passes on

    linear      q' = sw2 q + sb2                     sw2 = fan_in * mean(w^2), sb2 = mean(b^2)
    activation  q' = E[f(sqrt(q) z)^2]
    norm        q' = mean(w^2) v / (v + eps) + mean(b^2)

where v = q - m^2 if the norm removes the mean m over its units, and v = q if it does not. m is the
biases' mean behind a linear layer and E[f(sqrt(q) z)] behind an activation. The cosine follows by
the correlation map (the file `mean_field`), and by c' = (c q - m^2) / (q - m^2) where a mean is
removed. All this holds for weights drawn independently, so that a distance between the two columns
is either chance, which a layer of N units adds as a relative error of about sqrt(5 / N) with ReLU,
or structure that training has put there.

The surprising choice: sw2 and sb2 are read from the weights, not from the initialisation's name,
and f is the layer itself. So any dense network can be held against the theory, and a wrong
initialisation shows in the predicted column, not as a disagreement.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.taps import Taps
from leadline.measure.batch import read_batch
from leadline.measure.layers import ACTIVATIONS, Layer, on_layer
from leadline.measure.signals.gaussian_expectation import (
    Function,
    gaussian_mean,
    gaussian_pair_mean,
)
from leadline.measure.signals.propagation import output_statistics, propagation_profile

PASSED_ON = (nn.Identity, nn.Flatten)
BATCH_NORMS = (nn.BatchNorm1d, nn.SyncBatchNorm)
ROW_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
ENTRYWISE = ACTIVATIONS - {"glu", "prelu"}
IN_ORDER = {"leaky_relu", "elu", "celu", "hardtanh"}
"""Functions that hand on their options in the order of their signature."""
_CLASSES = {name.replace("_", "") for name in ENTRYWISE | {"prelu"}}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Signal:
    """What the theory knows of a tensor: `variances` per row, the cosine of neighbouring rows.

    `means` are the rows' means over their units, and `gaussian` says that the units are distributed
    like sums of many, as an activation must be given them.
    """

    tensor: Tensor
    variances: Tensor  # [rows], float64
    means: Tensor  # [rows], float64
    cosine: float
    gaussian: bool


def predicted_propagation(model: nn.Module, batch: Any) -> Profile:
    """Second moment and cosine of every layer of a dense network, measured and predicted.

    Columns: `second_moment` and `cosine` as in `signal_propagation`, `predicted` and
    `predicted_cosine` from the theory, `ratio` = second_moment / predicted. The theory knows linear
    layers, activations, dropout, batch norm in training mode, layer, RMS and group norm; after any
    other layer (a convolution, a sum) it has NaN, and begins anew from what the next linear layer
    is given. An activation has a prediction only behind a linear layer, with norms and dropout in
    evaluation between them at most: elsewhere its inputs are not Gaussian, and NaN follows until
    the next linear layer. After batch norm the cosine is NaN: it depends on the whole batch. Raises
    MeasurementError when it has nothing to say of the whole model.

    Cost: 1 forward pass, and for each activation some thousand evaluations per example.

    How to read it: a ratio near 1 at every depth is a random network of ample width; one that moves
    away steadily is a network too narrow for its depth, or one that has learned.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU())
    >>> profile = predicted_propagation(model, torch.randn(8, 1000))
    >>> abs(profile.at("1")["ratio"] - 1) < 0.1
    True
    """
    given = read_batch(batch, model=model)
    names: list[str] = []
    rows: list[Tensor] = []
    theory: list[tuple[float, float]] = []
    last: list[_Signal] = []

    def listen(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        entering = inputs[0] if inputs else None
        with torch._C.DisableTorchFunction():  # the taps need not hear of what follows
            signal = next((s for s in last if _same(s.tensor, entering)), None)
            last.clear()
            following = _pass_on(layer, inputs, output, signal)
            rows.append(output_statistics(output, given.examples))
        names.append(layer.name)
        if following is not None:
            last.append(following)
            theory.append((float(following.variances.mean()), following.cosine))
        else:
            theory.append((math.nan, math.nan))

    with Taps(model) as taps, torch.no_grad():
        on_layer(taps, listen)
        given.forward(model)
    if all(math.isnan(variance) for variance, _ in theory):
        raise MeasurementError(
            expected="a network with linear layers, of which the theory speaks",
            received=f"{type(model).__name__}, which has none",
            remedy="use signal_propagation, which measures any network",
        )
    return _beside(propagation_profile(names, rows), theory)


def _beside(measured: Profile, theory: list[tuple[float, float]]) -> Profile:
    pairs = zip(measured.column("second_moment"), theory, strict=True)
    return Profile(
        name="signal propagation against mean-field theory",
        unit="1; second_moment and predicted: the output's unit squared",
        reading="a ratio near 1 at every depth is a random network of ample width; moving away "
        "steadily it is too narrow for its depth, or has learned",
        layers=measured.layers,
        values={
            "second_moment": measured.column("second_moment"),
            "predicted": tuple(variance for variance, _ in theory),
            "ratio": tuple(found / said if said else math.nan for found, (said, _) in pairs),
            "cosine": measured.column("cosine"),
            "predicted_cosine": tuple(cosine for _, cosine in theory),
        },
    )


def _same(known: Tensor, entering: Any) -> bool:
    """Whether a layer is given the tensor that the last one put out, in another shape perhaps."""
    if not isinstance(entering, Tensor) or entering.numel() != known.numel():
        return False
    return entering.data_ptr() == known.data_ptr()


def _pass_on(
    layer: Layer, inputs: tuple[Any, ...], output: Tensor, signal: _Signal | None
) -> _Signal | None:
    """The signal behind a layer, None where the theory does not reach."""
    weights = _linear(layer, inputs)
    if weights is not None:
        begun = signal if signal is not None else _measured(inputs[0])
        return _through_linear(begun, weights, output)
    if signal is None:
        return None
    if isinstance(layer.module, PASSED_ON) or _keeps_all(layer.module):
        return replace(signal, tensor=output)
    if isinstance(layer.module, nn.Dropout):
        kept = 1 - layer.module.p
        return replace(
            signal,
            tensor=output,
            variances=signal.variances / kept,
            cosine=signal.cosine * kept,
            gaussian=False,
        )
    if isinstance(layer.module, (*BATCH_NORMS, *ROW_NORMS)):
        return _through_norm(signal, layer.module, output)
    activation = _activation(layer, inputs)
    if activation is None or not signal.gaussian:
        return None
    return _through_activation(signal, activation, output)


def _linear(layer: Layer, inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor | None] | None:
    if isinstance(layer.module, nn.Linear):
        return layer.module.weight, layer.module.bias
    if layer.kind == "linear" and len(inputs) >= 2:
        bias = inputs[2] if len(inputs) > 2 else None
        return inputs[1], bias
    return None


def _keeps_all(module: nn.Module | None) -> bool:
    return isinstance(module, nn.Dropout) and (module.p == 0 or not module.training)


def _measured(entering: Tensor) -> _Signal:
    """Where the theory begins: the second moments and the cosine of what a layer is given."""
    rows = entering.detach().reshape(-1, entering.shape[-1]).cpu().double()
    unit = functional.normalize(rows, dim=1)
    cosine = (unit[:-1] * unit[1:]).sum(dim=1).mean() if entering.ndim == 2 else math.nan
    return _Signal(
        tensor=entering,
        variances=rows.square().mean(dim=1),
        means=rows.mean(dim=1),
        cosine=float(cosine),
        gaussian=False,
    )


def _through_linear(
    signal: _Signal, weights: tuple[Tensor, Tensor | None], output: Tensor
) -> _Signal:
    weight, bias = weights
    gain = weight.shape[1] * _mean_square(weight)
    shift = 0.0 if bias is None else _mean_square(bias)
    variances = gain * signal.variances + shift
    before, after = float(signal.variances.mean()), float(variances.mean())
    cosine = (gain * signal.cosine * before + shift) / after if after else math.nan
    means = torch.full_like(variances, 0.0 if bias is None else _mean(bias))
    return _Signal(tensor=output, variances=variances, means=means, cosine=cosine, gaussian=True)


def _through_activation(signal: _Signal, function: Function, output: Tensor) -> _Signal:
    variances = gaussian_mean(lambda x: function(x).square(), signal.variances)
    cosine = math.nan
    variance = float(signal.variances.mean())
    if not math.isnan(signal.cosine) and variance > 0:
        together = gaussian_pair_mean(function, variance=variance, correlation=signal.cosine)
        alone = float(gaussian_mean(lambda x: function(x).square(), variance))
        cosine = together / alone if alone else math.nan
    means = gaussian_mean(function, signal.variances)
    return _Signal(tensor=output, variances=variances, means=means, cosine=cosine, gaussian=False)


def _through_norm(signal: _Signal, norm: Any, output: Tensor) -> _Signal | None:
    if isinstance(norm, BATCH_NORMS):
        if not norm.training and norm.running_mean is not None:
            return None  # the running statistics are not this batch's
        normalised = torch.ones_like(signal.variances)
        means, cosine = torch.zeros_like(signal.means), math.nan
    elif not _normalises_rows(norm, output):
        return None
    else:
        epsilon = norm.eps if norm.eps is not None else torch.finfo(output.dtype).eps
        centred = signal if isinstance(norm, nn.RMSNorm) else _without_mean(signal)
        normalised = centred.variances / (centred.variances + epsilon)
        means, cosine = centred.means / (centred.variances + epsilon).sqrt(), centred.cosine
    weight, bias = norm.weight, getattr(norm, "bias", None)
    scale, kept = (1.0, 1.0) if weight is None else (_mean_square(weight), _mean(weight))
    shift, moved = (0.0, 0.0) if bias is None else (_mean_square(bias), _mean(bias))
    variances = scale * normalised + shift
    if shift > 0:
        after = float(variances.mean())
        cosine = (scale * cosine * float(normalised.mean()) + shift) / after
    return _Signal(
        tensor=output,
        variances=variances,
        means=means * kept + moved,
        cosine=cosine,
        # Units of different scales, or about a shift, are no longer all alike.
        gaussian=signal.gaussian and shift == 0 and (weight is None or _same_size(weight)),
    )


def _normalises_rows(norm: Any, output: Tensor) -> bool:
    if isinstance(norm, nn.GroupNorm):
        return output.ndim == 2
    return len(norm.normalized_shape) == 1


def _without_mean(signal: _Signal) -> _Signal:
    """What a norm that removes the rows' means leaves to divide: c' = (c q - m^2) / (q - m^2)."""
    squares = signal.means.square()
    variances = (signal.variances - squares).clamp_min(0.0)
    together = signal.cosine * float(signal.variances.mean()) - float(squares.mean())
    left = float(variances.mean())
    return replace(
        signal,
        variances=variances,
        means=torch.zeros_like(squares),
        cosine=together / left if left else math.nan,
    )


def _activation(layer: Layer, inputs: tuple[Any, ...]) -> Function | None:
    """The layer as a function of float64 numbers on the CPU; None where it is something else."""
    module = layer.module
    if module is None:
        return _functional(layer.kind, inputs[1:])
    if type(module).__name__.lower() not in _CLASSES:
        return None
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return None
    own = copy.deepcopy(module).cpu().double()
    # An in-place activation would overwrite the places at which it is evaluated.
    return lambda places: own(places.clone())


def _functional(kind: str, options: tuple[Any, ...]) -> Function | None:
    """The function of torch called `kind`; None with options whose names the call does not tell."""
    if kind not in ENTRYWISE:
        return None
    numbers = [option for option in options if not isinstance(option, bool)]  # `inplace`
    in_order = kind in IN_ORDER and all(isinstance(number, int | float) for number in numbers)
    if numbers and not in_order:
        return None
    function = getattr(functional, kind)
    return lambda places: function(places, *numbers)


def _mean_square(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean())


def _mean(tensor: Tensor) -> float:
    return float(tensor.detach().double().mean())


def _same_size(weight: Tensor) -> bool:
    sizes = weight.detach().abs()
    return bool((sizes.amax() - sizes.amin()) <= 1e-3 * sizes.amax())
