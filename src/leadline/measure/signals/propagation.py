"""Signal propagation: size, spread and likeness of the activations, layer by layer.

Of each layer's outputs x_b for the examples b of a batch, N numbers each:

    mean, variance, second_moment    over all B N numbers
    variance_ratio                   variance / variance of the first layer's outputs
    cosine                           <x_b, x_b+1> / (|x_b| |x_b+1|), mean over neighbours b, b+1
    correlation                      the same once each x_b's own mean is taken off
    nonfinite                        share of NaN and infinities

The cosine is the c of mean-field theory (Poole et al. 2016, arXiv:1606.05340): where it tends to 1
the network has forgotten which input it was given. A constant variance is what Glorot & Bengio
(2010) and He et al. (2015, arXiv:1502.01852) chose their initialisations for.

The surprising choice: every tensor is divided by its largest magnitude before it is squared, and
multiplied back in float64. A signal that shrank by 10^-30 is measured as such and not as 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.taps import Taps
from leadline.measure.batch import read_batch
from leadline.measure.layers import Layer, on_layer

COLUMNS = (
    "mean",
    "variance",
    "second_moment",
    "variance_ratio",
    "cosine",
    "correlation",
    "nonfinite",
)


def signal_propagation(model: nn.Module, batch: Any) -> Profile:
    """The statistics of every layer's outputs, in the order in which the layers run.

    Layers are modules without children and functions of torch (`layer1.0/add`). The columns are
    those at the head of this file. A layer whose outputs hold NaN or infinity has NaN in all
    columns but `nonfinite`. Cosine and correlation are NaN for a batch of one, and where no axis of
    the output runs over the examples; pairs with a vector of zeros are left out. The model stays in
    the mode it is in. Raises MeasurementError for a model that fails or has no layers.

    Cost: 1 forward pass, and one reading of every activation.

    How to read it: a variance_ratio between 0.5 and 2 at every depth is healthy; a straight slope
    on a log scale is a signal that vanishes or explodes; a cosine near 1 in deep layers means that
    they cannot tell the inputs apart.

    >>> model = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> profile = signal_propagation(model, torch.tensor([[3.0, -1.0], [1.0, 1.0]]))
    >>> [round(mean, 4) for mean in profile.column("mean")]
    [1.0, 1.25]
    >>> [round(variance, 4) for variance in profile.column("variance")]
    [2.0, 1.1875]
    >>> round(profile.at("1")["cosine"] * math.sqrt(2), 6)
    1.0
    """
    given = read_batch(batch, model=model)
    layers: list[str] = []
    rows: list[Tensor] = []

    def listen(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        if output.numel() and output.device.type != "meta":
            layers.append(layer.name)
            with torch._C.DisableTorchFunction():  # the taps need not hear of what follows
                rows.append(output_statistics(output, given.examples))

    with Taps(model) as taps, torch.no_grad():
        on_layer(taps, listen)
        given.forward(model)
    if not rows:
        raise MeasurementError(
            expected="a model with layers that put out floating numbers",
            received=f"{type(model).__name__}, in which none ran",
            remedy="build it of torch.nn's modules or torch.nn.functional's functions",
        )
    return propagation_profile(layers, rows)


def output_statistics(output: Tensor, examples: int) -> Float[Tensor, "6"]:
    """What is kept of one output, on its device and without waiting for it.

    The largest magnitude s, then of x / s the mean and the variance, then cosine, correlation and
    the share of numbers that are not finite. `propagation_profile` turns these into columns.
    """
    values = output.detach()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    low, high = torch.aminmax(values)
    scale = torch.maximum(high, -low)
    rows = _by_example(values, examples)
    tiniest = torch.finfo(values.dtype).tiny
    centred = rows / scale.clamp_min(tiniest)
    means = centred.mean(dim=1)
    centred -= means[:, None]
    variances = centred.square().mean(dim=1)
    joint = (centred[:-1] * centred[1:]).mean(dim=1)
    second = variances + means.square()
    length, spread = second.sqrt(), variances.sqrt()
    cosine = (joint + means[:-1] * means[1:]) / (length[:-1] * length[1:])
    correlation = joint / (spread[:-1] * spread[1:])
    # 0 x is NaN where x is not finite, and NaN counts as nonzero: faster than isfinite by far.
    nonfinite = torch.count_nonzero(values * 0) / values.numel()
    whole = variances.mean() + means.var(correction=0)
    parts = [scale, means.mean(), whole, cosine.nanmean(), correlation.nanmean(), nonfinite]
    return torch.stack([part.to(scale.dtype) for part in parts])


def propagation_profile(layers: list[str], rows: list[Tensor]) -> Profile:
    """The Profile of rows of `output_statistics`; the one place where the device is waited for."""
    device = rows[0].device
    exact = max((row.dtype for row in rows), key=lambda dtype: dtype.itemsize)
    table = torch.stack([row.to(device, exact) for row in rows]).tolist()
    values: dict[str, list[float]] = {column: [] for column in COLUMNS}
    for scale, scaled_mean, scaled_variance, cosine, correlation, nonfinite in table:
        mean, variance = scale * scaled_mean, scale * (scale * scaled_variance)
        if not math.isfinite(scale):
            mean = variance = math.nan
        values["mean"].append(mean)
        values["variance"].append(variance)
        values["second_moment"].append(variance + mean * mean)
        values["cosine"].append(cosine)
        values["correlation"].append(correlation)
        values["nonfinite"].append(nonfinite)
    first = values["variance"][0]
    values["variance_ratio"] = [v / first if first else math.nan for v in values["variance"]]
    return Profile(
        name="signal propagation",
        unit="1; variance and second moment: the output's unit squared",
        reading="a variance_ratio between 0.5 and 2 at every depth is healthy, a slope on a log "
        "scale vanishes or explodes; a cosine near 1 means that all inputs look alike",
        layers=tuple(layers),
        values={column: tuple(row) for column, row in values.items()},
    )


def _by_example(values: Tensor, examples: int) -> Float[Tensor, "B N"]:
    """One row per example, or a single row where no axis runs over the examples.

    The order within a row is that in which the numbers lie in memory, so that maps in channels_last
    are not copied. An axis that is a multiple of the batch holds several parts of each example, one
    after the other, as the windows of a Swin transformer do.
    """
    if values.ndim == 0:
        return values.reshape(1, 1)
    sizes = values.shape
    axis = next((i for i, size in enumerate(sizes) if size == examples), None)
    if axis is None:
        if sizes[0] % examples == 0 and values.numel():
            return values.reshape(examples, -1)
        return values.reshape(1, -1)
    strides = values.stride()
    others = sorted((i for i in range(values.ndim) if i != axis), key=lambda i: -strides[i])
    return values.permute(axis, *others).reshape(examples, -1)
