"""The formula: a loss as the loop wrote it, computed again for other outputs and targets.

From the tensor that `backward` was called on, the trace is followed back to what nobody computed:
the outputs of the model, the batch, constants. What changes from step to step and is no output is
the target. A number that equals the batch's length is taken for it, so that a batch of another
length is divided by its own.

What makes it impossible is said in words: several models or several passes of one in a loss,
weights of the model in it, no target or more than one that has no common origin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from leadline.core.taps import tensors_in
from leadline.doctor.recording.trace import Node, Trace


@dataclass(frozen=True)
class _Ref:
    """The tensor number `part` among those that call number `call` of the formula returned."""

    call: int
    part: int


@dataclass(frozen=True)
class _Target:
    """The target, in the place of an argument."""


@dataclass(frozen=True)
class _Length:
    """The number of examples, in the place of an argument."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    function: Callable[..., Any] | None  # None: the model's outputs
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Formula:
    """A function of `(outputs, targets)`; `names` are the functions in it, in order."""

    calls: tuple[_Call, ...]
    result: _Ref
    names: tuple[str, ...]
    length: int

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """The loss of a batch."""
        examples = next((len(t) for t in tensors_in(outputs) if t.ndim), self.length)
        results: list[list[Tensor]] = []
        for call in self.calls:
            if call.function is None:
                results.append(list(tensors_in(outputs)))
                continue

            def put(value: Any) -> Any:
                if isinstance(value, _Ref):
                    return results[value.call][value.part]  # used at once
                if isinstance(value, _Target):
                    return targets
                return examples if isinstance(value, _Length) else value

            args = tuple(_map(arg, put) for arg in call.args)
            kwargs = {name: _map(arg, put) for name, arg in call.kwargs.items()}
            output = call.function(*args, **kwargs)
            results.append(list(tensors_in(args[0] if output is None else output)))
        return results[self.result.call][self.result.part]


@dataclass(frozen=True, kw_only=True, eq=False)
class Derivation:
    """A loss followed back: its formula and this step's target, or what stands in the way.

    `forwards` are the model calls it depends on, `names` the functions from the loss downwards,
    `edge` the tensors that do not depend on the outputs and meet what does.
    """

    forwards: frozenset[int]
    names: tuple[str, ...] = ()
    formula: Formula | None = None
    target: Tensor | None = None
    item: int | None = None  # which part of the loader's batch the target is
    problem: str = ""
    edge: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is known about tensors that nobody computed, by identity.

    `batch` are the parts of the loader's batch in order, `inputs` those that the model was given,
    `constants` what an earlier step used too. `length` is the number of examples.
    """

    batch: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    constants: frozenset[int]
    length: int


def derive(trace: Trace, loss: Tensor, around: Surroundings) -> Derivation:
    """Follow a loss back through the trace."""
    root = trace.origin.get(id(loss))
    if root is None:
        return Derivation(forwards=frozenset(), problem="the loss was computed out of sight")
    forwards = trace.nodes[root].forwards
    order = _needed(trace, root)
    names = tuple(trace.nodes[n].name for n in reversed(order))
    edge = tuple(_frontier(trace, order, around)) if forwards else ()
    found = Derivation(forwards=forwards, names=names, edge=edge)
    if not forwards:
        return replace(found, problem="the loss does not depend on any model's outputs")
    if len(forwards) > 1:
        problem = f"the loss depends on {len(forwards)} calls of models at once"
        return replace(found, problem=problem)
    leaves = _leaves(trace, order)
    if any(isinstance(leaf, nn.Parameter) for leaf in leaves):
        return replace(found, problem="the loss uses the model's weights themselves")
    return _with_target(trace, order, loss, around, found, leaves)


def _with_target(
    trace: Trace,
    order: list[int],
    loss: Tensor,
    around: Surroundings,
    found: Derivation,
    leaves: list[Tensor],
) -> Derivation:
    """Choose the target: a part of the batch itself, or what the outputs are held against."""
    items = [leaf for leaf in leaves if any(leaf is part for part in around.batch)]
    if len(items) == 1:
        item = next(n for n, part in enumerate(around.batch) if part is items[0])
        formula = _write(trace, order, loss, target=items[0], length=around.length)
        return replace(found, formula=formula, target=items[0], item=item)
    edge = found.edge
    if len(edge) == 1:
        kept = _needed(trace, order[-1], stop=id(edge[0]))
        formula = _write(trace, kept, loss, target=edge[0], length=around.length)
        return replace(found, formula=formula, target=edge[0])
    if not edge and any(leaf is given for leaf in leaves for given in around.inputs):
        given = next(leaf for leaf in leaves for given in around.inputs if leaf is given)
        formula = _write(trace, order, loss, target=given, length=around.length)
        return replace(found, formula=formula, target=given)
    if not edge:
        return replace(found, problem="the loss uses nothing but the model's outputs: no target")
    return replace(found, problem=f"the loss uses {len(edge)} different tensors beside the outputs")


def _needed(trace: Trace, root: int, *, stop: int | None = None) -> list[int]:
    """The calls that a node rests on, in order, itself last; not those behind the tensor `stop`."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        number = todo.pop()
        if number in seen:
            continue
        seen.add(number)
        for tensor in tensors_in((trace.nodes[number].args, trace.nodes[number].kwargs)):
            before = _source(trace, tensor, number)
            if before is not None and id(tensor) != stop:
                todo.append(before)
    return sorted(seen)


def _source(trace: Trace, tensor: Tensor, reader: int) -> int | None:
    """The call whose result `reader` was given, for a tensor that may be written several times."""
    number = trace.origin.get(id(tensor))
    while number is not None and number >= reader:
        earlier = [
            n
            for n in range(reader)
            if any(part is tensor for part in tensors_in(trace.nodes[n].output))
        ]
        number = earlier[-1] if earlier else None
    return number


def _leaves(trace: Trace, order: list[int]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for number in order:
        node = trace.nodes[number]
        for tensor in tensors_in((node.args, node.kwargs)):
            if _source(trace, tensor, number) is None:
                found[id(tensor)] = tensor
    return list(found.values())


def _frontier(trace: Trace, order: list[int], around: Surroundings) -> list[Tensor]:
    """What does not depend on the outputs and meets what does; constants left out."""
    found: dict[int, Tensor] = {}
    for number in order:
        node = trace.nodes[number]
        if not node.forwards:
            continue
        for tensor in tensors_in((node.args, node.kwargs)):
            source = _source(trace, tensor, number)
            free = source is None or not trace.nodes[source].forwards
            if free and tensor.ndim and id(tensor) not in around.constants:
                found[id(tensor)] = tensor
    return list(found.values())


def _write(trace: Trace, order: list[int], loss: Tensor, *, target: Tensor, length: int) -> Formula:
    """The calls as a formula of outputs, target and length."""
    number_of = {node: call for call, node in enumerate(order)}

    def refer(tensor: Tensor, reader: int) -> Any:
        if tensor is target:
            return _Target()
        source = _source(trace, tensor, reader)
        if source is None or source not in number_of:
            return tensor.detach()
        parts = list(tensors_in(trace.nodes[source].output))
        part = next(n for n, entry in enumerate(parts) if entry is tensor)
        return _Ref(number_of[source], part)

    def encode(node: Node, reader: int) -> _Call:
        dividing = node.name in ("div", "truediv", "__truediv__", "true_divide")

        def put(value: Any) -> Any:
            if isinstance(value, Tensor):
                return refer(value, reader)
            same = dividing and type(value) in (int, float) and value == length and length > 1
            return _Length() if same else value

        return _Call(
            function=node.function,
            name=node.name,
            args=tuple(_map(arg, put) for arg in node.args),
            kwargs={name: _map(arg, put) for name, arg in node.kwargs.items()},
        )

    root = order[-1]
    parts = list(tensors_in(trace.nodes[root].output))
    part = next((n for n, entry in enumerate(parts) if entry is loss), 0)
    return Formula(
        calls=tuple(encode(trace.nodes[n], n) for n in order),
        result=_Ref(number_of[root], part),
        names=tuple(trace.nodes[n].name for n in order),
        length=length,
    )


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(entry, change) for entry in value))
    if isinstance(value, tuple | list):
        return type(value)(_map(entry, change) for entry in value)
    if isinstance(value, dict):
        return {key: _map(entry, change) for key, entry in value.items()}
    return change(value)
