"""Streaming: statistics per layer of one training step, gathered on the device while it runs.

A step that is sampled tells, layer by layer, the mean, spread, zeros, dead units and non-finite
values of the activations, and of the weights their norm, the gradient's, and how far the update
moved them, |Δw| / |w|: about 1e-3 a step is usual (LeCun et al., Efficient BackProp, 1998, give
the reasons). Everything stays on the device until `fetch` brings it over in one transfer, so that
nothing waits for the device. The training itself is not touched: same numbers, same random streams.

Two choices may surprise. The update is what the weights did between the forward pass and the end of
the step, whoever changed them: so it holds for any optimizer, for one that skips a step and for a
loop that forgets it. And compiled code, which calls no hooks, is left alone: the eager original
runs once more on up to 16 of the step's examples, without gradients, before the compiled forward.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.taps import Call, Taps, plain_name, tensors_in
from leadline.measure.layers import Layer
from leadline.measure.units.unit_axis import UnitAxis
from leadline.measure.watching.replay import is_compiled, original, replay
from leadline.measure.watching.step_sample import ActivationSums, Layout, StepSample, joined

VALUES = 2**15
"""About how many values of an activation are looked at: whole examples, evenly spaced."""

FEWEST_EXAMPLES = 4
"""Examples that are looked at however large they are: one alone would make every unit look dead."""

CALLS = 4
"""Calls of one module in a step that are looked at: micro-batches, or a recurrent cell's steps."""


class StepSampler:
    """Gathers one training step, from its creation before the forward pass until `finish`.

    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> _ = nn.init.eye_(model[0].weight)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> sampler = StepSampler(model, optimizer)
    >>> model(torch.tensor([[3.0, -1.0], [1.0, -1.0]])).sum().backward()  # dw = [[4, -2], [0, 0]]
    >>> optimizer.step()
    >>> profile = sampler.finish().to_profile()
    >>> profile.column("dead"), round(profile.column("gradient_norm")[0] ** 2, 3)
    ((0.0, 0.5), 20.0)
    >>> round(profile.column("update_ratio")[0] ** 2, 3)  # (0.5² · 20) / 2
    2.5

    `optimizers` tell the learning rates and when the gradient is ready; None may be given, and any
    number. `model` is what the loop calls, compiled or wrapped as it is. `seconds` is the time this
    took on the host so far.

    Cost: a few reads of the weights, one copy of them until `finish`, and about ten small
    operations per layer; for a compiled model one forward pass of 16 examples more.
    """

    def __init__(self, model: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
        self.seconds = 0.0
        self._model = model
        self._optimizers = optimizers
        self._open = True
        self._replayed = False
        self._axis = UnitAxis()
        self._seen: dict[str, list[ActivationSums]] = {}
        self._copies: list[tuple[str, nn.Parameter, Tensor]] | None = None
        self._gradients: dict[int, Tensor] = {}  # norms, by the parameter's place in `_copies`
        self._rates: list[float | Tensor] = []
        self._owners: frozenset[str] = frozenset()
        self._parameters: list[tuple[str, nn.Parameter]] = []
        self._taps = Taps(model, restore=False)
        with self._timed():
            self._taps.__enter__()
            named = original(model).named_parameters()
            self._parameters = [(_owner(name), p) for name, p in named if p.requires_grad]
            self._owners = frozenset(
                _owner(name) for name, _ in original(model).named_parameters(remove_duplicate=False)
            )
            if is_compiled(model):
                self._taps.on_call(self._replay)
            else:
                self._taps.on_output(self._hear)
            for optimizer in optimizers:
                self._taps.before_update(optimizer, self._before_update)

    def finish(self) -> StepSample:
        """Take the hooks off; what was gathered, still on the device."""
        with self._timed():
            self.close()
            begun = self._copies is not None
            self._copy_weights()
            self._take_gradients()
            copies = self._copies or []
            weights = _norms([copy for _, _, copy in copies])
            if not begun:  # neither a forward pass nor an update was seen
                torch._foreach_mul_([copy for _, _, copy in copies], math.nan)
            updates = _norms(_moved(copies))
            rates = [rate for rate in self._rates if isinstance(rate, Tensor)]
            calls = [(layer, sums) for layer, seen in self._seen.items() for sums in seen]
            scalars = [*weights, *updates, *self._gradients.values(), *rates]
            sample = StepSample(
                layout=Layout(
                    calls=tuple((layer, sums.values, sums.units) for layer, sums in calls),
                    owners=tuple(owner for owner, _, _ in copies),
                    with_gradient=tuple(self._gradients),
                ),
                values=joined([*(x for _, sums in calls for x in sums.scalars), *scalars]),
                rates=tuple(None if isinstance(rate, Tensor) else rate for rate in self._rates),
            )
        self._seen, self._copies = {}, None
        return sample

    def close(self) -> None:
        """Take the hooks off."""
        if self._open:
            self._open = False
            self._taps.__exit__(None, None, None)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.perf_counter()
        with torch.no_grad():
            yield
        self.seconds += time.perf_counter() - begun

    def _hear(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        if torch.is_grad_enabled() and not any(_is_virtual(t) for t in tensors_in(output)):
            with self._timed():
                self._copy_weights()
                self._record(call, inputs, output)

    def _record(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        if not (call.is_leaf or call.name in self._owners) or "parametrizations." in call.name:
            return
        seen = self._seen.get(call.name, [])
        tensor = next((t for t in tensors_in(output) if t.is_floating_point()), None)
        if tensor is None or len(seen) >= CALLS or tensor.numel() == 0:
            return
        tensor = _local(tensor.detach())
        layer = Layer(name=call.name, kind=type(call.module).__name__, module=call.module)
        axis = self._axis.of(layer, inputs, tensor) if tensor.ndim else 0
        seen.append(activation_sums(tensor, unit_axis=axis))
        self._seen[call.name] = seen

    def _replay(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the eager original on a few of the examples, and leave no trace of it."""
        if self._replayed or not torch.is_grad_enabled():
            return
        self._replayed = True
        with self._timed():
            self._copy_weights()
            if not replay(self._model, (args, kwargs), self._listen):
                self._seen = {}

    def _listen(self, taps: Taps) -> None:
        self._seen, self._axis = {}, UnitAxis()
        taps.on_output(self._record)

    def _before_update(self) -> None:
        with self._timed():
            self._copy_weights()
            self._take_gradients()

    def _copy_weights(self) -> None:
        if self._copies is None:
            self._copies = [(owner, p, _local(p.detach()).clone()) for owner, p in self._parameters]

    def _take_gradients(self) -> None:
        """Note the gradients' norms and the learning rates, once: when the first update begins."""
        copies = self._copies or []
        if not self._gradients:
            having = [place for place, (_, p, _) in enumerate(copies) if p.grad is not None]
            norms = _norms([_dense(copies[place][1].grad) for place in having])
            self._gradients = dict(zip(having, norms, strict=True))
        if not self._rates:
            rates = {
                id(parameter): group.get("lr", float("nan"))
                for optimizer in self._optimizers
                for group in optimizer.param_groups
                for parameter in group["params"]
            }
            found = [rates.get(id(p), float("nan")) for _, p, _ in copies]
            self._rates = [r.detach().clone() if isinstance(r, Tensor) else r for r in found]


def activation_sums(output: Float[Tensor, "..."], *, unit_axis: int) -> ActivationSums:
    """What an activation's statistics are made of, left on the device.

    Of a large activation every n-th example is looked at, about VALUES values of at least
    FEWEST_EXAMPLES examples. These five reductions are cheap; torch's own variance, and shares by
    comparison, take twenty times as long on a CPU.

    >>> sums = activation_sums(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), unit_axis=1)
    >>> sums.mean.item(), round(sums.deviation.item() ** 2, 3)  # squares around the mean, summed
    (0.5, 3.0)
    >>> sums.nonzero.item(), sums.alive.item(), sums.nonfinite.item()
    (1, 1, 0)
    """
    if output.ndim:
        most = max(FEWEST_EXAMPLES, VALUES * len(output) // output.numel())
        output = output[:: max(1, len(output) // most)]
    output = output.float()
    others = [axis for axis in range(output.ndim) if axis != unit_axis]
    peaks = output.abs().amax(others) if others else output.abs()  # NaN where one of them is
    mean = output.mean()
    # Divided before it is squared, so that a spread of 1e-25 is not taken for 0.
    scale = peaks.amax().clamp_min(torch.finfo(output.dtype).tiny)
    return ActivationSums(
        values=output.numel(),
        units=peaks.numel(),
        mean=mean,
        deviation=torch.linalg.vector_norm((output - mean) / scale) * scale,
        nonzero=output.count_nonzero(),
        alive=peaks.count_nonzero(),
        nonfinite=(peaks * 0).count_nonzero(),
    )


def _owner(parameter: str) -> str:
    """The layer a parameter belongs to; a parametrisation belongs to the layer it is of."""
    path = f".{parameter}".rpartition(".")[0]
    return plain_name(path.partition(".parametrizations")[0].strip("."))


def _is_virtual(tensor: Tensor) -> bool:
    """Whether there are no plain numbers in it to look at."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return wrapped or tensor.is_meta or tensor.is_nested or tensor.layout != torch.strided


def _local(tensor: Tensor) -> Tensor:
    """A sharded tensor's part in this process; any other as it is."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def _dense(gradient: Tensor | None) -> Tensor:
    """The values of a gradient, also of a sparse one."""
    assert gradient is not None
    gradient = _local(gradient.detach())
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    if all(t.is_floating_point() and t.dtype != torch.float64 for t in tensors):
        return list(torch._foreach_norm(tensors, 2, dtype=torch.float32)) if tensors else []
    return [torch.linalg.vector_norm(tensor) for tensor in tensors]


def _moved(copies: Sequence[tuple[str, nn.Parameter, Tensor]]) -> list[Tensor]:
    """How far each parameter is from its copy, in the copy's place; NaN where they do not fit."""
    pairs = []
    for _, parameter, copy in copies:
        now = _local(parameter.detach())
        if now.shape == copy.shape and now.device == copy.device:
            pairs.append((copy, now))
        else:  # replaced or moved to another device in this step
            copy.fill_(math.nan)
    if pairs:
        torch._foreach_sub_([copy for copy, _ in pairs], [now for _, now in pairs])
    return [copy for _, _, copy in copies]
