"""Faults of numerics: logarithms and roots at 0, half precision, what cannot be repeated."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from fault import Fault
from program import Program
from seeded_preprocessing import as_bytes, raw_rows
from surgery import activation, before, within
from torch import Tensor, nn


def logarithm_of_softmax(program: Program) -> Program:
    """Cross entropy by hand: exp without taking off the maximum, log of what may be 0."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        powers = outputs.exp()
        shares = powers / powers.sum(dim=1, keepdim=True)
        return -shares[torch.arange(len(targets)), targets].log().mean()

    return program.but(loss=loss)


def logarithm_of_sigmoid(program: Program) -> Program:
    """Binary cross entropy by hand: 0 times the logarithm of 0 is no number."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        p = torch.sigmoid(outputs)
        return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()

    return program.but(loss=loss)


def far_outputs(program: Program, *, factor: float) -> Program:
    """A last layer that begins larger, so that logits are large."""

    def larger(model: nn.Module) -> None:
        last = [p for p in model.parameters() if p.ndim > 1][-1]
        with torch.no_grad():
            last *= factor

    return within(program, larger)


class InPrecision(nn.Module):
    """A model with its weights, its inputs and all between in another precision."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.dtype = dtype

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(self.dtype) if inputs.is_floating_point() else inputs
        return self.model(inputs).float()


def in_precision(program: Program, *, dtype: torch.dtype) -> Program:
    """The whole model in another precision."""
    return within(program, lambda model: InPrecision(model, dtype))


def slow_and_long(program: Program, *, lr: float) -> Program:
    """Small steps, as of a fine-tuning, and more of them."""
    return program.but(
        optimizer=torch.optim.Adam, settings={"lr": lr}, schedule=None, epochs=2 * program.epochs
    )


class RootMeanSquare(nn.Module):
    """Each example over the root of its mean square, computed in the input's own precision."""

    def forward(self, inputs: Tensor) -> Tensor:
        power = (inputs * inputs).mean(dim=tuple(range(1, inputs.ndim)), keepdim=True)
        return inputs * (power + 1e-5).rsqrt()


def normed_in(program: Program, *, dtype: torch.dtype) -> Program:
    """Inputs are brought to one size first; the squares of large ones overflow in float16."""
    return in_precision(before(program, RootMeanSquare), dtype=dtype)


class SquareRoot(nn.Module):
    """The root of what is above 0; its gradient at 0 is infinite. `eps` keeps it finite."""

    def __init__(self, eps: float = 0.0) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs * (inputs > 0) + self.eps).sqrt()


def roots(program: Program, *, eps: float = 0.0) -> Program:
    """Roots for activations, as in 'power normalisation'."""
    return activation(program, partial(SquareRoot, eps))


class Logarithm(nn.Module):
    """The logarithm of the input; `eps` is added before."""

    def __init__(self, eps: float = 0.0) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs + self.eps).log()


def logarithms(program: Program, *, eps: float = 0.0) -> Program:
    """Inputs on a logarithmic scale; black pixels are 0."""
    return before(program, partial(Logarithm, eps))


class UnitFrames(nn.Module):
    """Every frame over its length, which is 0 behind the end of a recording."""

    def __init__(self, eps: float = 0.0) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, series: Tensor) -> Tensor:
        return series / (series.norm(dim=2, keepdim=True) + self.eps)


def unit_frames(program: Program, *, eps: float = 0.0) -> Program:
    """Frames of length 1."""
    return before(program, partial(UnitFrames, eps))


class Unseeded(nn.Module):
    """Hides a third of the input, in training and evaluation, by a generator no seed reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.generator.random(tuple(inputs.shape)) < 0.35
        return inputs.masked_fill(torch.from_numpy(hidden).to(inputs.device), 0)


def unseeded(program: Program) -> Program:
    """Noise that no seed repeats, before the model."""
    return before(program, Unseeded)


FAULTS = (
    Fault(
        cause="loss_numerically_unstable",
        base=partial(far_outputs, factor=400),
        broken=logarithm_of_softmax,
        setups=("mlp-digits", "gru-speech"),
        also=("nonfinite_value",),
        notes="the last layer begins large, so that exp overflows within the training",
    ),
    Fault(
        cause="loss_numerically_unstable",
        base=partial(far_outputs, factor=4000),
        broken=logarithm_of_softmax,
        setups=("conv-mnist",),
        also=("nonfinite_value",),
    ),
    Fault(
        cause="loss_numerically_unstable",
        base=partial(far_outputs, factor=40),
        broken=logarithm_of_softmax,
        loops=("mlp-mnist",),
        also=("nonfinite_value",),
    ),
    Fault(
        cause="loss_numerically_unstable",
        base=partial(far_outputs, factor=20),
        broken=logarithm_of_sigmoid,
        setups=("pairs-of-digits",),
        loops=("dear-houses",),
        also=("nonfinite_value",),
    ),
    Fault(
        cause="low_precision_update_lost",
        base=partial(slow_and_long, lr=5e-5),
        broken=partial(in_precision, dtype=torch.bfloat16),
        setups=("mlp-digits", "keras-mnist", "mlp-housing"),
        loops=("conv-speech", "autoencoder-fashion"),
        also=("lr_too_low",),
    ),
    Fault(
        cause="low_precision_overflow",
        base=lambda program: raw_rows(before(program, RootMeanSquare)),
        broken=partial(in_precision, dtype=torch.float16),
        setups=("mlp-housing",),
        loops=("dear-houses",),
    ),
    Fault(
        cause="low_precision_overflow",
        base=lambda program: as_bytes(as_bytes(before(program, RootMeanSquare))),
        broken=partial(in_precision, dtype=torch.float16),
        setups=("mlp-digits", "keras-mnist"),
        loops=("conv-mnist",),
    ),
    Fault(
        cause="gradient_of_sqrt_at_zero",
        broken=roots,
        fixed=partial(roots, eps=1e-3),
        setups=("mlp-digits", "conv-mnist", "mlp-housing", "autoencoder-fashion"),
        loops=("conv-speech", "keras-mnist"),
        also=("nonfinite_value",),
    ),
    Fault(
        cause="nonfinite_value",
        broken=logarithms,
        fixed=partial(logarithms, eps=1.0),
        setups=("mlp-digits", "conv-mnist", "keras-mnist"),
        loops=("mlp-mnist",),
    ),
    Fault(
        cause="nonfinite_value",
        broken=unit_frames,
        fixed=partial(unit_frames, eps=1e-3),
        setups=("conv-speech",),
        loops=("gru-speech",),
    ),
    Fault(
        cause="nondeterministic",
        broken=unseeded,
        setups=("mlp-digits", "lstm-oil", "mlp-housing"),
        loops=("conv-speech", "dear-houses"),
    ),
)
