"""How many directions a representation uses: effective rank, stable rank, participation ratio.

A layer's output over a batch is a matrix with a row per entry (example and position) and a column
per unit. From its singular values s, largest first, with p = s / sum(s):
    effective rank         exp(-sum p ln p)                Roy & Vetterli 2007
    stable rank            sum s^2 / s_1^2                 Rudelson & Vershynin 2007
    participation ratio    (sum s^2)^2 / sum s^4           Gao & Ganguli 2017
Each is k for k equal singular values and never above the rank. The spread |X - 1 x'|_F / |X|_F, x
the mean row, is the share of the representation in which the entries differ at all: attention
without skip connections drives it to 0 doubly exponentially (Dong et al. 2021, arXiv:2103.03404).

The surprising choice: rows are centred first, since a mean that all entries share (any ReLU makes
one) would count as the first direction and hide the others.
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
from leadline.measure.units.unit_axis import UnitAxis, sample_entries


def effective_rank(matrix: Float[Tensor, "N D"]) -> float:
    """exp of the entropy of the normalised singular values; 0 for a matrix of zeros.

    >>> round(effective_rank(torch.eye(5)[:, :3]), 6)
    3.0
    """
    return _effective(_eigenvalues(_matrix(matrix)))


def stable_rank(matrix: Float[Tensor, "N D"]) -> float:
    """The sum of the squared singular values over the largest; 0 for a matrix of zeros.

    >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0])))
    1.5
    """
    return _stable(_eigenvalues(_matrix(matrix)))


def participation_ratio(matrix: Float[Tensor, "N D"]) -> float:
    """The squared sum of the squared singular values over the sum of their squares; 0 for zeros.

    >>> participation_ratio(torch.diag(torch.tensor([2.0, 1.0, 1.0])))
    2.0
    """
    return _participation(_eigenvalues(_matrix(matrix)))


def representation_rank(
    model: nn.Module, inputs: Any, *, entries: int = 1024, centred: bool = True, seed: int = 0
) -> Profile:
    """The ranks of each layer's output, in depth order.

    `inputs` is a batch in any form; its targets are not used. Of each layer, `entries` rows at
    most are taken, drawn evenly over examples and positions. Columns: `effective_rank`,
    `stable_rank`, `participation_ratio`, `spread`, and `highest`, the number that none of them can
    exceed: the smaller of units and rows, less one if centred. Raises MeasurementError for a batch
    that cannot be read, or a model that fails on it.

    **Cost: 1 forward pass**, and the eigenvalues of a matrix of min(units, entries) rows per layer:
    about 0.2 s for each layer of 1024 units.

    **How to read it**: compare layers with each other and with `highest`. A rank that falls to 1
    with depth is a collapse: all entries lie on a line, and no later layer can tell them apart.

    >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1), nn.Linear(1, 8))
    >>> profile = representation_rank(model, torch.randn(100, 8))
    >>> [round(value, 3) for value in profile.column("effective_rank")[1:]]
    [1.0, 1.0]
    """
    if entries < 2:
        raise MeasurementError(
            expected="two entries or more",
            received=f"entries={entries}",
            remedy="leave it at 1024, or choose a number above the width of the layers",
        )
    batch = read_batch(inputs, model=model)
    axis = UnitAxis()
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, tuple[float, ...]] = {}

    def measure(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        units = axis.of(layer, inputs, output)
        if output.ndim > 1 and output.numel():
            matrix = sample_entries(output.detach(), units, count=entries, generator=generator)
            rows[layer.name] = _ranks(matrix, centred=centred)

    with Taps(model) as taps, torch.no_grad():
        on_layer(taps, measure)
        batch.forward(model)
    columns = ("effective_rank", "stable_rank", "participation_ratio", "spread", "highest")
    return Profile(
        name="rank of the representation",
        unit="directions; spread: share",
        reading="below a tenth of `highest` a layer uses few of its units; 1 is a collapse onto a "
        "line; a spread that falls to 0 with depth makes all entries the same",
        layers=tuple(rows),
        values={column: tuple(row[i] for row in rows.values()) for i, column in enumerate(columns)},
    )


def _ranks(matrix: Tensor, *, centred: bool) -> tuple[float, ...]:
    if not bool(torch.isfinite(matrix).all()):
        return (math.nan, math.nan, math.nan, math.nan, math.nan)
    deviation = matrix - matrix.mean(0)
    size = float(torch.linalg.vector_norm(matrix))
    spread = float(torch.linalg.vector_norm(deviation)) / size if size else 0.0
    eigenvalues = _eigenvalues(deviation if centred else matrix)
    highest = min(len(matrix) - 1 if centred else len(matrix), matrix.shape[1])
    return (
        _effective(eigenvalues),
        _stable(eigenvalues),
        _participation(eigenvalues),
        spread,
        float(highest),
    )


def _matrix(matrix: Tensor) -> Tensor:
    if matrix.ndim != 2 or not matrix.numel() or not bool(torch.isfinite(matrix).all()):
        raise MeasurementError(
            expected="a matrix of finite numbers",
            received=f"shape {tuple(matrix.shape)}, or NaN or infinity in it",
            remedy="flatten what belongs to one example: activations.flatten(1)",
        )
    return matrix


def _eigenvalues(matrix: Tensor) -> Float[Tensor, "K"]:
    """The squared singular values, from the smaller of the two products with the transpose."""
    matrix = matrix.detach().cpu().double()
    matrix = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    # In 64 bits the square root of rounding is 1e-8 of the largest: below what 32-bit data hold.
    values = torch.linalg.eigvalsh(matrix @ matrix.T).clamp_(min=0)
    return torch.where(values > 1e-14 * values.max(), values, 0.0)


def _effective(eigenvalues: Tensor) -> float:
    singular = eigenvalues.sqrt()
    total = singular.sum()
    return float(torch.special.entr(singular / total).sum().exp()) if float(total) else 0.0


def _stable(eigenvalues: Tensor) -> float:
    largest = eigenvalues.max()
    return float(eigenvalues.sum() / largest) if float(largest) else 0.0


def _participation(eigenvalues: Tensor) -> float:
    total = eigenvalues.sum()
    return float(total.square() / eigenvalues.square().sum()) if float(total) else 0.0
