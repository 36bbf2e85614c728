"""Batch: what a model is given and held against, whatever form the user has it in.

Everybody's loop has its own shape of a batch. Read here are `(inputs, targets)`; more than two
values, of which the last are the targets; a mapping, given as keywords (its `labels` are the
targets, and a model that computes its own loss, as Hugging Face's do, needs no other); one tensor
or any other object, a graph say, which is then its own target. `inputs` may again be a tuple
(several arguments) or a mapping (keywords).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.errors import LeadlineError, MeasurementError
from leadline.core.taps import Call, Taps, tensors_in

Loss = Callable[[Any, Any], Tensor]
"""Takes `(outputs, targets)`, returns one number: the mean over the batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The arguments of one forward pass, and the targets its outputs are held against.

    >>> batch = read_batch((torch.ones(4, 2), torch.zeros(4, 1)))
    >>> batch.examples, batch.first(3).examples
    (4, 3)
    >>> batch.loss(nn.Linear(2, 1), nn.functional.mse_loss).ndim
    0
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    targets: Any = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Every tensor among the arguments, in order."""
        return tuple(tensors_in((self.args, dict(self.kwargs))))

    @property
    def examples(self) -> int:
        """How many examples there are: the length of the first tensor among the arguments.

        1 where the first argument is a list of tensors, as detectors take: it is not cut.
        """
        if self.args and isinstance(self.args[0], list):
            return 1
        return next((len(tensor) for tensor in self.inputs if tensor.ndim), 1)

    def first(self, count: int) -> Batch:
        """The first `count` examples; what has another length than the batch is kept whole."""
        return self.part(0, count)

    def part(self, start: int, stop: int) -> Batch:
        """The examples from `start` to before `stop`; other lengths are kept whole."""
        total = self.examples
        return self._map(
            lambda tensor: tensor[start:stop] if tensor.ndim and len(tensor) == total else tensor
        )

    def shuffled(self, seed: int) -> Batch:
        """The examples in an order drawn by `seed`; what has another length is left as it is."""
        total = self.examples
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        return self._map(lambda t: t[order.to(t.device)] if t.ndim and len(t) == total else t)

    def to(self, *args: Any) -> Batch:
        """Every tensor moved; to a floating type, only those that are floating."""
        narrow = any(isinstance(arg, torch.dtype) for arg in args)
        return self._map(
            lambda tensor: tensor if narrow and not tensor.is_floating_point() else tensor.to(*args)
        )

    def with_inputs(self, *inputs: Tensor) -> Batch:
        """The same with other tensors in the places of `inputs`, in order."""
        queue = iter(inputs)

        def place(tensor: Tensor) -> Tensor:
            return next(queue)

        args, kwargs = _map_tensors(self.args, place), _map_tensors(self.kwargs, place)
        return replace(self, args=args, kwargs=kwargs)

    def forward(self, model: nn.Module) -> Any:
        """What the model returns; if it fails, a MeasurementError that names the layer."""
        try:
            return model(*self.args, **self.kwargs)
        except LeadlineError:
            raise
        except Exception as error:
            raise self._failure(model, error) from error

    def loss(self, model: nn.Module, loss: Loss | None = None) -> Tensor:
        """The loss of one forward pass, a scalar; without `loss`, the one the model returns."""
        return self.loss_of(self.forward(model), loss)

    def loss_of(self, outputs: Any, loss: Loss | None = None) -> Tensor:
        """The loss of given outputs, a scalar."""
        if loss is None:
            value = outputs.get("loss") if isinstance(outputs, Mapping) else None
            value = getattr(outputs, "loss", value)
            if value is None:
                raise MeasurementError(
                    expected="a loss function, or a model that returns its own loss",
                    received=f"no loss, and a model that returns {_describe(outputs)}",
                    remedy="pass a function of (outputs, targets), such as "
                    "torch.nn.functional.cross_entropy",
                )
        else:
            try:
                value = loss(outputs, self.targets)
            except LeadlineError:
                raise
            except Exception as error:
                raise MeasurementError(
                    expected="a loss that takes (outputs, targets)",
                    received=f"{type(error).__name__}: {_first_line(error)}, from outputs "
                    f"{_describe(outputs)} and targets {_describe(self.targets)}",
                    remedy="make the shapes and types of outputs and targets fit the loss",
                ) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise MeasurementError(
                expected="a loss that is one number, the mean over the batch",
                received=_describe(value),
                remedy="end it with .mean(), or leave out reduction='none'",
            )
        return value if value.ndim == 0 else value.reshape(())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            args=_map_tensors(self.args, change),
            kwargs=_map_tensors(self.kwargs, change),
            targets=_map_tensors(self.targets, change),
        )

    def _failure(self, model: nn.Module, error: Exception) -> MeasurementError:
        """Run once more and listen to which layer is running when it fails."""
        running: list[tuple[str, str]] = []

        def enter(call: Call, inputs: tuple[Any, ...]) -> None:
            kind = f"{call.module.__class__.__name__} {call.name!r}"
            running.append((kind, _describe(inputs)))

        def leave(call: Call, inputs: tuple[Any, ...], output: Any) -> None:
            running.pop()

        with Taps(model) as taps:
            taps.on_input(enter)
            taps.on_output(leave)
            try:
                with torch.no_grad():
                    model(*self.args, **self.kwargs)
            except Exception:
                pass  # as expected: what is wanted is how far it came
        kind, given = running[-1] if running else ("the model", _describe(self.args))
        return MeasurementError(
            expected="a model that runs on this batch",
            received=f"{type(error).__name__} in {kind}, given {given}: {_first_line(error)}",
            remedy="call the model on this batch alone until it runs; a wrong shape or type of the "
            "inputs is the usual reason",
        )


def read_batch(value: Any, *, model: nn.Module | None = None, finite: bool = True) -> Batch:
    """The Batch in whatever form the user has it; on the model's device when one is given.

    With `finite`, a NaN or an infinity among the inputs is an error. A list is what a DataLoader
    makes of a tuple, and read as one.
    """
    batch = _read(value)
    if finite and model is not None:
        _check_readable(model)
    if any(tensor.numel() == 0 for tensor in batch.inputs):
        raise MeasurementError(
            expected="a batch with at least one example",
            received=f"an empty one: {_describe(batch.args or batch.kwargs)}",
            remedy="pass a batch as the training sees it; two examples or more tell most",
        )
    if finite and not inputs_finite(batch):
        raise MeasurementError(
            expected="finite inputs",
            received=f"NaN or infinity in {_describe(batch.args or batch.kwargs)}",
            remedy="find where the data get it: a division by zero, an empty field, a log of 0",
        )
    device = next((p.device for p in model.parameters()), None) if model is not None else None
    return batch if device is None else batch.to(device)


def inputs_finite(batch: Batch) -> bool:
    """Whether every floating input is free of NaN and infinity."""
    return all(
        bool(torch.isfinite(tensor).all())
        for tensor in batch.inputs
        if tensor.is_floating_point() and not tensor.is_meta
    )


def main_output(outputs: Any) -> Tensor:
    """The tensor that a model's answer is in: `logits` where they are named, else the first.

    >>> main_output({"loss": torch.tensor(1.0), "logits": torch.ones(2, 3)}).shape
    torch.Size([2, 3])
    """
    named = outputs.get("logits") if isinstance(outputs, Mapping) else None
    named = getattr(outputs, "logits", named)
    if isinstance(named, Tensor):
        return named
    for tensor in tensors_in(outputs):
        if tensor.is_floating_point():
            return tensor
    raise MeasurementError(
        expected="a model that returns a tensor of floating numbers",
        received=_describe(outputs),
        remedy="return the logits, alone or under the name 'logits'",
    )


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that gradients reach, by name; at least one, or a MeasurementError."""
    _check_readable(model)
    every = dict(model.named_parameters())
    free = {name: parameter for name, parameter in every.items() if parameter.requires_grad}
    if free:
        return free
    if every:
        received = f"a model whose {len(every)} parameters are all frozen"
        remedy = "call model.requires_grad_(True) on the part that is to learn"
    else:
        received = f"{type(model).__name__}, which has no parameters"
        remedy = "register layers as attributes, nn.ModuleList or nn.ParameterList"
    raise MeasurementError(
        expected="a model with parameters that can learn", received=received, remedy=remedy
    )


def _check_readable(model: nn.Module) -> None:
    """Raise unless the parameters are there and autograd may follow them."""
    every: dict[str, Any] = dict(model.named_parameters())
    lazy = [name for name, parameter in every.items() if nn.parameter.is_lazy(parameter)]
    if lazy:
        raise MeasurementError(
            expected="a model whose parameters have their sizes",
            received=f"{len(lazy)} lazy ones without, {lazy[0]!r} the first",
            remedy="run the model once on a batch, which gives lazy layers their sizes",
        )
    empty = [name for name, parameter in every.items() if parameter.is_meta]
    if empty:
        raise MeasurementError(
            expected="a model whose parameters hold numbers",
            received=f"{len(empty)} on the meta device, {empty[0]!r} the first",
            remedy="call model.to_empty(device='cpu') and initialise it or load its weights",
        )
    if torch.is_inference_mode_enabled() or any(p.is_inference() for p in every.values()):
        raise MeasurementError(
            expected="a model that autograd can follow",
            received="torch.inference_mode(), or parameters that were made in it",
            remedy="make and measure the model outside of it",
        )


def _read(value: Any) -> Batch:
    if isinstance(value, Batch):
        return value
    if isinstance(value, Mapping):
        return Batch(args=(), kwargs=dict(value), targets=value.get("labels", value))
    if isinstance(value, tuple | list) and len(value) >= 2:
        *inputs, targets = value
        if len(inputs) > 1:
            return Batch(args=tuple(inputs), targets=targets)
        if isinstance(inputs[0], Mapping):
            return Batch(args=(), kwargs=dict(inputs[0]), targets=targets)
        if isinstance(inputs[0], tuple):
            return Batch(args=inputs[0], targets=targets)
        return Batch(args=(inputs[0],), targets=targets)
    if isinstance(value, tuple | list) and len(value) == 1:
        return Batch(args=tuple(value), targets=value[0])
    if value is None or isinstance(value, str | bytes | int | float) or not _is_full(value):
        raise MeasurementError(
            expected="a batch: (inputs, targets), a mapping of keywords, or a tensor",
            received=repr(value)[:80],
            remedy="pass what one turn of your loop over the data gives: next(iter(loader))",
        )
    return Batch(args=(value,), targets=value)


def _is_full(value: Any) -> bool:
    return not isinstance(value, tuple | list) or len(value) > 0


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_tensors(entry, change) for key, entry in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map_tensors(entry, change) for entry in value))
    if isinstance(value, tuple | list):
        return type(value)(_map_tensors(entry, change) for entry in value)
    return value


def _describe(value: Any) -> str:
    """A value's type and the shapes of the tensors in it, short enough for a message."""
    if isinstance(value, Tensor):
        return f"{_article(value)} of shape {tuple(value.shape)}"
    shapes = [f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors_in(value)]
    if not shapes:
        return repr(value)[:80]
    more = f" and {len(shapes) - 4} more" if len(shapes) > 4 else ""
    return f"{type(value).__name__} of {', '.join(shapes[:4])}{more}"


def _article(tensor: Tensor) -> str:
    return f"a {str(tensor.dtype).removeprefix('torch.')} tensor"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
