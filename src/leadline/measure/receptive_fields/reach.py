"""Reach: which inputs each unit of a tensor can see, followed through any computation.

Beside every tensor that the inputs flow into travel its bounds: per input axis two tensors of its
own shape, the first and the last index that each unit sees. What merely moves numbers (reshape,
permute, concatenate, roll) moves the bounds by the very same function; what mixes units takes the
minimum and the maximum over those it mixes (`reach_rules`). So one mechanism serves convolutions,
token mixers and windowed attention alike. Of an operation without a rule the result is unknown,
and so is everything computed from it, with the reason: nothing is guessed.

The last index is kept with its sign turned, so that every union is a minimum and 'sees nothing' is
+infinity on both sides. Operations are seen at the dispatcher, where a convolution has one form
however the model wrote it. Bounds lie on the CPU: they are small, and a model on the `meta` device,
which computes nothing, can be followed too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from leadline.core.taps import tensors_in

NOTHING = float("inf")


@dataclass(frozen=True, eq=False)
class Reach:
    """What each unit of one tensor sees: `bounds` are per axis the first index and minus the last.

    A bound has length 1 in each dimension along which it does not vary, channels mostly; `shape`
    is the tensor's. Per axis, `jumps` is how many inputs lie between neighbouring units, and `dims`
    the dimension of the tensor along which they are neighbours, None where the axis is no dimension
    any more. `zero` marks the entries that are 0 whatever the weights: attention that a mask
    forbids. `unknown` says what had no rule; it is empty where everything is known.
    """

    shape: torch.Size
    bounds: tuple[Tensor, ...]
    jumps: tuple[float, ...]
    dims: tuple[int | None, ...]
    zero: Tensor | None = None
    unknown: str = ""

    @property
    def ndim(self) -> int:
        """The number of dimensions of the tensor."""
        return len(self.shape)

    def map(self, change: Callable[[Tensor], Tensor], shape: Sequence[int] | None = None) -> Reach:
        """Every bound changed in the same way, places and jumps as they are."""
        bounds = tuple(change(bound) for bound in self.bounds)
        size = self.shape if shape is None else torch.Size(shape)
        return replace(self, bounds=bounds, zero=None, shape=size)

    def full(self, number: int) -> Tensor:
        """One bound in the shape of the tensor."""
        return self.bounds[number].expand(self.shape)


def reach_of_inputs(inputs: Tensor, axes: Sequence[int]) -> Reach:
    """The reach of the inputs themselves: each sees its own place.

    >>> first, minus_last = reach_of_inputs(torch.zeros(1, 1, 3), [2]).bounds
    >>> first.flatten().tolist(), minus_last.flatten().tolist()
    ([0.0, 1.0, 2.0], [-0.0, -1.0, -2.0])
    """
    bounds: list[Tensor] = []
    for axis in axes:
        shape = [-1 if dim == axis else 1 for dim in range(inputs.ndim)]
        index = torch.arange(inputs.shape[axis], dtype=torch.float32, device="cpu")
        bounds += [index.view(shape), -index.view(shape)]
    return Reach(inputs.shape, tuple(bounds), (1.0,) * len(axes), tuple(axes))


def union(reaches: Sequence[Reach], shape: torch.Size) -> Reach:
    """What units see together, broadcast to `shape`; axes lie where the first reach has them."""
    bounds: list[Tensor] = []
    for number in range(len(reaches[0].bounds)):
        bound = reaches[0].bounds[number]
        for reach in reaches[1:]:
            bound = torch.minimum(bound, reach.bounds[number])
        bounds.append(bound.reshape((1,) * (len(shape) - bound.ndim) + bound.shape))
    jumps: list[float] = []
    dims: list[int | None] = []
    for axis in range(len(bounds) // 2):
        # Broadcasting counts dimensions from the end.
        placed = [
            (reach.jumps[axis], dim + len(shape) - reach.ndim)
            for reach in reaches
            if (dim := reach.dims[axis]) is not None
        ]
        jumps.append(placed[0][0] if placed else max(reach.jumps[axis] for reach in reaches))
        dims.append(placed[0][1] if placed else None)
    return Reach(shape, tuple(bounds), tuple(jumps), tuple(dims))


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One call at the dispatcher: arguments by the names in its schema, and what it returned.

    `tracked` holds the reach of the tensors among the arguments, of a list of tensors a list.
    """

    function: Any
    arguments: Mapping[str, Any]
    output: Any
    tracked: Mapping[str, Reach | list[Reach | None]]

    @property
    def name(self) -> str:
        """`convolution`, `add`, `relu`: without the overload, in-place the same."""
        name: str = self.function._schema.name.partition("::")[2]
        return name.removesuffix("_")

    @property
    def sources(self) -> list[Reach]:
        """The reach of every tensor that has one, in order."""
        listed = (r if isinstance(r, list) else [r] for r in self.tracked.values())
        return [reach for reaches in listed for reach in reaches if reach is not None]

    def reach(self, argument: str) -> Reach | None:
        """The reach of one argument, None where it does not depend on the inputs."""
        found = self.tracked.get(argument)
        return found if isinstance(found, Reach) else None

    def get(self, argument: str, default: Any = None) -> Any:
        """The value of an argument, `default` where the call does not give it."""
        return self.arguments.get(argument, default)

    def shape(self, number: int = 0) -> torch.Size:
        """The shape of one of the outputs."""
        return list(tensors_in(self.output))[number].shape

    def on(self, number: int | None) -> Any:
        """The same function on bound `number` of each tensor, or (None) on their zero masks."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for argument in self.function._schema.arguments:
            if argument.name not in self.arguments:
                continue
            value, reach = self.arguments[argument.name], self.tracked.get(argument.name)
            if isinstance(reach, list):
                value = [_bound(v, r, number) for v, r in zip(value, reach, strict=True)]
            elif isinstance(value, Tensor):
                value = _bound(value, reach, number)
            if argument.kwarg_only:
                kwargs[argument.name] = value
            else:
                args.append(value)
        if self.name in ("view", "_unsafe_view"):  # bounds lie differently in memory
            return args[0].reshape(args[1])
        return args[0] if self.name in ("clone", "_to_copy") else self.function(*args, **kwargs)


Rules = Callable[[Operation], Reach | None]
"""What one operation's first output sees; None where there is no rule for it."""


class ReachMode(TorchDispatchMode):
    """While it is on, `of(tensor)` is the reach of every tensor computed from `inputs`."""

    def __init__(self, inputs: Tensor, axes: Sequence[int], rules: Rules) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self._rules = rules
        # By identity and weakly: a reach lives as long as its tensor.
        self._reaches = WeakIdKeyDictionary()
        self._reaches[inputs] = reach_of_inputs(inputs, axes)

    def __enter__(self) -> ReachMode:
        # torch's one kernel for a whole encoder layer has no inside that could be followed.
        self._fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        super().__enter__()  # type: ignore[no-untyped-call]  # see above
        return self

    def __exit__(self, *error: Any) -> None:
        torch.backends.mha.set_fastpath_enabled(self._fast)
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # see above

    def of(self, tensor: Tensor) -> Reach | None:
        """What each unit of `tensor` sees; None where it does not depend on the inputs."""
        reach = self._reaches.get(tensor)
        return reach if isinstance(reach, Reach) else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        arguments = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)}
        arguments |= kwargs or {}
        output = func(*args, **(kwargs or {}))
        tracked = {name: t for name, v in arguments.items() if (t := self._tracked(v)) is not None}
        if tracked:
            in_place = func._schema.name.endswith("_") and "self" in arguments
            call = Operation(function=func, arguments=arguments, output=output, tracked=tracked)
            with torch.no_grad():
                self._write(call) if in_place else self._compute(call)
        return output

    def _tracked(self, value: Any) -> Reach | list[Reach | None] | None:
        if isinstance(value, Tensor):
            return self.of(value)
        if not isinstance(value, list | tuple):
            return None
        found = [self.of(v) if isinstance(v, Tensor) else None for v in value]
        return found if any(reach is not None for reach in found) else None

    def _compute(self, call: Operation) -> None:
        if call.name in CONSTANTS:
            return
        for number, output in enumerate(tensors_in(call.output)):
            if output.numel():
                self._reaches[output] = self._result(call, number, output.shape)

    def _result(self, call: Operation, number: int, shape: torch.Size) -> Reach:
        """The reach of one output: of a movement by the movement itself, else by the rules."""
        first = next((s for s in call.sources if s.unknown), call.sources[0])
        if first.unknown:
            return first
        name = f"torch.{call.name}"
        if "out" in call.arguments:
            return _unknown(first, f"{name} with out= has no rule")
        try:
            if call.name == "as_strided":  # speaks of memory, which bounds do not share
                return _unknown(first, f"{name} has no rule")
            if call.function.is_view or call.name in MOVEMENTS:
                return _move(call, number)
            reach = self._rules(call)
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            return _unknown(first, f"{name}: {str(error).splitlines()[0][:80]}")
        if reach is None:
            return _unknown(first, f"{name} has no rule")
        if reach.shape != shape:
            return _unknown(first, f"{name} has no rule for its output {number}")
        return reach

    def _write(self, call: Operation) -> None:
        """An in-place operation: what the target sees afterwards; of a view, the whole as well."""
        target, like = call.arguments["self"], call.sources[0]
        own = self.of(target)
        if call.name in ("copy", "fill", "zero"):
            written = call.reach("src") or call.reach("value")
            bounds = (
                written.bounds if written else tuple(_nothing_like(target) for _ in like.bounds)
            )
            if written is None or (not written.unknown and written.shape != target.shape):
                ones = (1,) * (target.ndim - bounds[0].ndim)
                bounds = tuple(bound.reshape(ones + bound.shape) for bound in bounds)
                written = Reach(target.shape, bounds, like.jumps, (None,) * len(like.dims))
        elif call.name == "as_strided" and own is not None and own.shape == target.shape:
            return
        elif torch.Tag.inplace_view in call.function.tags:
            written = _unknown(like, f"torch.{call.name}_ has no rule")
        else:
            written = self._result(call, 0, target.shape)
        self._reaches[target] = written
        whole = target._base if target._is_view() else None
        if whole is not None and (own is None or not _same_bounds(own, written)):
            self._write_whole(whole, target, written)

    def _write_whole(self, whole: Tensor, part: Tensor, source: Reach) -> None:
        """The tensor that `part` is a view of, after `part` was written to."""
        own = self.of(whole)
        if source.unknown or (own is not None and own.unknown):
            self._reaches[whole] = source if source.unknown else own
            return
        offset = part.storage_offset() - whole.storage_offset()
        bounds: list[Tensor] = []
        for number in range(len(source.bounds)):
            # A bound that lies in memory as the tensor does, so that the view is the same view.
            bound = torch.empty_strided(whole.size(), whole.stride(), device="cpu")
            bound.copy_(_nothing_like(whole) if own is None else own.full(number))
            bound.as_strided(part.size(), part.stride(), offset).copy_(source.full(number))
            bounds.append(_compress(bound))
        if own is None:
            same = whole.ndim == part.ndim
            dims = source.dims if same else (None,) * len(source.dims)
            own = Reach(whole.shape, (), source.jumps, dims)
        self._reaches[whole] = replace(own, bounds=tuple(bounds))


MOVEMENTS = frozenset(
    [
        "_unsafe_view",
        "reshape",
        "clone",
        "contiguous",
        "_to_copy",
        "cat",
        "stack",
        "index",
        "index_select",
        "gather",
        "flip",
        "roll",
        "repeat",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "lift_fresh",
    ]
)
"""Functions that only move numbers, so that they can be applied to the bounds themselves."""

CONSTANTS = frozenset(
    [
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "new_empty_strided",
        "bernoulli",
        "_local_scalar_dense",
    ]
)
"""Functions whose result does not depend on the numbers they are given."""

_IN_PLACE = frozenset(["roll", "flip", "clone", "_to_copy", "detach", "alias", "lift_fresh"])


def _move(call: Operation, number: int) -> Reach:
    """Apply the function itself to every bound, and read off where the axes lie now."""
    first, zero = call.sources[0], None
    moved = [list(tensors_in(call.on(n)))[number] for n in range(len(first.bounds))]
    bounds, shape = tuple(_compress(bound) for bound in moved), moved[0].shape
    if len(call.sources) == 1 and first.zero is not None:
        zero = list(tensors_in(call.on(None)))[number]
    if call.name in _IN_PLACE:
        return replace(first, bounds=bounds, zero=zero)
    if "shuffle" in call.name:  # pixel_shuffle, pixel_unshuffle: finer or coarser places
        finer = shape[-1] / call.sources[0].shape[-1]
        return replace(
            first, shape=shape, bounds=bounds, jumps=tuple(j / finer for j in first.jumps)
        )
    jumps, dims = list(first.jumps), list(first.dims)
    for axis, bound in enumerate(bounds[::2]):
        dims[axis], jump = _grid(bound, first.dims[axis])
        jumps[axis] = jump or jumps[axis]
    return Reach(shape, bounds, tuple(jumps), tuple(dims), zero)


def _compress(bound: Tensor) -> Tensor:
    """The bound with length 1 in each dimension along which it does not vary."""
    for dim, length in enumerate(bound.shape):
        if length > 1:
            one = bound.narrow(dim, 0, 1)
            if bound.stride(dim) == 0 or bool((bound == one).all()):
                bound = one
    return bound


def _same_bounds(one: Reach, other: Reach) -> bool:
    pairs = zip(one.bounds, other.bounds, strict=False)
    return one.unknown == other.unknown and all(a is b or torch.equal(a, b) for a, b in pairs)


def _grid(first: Tensor, previous: int | None) -> tuple[int | None, float | None]:
    """The one dimension along which the first index grows in equal steps, and the step."""
    found: dict[int, float] = {}
    for dim, length in enumerate(first.shape):
        if length > 1:
            lowest, highest = torch.aminmax(first.diff(dim=dim))
            if lowest == highest and lowest != 0:
                found[dim] = abs(float(lowest))
    if previous in found and previous is not None:
        return previous, found[previous]
    return next(iter(found.items())) if len(found) == 1 else (None, None)


def _bound(value: Any, reach: Any, number: int | None) -> Any:
    if isinstance(reach, Reach):
        return reach.zero if number is None else reach.full(number)
    if isinstance(value, Tensor) and value.is_floating_point():
        return _nothing_like(value).expand(value.shape)
    return value.cpu() if isinstance(value, Tensor) else value  # indices


def _nothing_like(tensor: Tensor) -> Tensor:
    return torch.full((1,) * tensor.ndim, NOTHING, device="cpu")


def _unknown(like: Reach, reason: str) -> Reach:
    return replace(like, bounds=(), zero=None, unknown=reason)
