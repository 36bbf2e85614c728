"""Curvature: the Hessian of the loss and its relatives, as products with vectors.

A network with P parameters has a Hessian of P x P numbers, too many to write down. Its product
with a vector v costs no more than a few passes (Pearlmutter 1994), and products are all that
eigenvalues, spectra and traces need:

    H v = grad (g(w) . v),   g = gradient of the loss L(w) by the trainable parameters w

The gradient is computed once with the graph of its own computation, and every product is one more
backward pass through that graph: neither forward nor first backward are done again. The graph is
also what makes the products belong together: a dropout mask or a batch norm's statistics are those
of one forward pass.

The surprising choice: the products do not call the model. Whatever it would draw or count in
another forward pass, they multiply with one and the same matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.seeds import capture_random_state, derive_seed, restore_random_state
from leadline.core.taps import Taps, plain_name
from leadline.measure.batch import Batch, Loss, read_batch, trainable
from leadline.measure.curvature.derivatives import (
    Linearised,
    check_second_derivatives,
    differentiate,
)
from leadline.measure.curvature.double_backward import twice_differentiable
from leadline.measure.curvature.gauss_newton import OUTPUT_CURVATURES, OutputCurvature, gauss_newton

MatrixName = Literal["hessian", "gauss_newton", "fisher", "monte_carlo_fisher", "empirical_fisher"]


class CurvatureMatrix:
    """A symmetric P x P matrix that is only ever multiplied: `matrix @ vector`.

    The entries of a vector follow `names` and `shapes`, each parameter flattened, in the order of
    `model.named_parameters()`. With one batch the graph is kept, and a product is one backward pass
    through it; with several each product builds the graph of one batch after the other, so that
    memory holds one, and the result is their mean, weighted by their numbers of examples.

    `products` counts the products so far. Make a new one when the model has changed.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        *,
        loss: Loss | None,
        kind: OutputCurvature | None,
    ) -> None:
        parameters = trainable(model)
        self._model, self._batches, self._loss, self._kind = model, tuple(batches), loss, kind
        self._parameters = tuple(parameters.values())
        self.names = tuple(map(plain_name, parameters))
        self.shapes = tuple(tuple(p.shape) for p in self._parameters)
        self._sizes = [p.numel() for p in self._parameters]
        self.dimension = sum(self._sizes)
        self.device = self._parameters[0].device
        self.dtype = torch.float32
        for parameter in self._parameters:
            self.dtype = torch.promote_types(self.dtype, parameter.dtype)
        self.products = 0
        self._random = capture_random_state()
        self._kept: Linearised | None = None
        if len(self._batches) == 1:
            with self._prepared():
                self._kept = self._linearise(0)

    def __matmul__(self, vector: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
        """The product with a vector, in the vector's order of entries."""
        with Taps(self._model):  # a checkpoint runs its layers again in the backward pass
            return self.product(vector)

    def product(self, vector: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
        """The same for a loop inside Taps that are open already, which saves opening them."""
        if vector.shape != (self.dimension,):
            raise MeasurementError(
                expected=f"a vector of {self.dimension:,} entries, one per trainable parameter",
                received=f"a tensor of shape {tuple(vector.shape)}",
                remedy="flatten and join it in the order of `names`",
            )
        self.products += 1
        parts = self._cut(vector)
        result = torch.zeros(self.dimension, dtype=self.dtype, device=self.device)

        def add(weight: float, built: Linearised) -> None:
            result.add_(self._join(built.multiply(parts)), alpha=weight)

        self._for_each_batch(add)
        return result

    def loss_and_gradient(self) -> tuple[float, Float[Tensor, "P"]]:
        """The loss, and its gradient as one vector. Cost: nothing with one batch, else a pass."""
        gradient = torch.zeros(self.dimension, dtype=self.dtype, device=self.device)
        values: list[float] = []

        def add(weight: float, built: Linearised) -> None:
            values.append(weight * float(built.loss))
            gradient.add_(self._join(built.gradient), alpha=weight)

        self._for_each_batch(add)
        return sum(values), gradient

    def dense(self, *, limit: int = 4096) -> Float[Tensor, "P P"]:
        """The whole matrix. Cost: P products; refused above `limit` parameters."""
        if self.dimension > limit:
            raise MeasurementError(
                expected=f"at most {limit:,} trainable parameters for a dense matrix",
                received=f"{self.dimension:,}",
                remedy="ask for eigenvalues, a spectral density or the trace, or raise `limit`",
            )
        unit = torch.eye(self.dimension, dtype=self.dtype, device=self.device)
        with Taps(self._model):
            return torch.stack([self.product(row) for row in unit])

    def split(self, vector: Float[Tensor, "P"]) -> dict[str, Tensor]:
        """A vector cut into one tensor per parameter, by name."""
        return dict(zip(self.names, self._cut(vector, cast=False), strict=True))

    def _cut(self, vector: Tensor, *, cast: bool = True) -> list[Tensor]:
        return [
            part.view(p.shape).to(p) if cast else part.view(p.shape)
            for part, p in zip(vector.split(self._sizes), self._parameters, strict=True)
        ]

    def _join(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([t.detach().reshape(-1).to(self.device, self.dtype) for t in tensors])

    def _for_each_batch(self, act: Callable[[float, Linearised], None]) -> None:
        """Call `act(weight, linearised loss)` for each batch, one in memory at a time."""
        if self._kept is not None:
            act(1.0, self._kept)
            return
        total = sum(batch.examples for batch in self._batches)
        for number, batch in enumerate(self._batches):
            with self._prepared():
                act(batch.examples / total, self._linearise(number))

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        """The model left as found, and each time the same random numbers."""
        with Taps(self._model), twice_differentiable(self._model), torch.enable_grad():
            restore_random_state(self._random)
            yield

    def _linearise(self, number: int) -> Linearised:
        batch = self._batches[number]
        outputs = batch.forward(self._model)
        if self._kind is not None:
            kind = replace(self._kind, seed=derive_seed(self._kind.seed, number))
            return gauss_newton(outputs, batch, self._parameters, self._loss, kind)
        return _hessian(batch.loss_of(outputs, self._loss), self._parameters)


def curvature_matrix(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    matrix: MatrixName = "hessian",
    samples: int = 1,
    seed: int = 0,
) -> CurvatureMatrix:
    """The curvature of the loss by the trainable parameters, to be multiplied with vectors.

    With J the Jacobian of the outputs z by the parameters, N examples, each of which contributes
    its gradient g_n to the mean:

    - `hessian`: H, the second derivative of the loss itself; it may have negative eigenvalues;
    - `gauss_newton`: J^T (d2L/dz2) J, the Hessian of the network made linear in its parameters;
      never negative where the loss is convex in the outputs (Schraudolph 2002);
    - `fisher`: the mean of g g^T over targets that the model itself would draw. For cross entropy
      and squared error it is the Gauss-Newton matrix (Martens 2020, arXiv:1412.1193); other losses
      are an error;
    - `monte_carlo_fisher`: the same from `samples` targets drawn for each example;
    - `empirical_fisher`: the mean of g g^T over the targets in the data. At a good fit it says
      little of the curvature (Kunstner et al. 2019, arXiv:1905.12558).

    `batch` is one batch, or a list of batches (`[(inputs, targets), ...]`, `list(loader)`) for data
    that do not fit in memory together. The model is measured in the mode it is in: in training mode
    a batch norm ties the examples of a batch together, and the Fisher matrices of single examples
    are then those of the batch's statistics held fixed. Units: loss per squared unit of parameter.

    Raises a MeasurementError for a model without trainable parameters, a loss that is not one
    finite number or does not depend on the parameters, an operation without a second derivative.

    Cost: 1 forward-backward pass; each product with the Hessian about 2 more backward passes, with
    the others about 1.5. With a list of batches, each product repeats all of it per batch.

    How to read: entry (i, j) tells how the gradient by parameter i changes as j moves.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> batch = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 1)
    >>> matrix = curvature_matrix(model, batch, loss=nn.functional.mse_loss)
    >>> matrix @ torch.tensor([1.0, 1.0])  # 2/N X^T X = diag(1, 9)
    tensor([1., 9.])
    """
    known = (*OUTPUT_CURVATURES, "hessian")
    if matrix not in known or samples < 1:
        raise MeasurementError(
            expected=f"a matrix among {', '.join(sorted(known))}, and at least one sample",
            received=f"matrix={matrix!r}, samples={samples!r}",
            remedy="choose one of these",
        )
    kind = None
    if matrix != "hessian":
        kind = OutputCurvature(name=matrix, samples=samples, seed=seed)
    return CurvatureMatrix(model, read_batches(batch, model=model), loss=loss, kind=kind)


def read_batches(value: Any, *, model: nn.Module) -> list[Batch]:
    """One batch or several: a list whose every entry is itself a batch is several.

    A list of two tensors is one batch, as a DataLoader makes it. Of one whose inputs and targets
    are both tuples, make a tuple or a Batch first.

    >>> one, pair = torch.ones(3, 2), (torch.ones(3, 2), torch.ones(3))
    >>> [len(read_batches(v, model=nn.Identity())) for v in (one, pair, list(pair), [pair, pair])]
    [1, 1, 1, 2]
    """
    several = isinstance(value, list) and len(value) > 0
    if several and all(isinstance(entry, tuple | list | Mapping | Batch) for entry in value):
        return [read_batch(entry, model=model) for entry in value]
    return [read_batch(value, model=model)]


def _hessian(loss: Tensor, parameters: Sequence[Tensor]) -> Linearised:
    check_second_derivatives([loss])
    gradient = differentiate([loss], parameters, keep=True)
    # A gradient that no parameter changes has no graph: its rows of the Hessian are zero.
    curved = [n for n, tensor in enumerate(gradient) if tensor.requires_grad]

    def multiply(vector: Sequence[Tensor]) -> Sequence[Tensor]:
        if not curved:
            return [torch.zeros_like(parameter) for parameter in parameters]
        return differentiate([gradient[n] for n in curved], parameters, [vector[n] for n in curved])

    return Linearised(loss=loss.detach(), gradient=gradient, multiply=multiply)
