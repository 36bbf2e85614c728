"""The Jacobian between two places of any network, as a linear map that is never written out.

At the start the tensor is cut: a fresh leaf with the same values takes its place, and the forward
pass goes on from there to the end. With y the tensor at the end and x the leaf,

    J^T u   one backward pass from y with the cotangent u (vector-Jacobian product)
    J v     the derivative of J^T u by u in the direction v: the backward pass is linear in u, so
            that a backward pass through the backward pass gives it (Townsend 2017)

Many products are computed in one batched pass. The surprising choice is that trick in the place of
forward-mode differentiation: it needs one forward pass for any number of products, and formulas
that more operations have. Attention runs as plain matrix products meanwhile, since the fused
kernels cannot be differentiated twice.

What flows past the start or the end is not part of the Jacobian between them: a shortcut around the
start is held constant.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.core.errors import LeadlineError, MeasurementError
from leadline.core.names import look_up
from leadline.core.taps import Call, Taps, plain_name
from leadline.measure.batch import Batch, main_output, read_batch

INPUT = "(input)"
OUTPUT = "(output)"
"""The ends of the whole model among the names of its layers."""

BATCHED_NUMBERS = 2**23
"""How many numbers the vectors of one batched pass hold at most: 32 MiB in single precision."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JacobianMap:
    """J = d target / d source of the first `examples` rows, each row by itself.

    `source` [B, ...] is a leaf and `target` [B, ...] was computed from it, or each is one example
    whatever its shape when `rows` is 1. `coupled` says that the rows are computed from one another,
    as under a batch norm in training mode: the Jacobian is then the block of a row by itself, and
    costs a pass for each example.
    """

    start: str
    end: str
    source: Tensor
    target: Tensor
    rows: int
    examples: int
    coupled: bool

    @property
    def shape(self) -> tuple[int, int]:
        """How many numbers one example has at the end, and how many at the start."""
        return self.target.numel() // self.rows, self.source.numel() // self.rows

    def vjp(self, cotangents: Float[Tensor, "K E M"]) -> Float[Tensor, "K E N"]:
        """J^T u for K cotangents u of each example."""
        product = functools.partial(_batched_gradient, self.target, self.source)
        return self._apply(product, cotangents, self.target, self.source)

    def jvp(self, tangents: Float[Tensor, "K E N"]) -> Float[Tensor, "K E M"]:
        """J v for K tangents v of each example."""
        cotangent, gradient = self._linear_in_cotangent
        product = functools.partial(_batched_gradient, gradient, cotangent)
        return self._apply(product, tangents, self.source, self.target)

    def dense(self) -> Float[Tensor, "E M N"]:
        """The matrices themselves: a batched product for each number at the narrower end."""
        outputs, inputs = self.shape
        if inputs < outputs:
            return self.jvp(self._unit_vectors(inputs)).permute(1, 2, 0)
        return self.vjp(self._unit_vectors(outputs)).permute(1, 0, 2)

    def _unit_vectors(self, size: int) -> Tensor:
        unit = torch.eye(size, dtype=self.source.dtype, device=self.source.device)
        return unit[:, None, :].expand(size, self.examples, size)

    @functools.cached_property
    def _linear_in_cotangent(self) -> tuple[Tensor, Tensor]:
        cotangent = torch.zeros_like(self.target, requires_grad=True)
        try:
            (gradient,) = torch.autograd.grad(
                self.target, self.source, cotangent, create_graph=True
            )
            torch.autograd.grad(gradient, cotangent, torch.zeros_like(gradient), retain_graph=True)
        except RuntimeError as error:
            raise MeasurementError(
                expected="layers that can be differentiated twice",
                received=f"{str(error).splitlines()[0][:200]}, between {self.start} and {self.end}",
                remedy="ask for method='exact', which needs the first derivative only",
            ) from error
        return cotangent, gradient

    def _apply(
        self, product: Callable[[Tensor], Tensor], vectors: Tensor, given: Tensor, asked: Tensor
    ) -> Tensor:
        """Products of K vectors for each example, in as many batched passes as memory asks for."""
        at_once = max(1, BATCHED_NUMBERS // max(given.numel(), asked.numel()))
        chunks = [self._apply_chunk(product, part, given) for part in vectors.split(at_once)]
        return torch.cat(chunks)

    def _apply_chunk(
        self, product: Callable[[Tensor], Tensor], vectors: Tensor, given: Tensor
    ) -> Tensor:
        count = len(vectors)
        together = range(1) if not self.coupled else range(self.examples)
        rows: list[Tensor] = []
        for example in together:
            chosen = slice(example, example + 1) if self.coupled else slice(self.examples)
            full = vectors.new_zeros(count, self.rows, vectors.shape[-1])
            full[:, chosen] = vectors[:, chosen]
            result = product(full.reshape(count, *given.shape))
            rows.append(result.reshape(count, self.rows, -1)[:, chosen])
        return torch.cat(rows, dim=1)


def _batched_gradient(output: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
    """The gradients of <output, v> by the source, for each v of `vectors`."""

    def gradient(vector: Tensor, batched: bool) -> Tensor:
        (result,) = torch.autograd.grad(
            output, source, vector, retain_graph=True, is_grads_batched=batched
        )
        return result

    if len(vectors) == 1:
        return gradient(vectors[0], False)[None]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an operation that is merely slower
            return gradient(vectors, True)
    except RuntimeError:  # an operation that knows no batch of backward passes
        return torch.stack([gradient(vector, False) for vector in vectors])


@contextmanager
def jacobian_map(
    model: nn.Module,
    inputs: Any,
    *,
    start: str = INPUT,
    end: str = OUTPUT,
    examples: int = 4,
    double: bool = False,
) -> Iterator[JacobianMap]:
    """The Jacobian from `start` to `end`, usable inside the `with` block only.

    Names are those of modules; `name (call 2)` is the second call of one. Cost: 1 forward and 1
    backward pass; every product after that costs as much as one or two backward passes.
    """
    with jacobian_links(
        model, inputs, places=(start, end), examples=examples, double=double
    ) as links:
        yield links[0]


@contextmanager
def jacobian_links(
    model: nn.Module,
    inputs: Any,
    *,
    places: Sequence[str],
    examples: int = 4,
    double: bool = False,
) -> Iterator[tuple[JacobianMap, ...]]:
    """The Jacobians from each place to the next, all from one forward pass."""
    batch = _first_examples(model, read_batch(inputs, model=model), examples)
    check_places(model, places)
    if double:
        batch = batch.to(torch.float64)
    with Taps(model) as taps, ExitStack() as scopes:
        scopes.enter_context(torch.enable_grad())
        scopes.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            scopes.enter_context(torch.backends.cudnn.flags(enabled=False))
        cuts = Cuts(places)
        taps.replace_output(cuts.cut)
        cuts.finish(_forward(model, cuts.from_input(batch, model), double=double))
        yield tuple(
            _link(cuts, pair, total=batch.examples, examples=examples)
            for pair in itertools.pairwise(places)
        )


def floating_input(model: nn.Module, batch: Batch) -> int:
    """Which of the batch's tensors is the input: the first floating one.

    Raises MeasurementError for inputs that are integers, by which nothing can be differentiated.
    """
    for index, tensor in enumerate(batch.inputs):
        if tensor.is_floating_point():
            return index
    kinds = ", ".join(str(tensor.dtype).removeprefix("torch.") for tensor in batch.inputs)
    named = [plain_name(n) for n, m in model.named_modules() if isinstance(m, nn.Embedding)]
    raise MeasurementError(
        expected="an input of floating numbers: a derivative by whole numbers does not exist",
        received=f"inputs of type {kinds}" if kinds else "inputs without any tensor",
        remedy=f"begin behind the embedding: start={named[0] if named else 'NAME'!r}"
        + ("" if named else ", the name of the layer that makes floating numbers of them"),
    )


class Cuts:
    """The tensors on both sides of each cut: what arrived there, and the leaf that went on.

    With `values` the leaf is a copy of those in the place of what arrived.
    """

    def __init__(self, places: Sequence[str], *, values: Tensor | None = None) -> None:
        self._places = frozenset(places)
        self._values = values
        self.arrived: dict[str, Tensor] = {}
        self.leaves: dict[str, Tensor] = {}

    def from_input(self, batch: Batch, model: nn.Module) -> Batch:
        """The batch with a leaf for its input, if the input is one of the places."""
        if INPUT not in self._places:
            return batch
        tensors = list(batch.inputs)
        index = floating_input(model, batch)
        tensors[index] = self._leaf(INPUT, tensors[index])
        return batch.with_inputs(*tensors)

    def cut(self, call: Call, output: Any) -> Any:
        """The output that goes on behind a place: a callback for `Taps.replace_output`."""
        name = call.name if call.number == 0 else f"{call.name} (call {call.number + 1})"
        if name not in self._places or name in self.leaves:
            return None
        tensor = main_output(output)
        self.arrived[name] = tensor
        return replace_tensor(output, tensor, self._leaf(name, tensor))

    def finish(self, outputs: Any) -> None:
        """Note what the model returned."""
        self.arrived[OUTPUT] = main_output(outputs)

    def _leaf(self, name: str, tensor: Tensor) -> Tensor:
        values = tensor if self._values is None else self._values
        self.leaves[name] = leaf = values.detach().clone().requires_grad_()
        return leaf.clone()  # in-place layers may write to a copy, but not to a leaf


def replace_tensor(nest: Any, old: Tensor, new: Tensor) -> Any:
    """The same nest of tuples, lists, mappings and dataclasses with `new` in the place of `old`.

    >>> first, second = torch.zeros(1), torch.ones(1)
    >>> replace_tensor((first, {"a": second}), second, first)
    (tensor([0.]), {'a': tensor([0.])})
    """
    if nest is old:
        return new
    if isinstance(nest, Mapping):
        changed: Any = copy.copy(nest)
        for key, entry in nest.items():
            changed[key] = replace_tensor(entry, old, new)
        return changed
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*(replace_tensor(entry, old, new) for entry in nest))
    if isinstance(nest, tuple | list):
        return type(nest)(replace_tensor(entry, old, new) for entry in nest)
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        names = [field.name for field in dataclasses.fields(nest) if field.init]
        entries = {name: replace_tensor(getattr(nest, name), old, new) for name in names}
        return dataclasses.replace(nest, **entries)
    return nest


def _first_examples(model: nn.Module, batch: Batch, examples: int) -> Batch:
    """The first examples alone, unless a batch norm in training mode needs the others too."""
    if examples < 1:
        raise MeasurementError(
            expected="at least one example to measure",
            received=f"examples={examples}",
            remedy="leave it out, or set it to 1 or more",
        )
    needs_batch = any(
        isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats)
        for module in model.modules()
    )
    return batch if needs_batch or examples >= batch.examples else batch.first(examples)


def check_places(model: nn.Module, places: Sequence[str]) -> None:
    """Raise UnknownNameError, with 'did you mean', for a place that is no module's name."""
    known = {plain_name(name): True for name, _ in model.named_modules()}
    known |= {INPUT: True, OUTPUT: True}
    for place in places:
        look_up(place.partition(" (call ")[0], known, kind="layer")


def _forward(model: nn.Module, batch: Batch, *, double: bool) -> Any:
    if not double:
        return batch.forward(model)
    state = {
        name: tensor.detach().double() if tensor.is_floating_point() else tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    try:
        return functional_call(model, state, batch.args, dict(batch.kwargs))
    except LeadlineError:
        raise
    except Exception as error:
        raise MeasurementError(
            expected="a model that runs in double precision",
            received=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}",
            remedy="leave out double=True, or call model.double() and see which layer fails",
        ) from error


def _link(cuts: Cuts, pair: tuple[str, str], *, total: int, examples: int) -> JacobianMap:
    start, end = pair
    source, target = cuts.leaves.get(start), cuts.arrived.get(end)
    missing = start if source is None else end
    if source is None or target is None:
        raise MeasurementError(
            expected=f"a forward pass that goes through {missing!r}",
            received=f"one in which {missing!r} was not called"
            if missing not in (INPUT, OUTPUT)
            else f"{missing!r} where a Jacobian cannot {'end' if missing == INPUT else 'start'}",
            remedy="name layers that this batch goes through, the one nearer to the input first",
        )
    _check_dependence(source, target, pair)
    count = min(examples, total)
    if not (len(source.shape) and len(target.shape) and len(source) == len(target) == total):
        if total > 1:
            raise MeasurementError(
                expected=f"one row for each of the {total} examples at both ends",
                received=f"shapes {tuple(source.shape)} at {start!r}, {tuple(target.shape)} at "
                f"{end!r}",
                remedy="pass a single example: it may have any shape",
            )
        count = total = 1
    coupled = total > 1 and _rows_are_coupled(source, target)
    return JacobianMap(
        start=start,
        end=end,
        source=source,
        target=target,
        rows=total,
        examples=count,
        coupled=coupled,
    )


def _check_dependence(source: Tensor, target: Tensor, pair: tuple[str, str]) -> None:
    gradient = None
    if target.requires_grad:
        (gradient,) = torch.autograd.grad(
            target, source, torch.zeros_like(target), retain_graph=True, allow_unused=True
        )
    if gradient is None:
        raise MeasurementError(
            expected=f"{pair[1]!r} to be computed from {pair[0]!r}, in a way that has a derivative",
            received="no path of gradients between them",
            remedy="name the layer nearer to the input first; look for .detach(), .data or no_grad "
            "in between",
        )


def _rows_are_coupled(source: Tensor, target: Tensor) -> bool:
    """Whether the first row at the end depends on another row at the start."""
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.zeros_like(target)
    noise = torch.randn(target[0].shape, generator=generator, dtype=torch.float64)
    cotangent[0] = noise.to(target)
    (gradient,) = torch.autograd.grad(target, source, cotangent, retain_graph=True)
    return bool(gradient[1:].any())
