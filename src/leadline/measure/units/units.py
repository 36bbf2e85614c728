"""Units that carry nothing: dead, saturated, always on, or the copy of another.

A unit is a channel of a convolution or a feature of a linear layer, and its entries are its values
over all examples and positions of the batch. After an activation f, a unit is
    dead        |f'| <= 0.1 % on every entry: nothing is learned through it (Lu et al. 2019,
                arXiv:1903.06733, for the dying ReLU)
    saturated   |f'| <= 5 % on 95 % of the entries, at an output other than 0 (Glorot & Bengio 2010)
    always_on   f' constant up to 5 % on every entry: the unit is linear, a ReLU without its kink
    duplicate   perfectly correlated with another unit, or anti-correlated: one of the two is idle
where f' is a share of the slope f is made for. The first three exclude one another. In linear and
convolutional layers, duplicates are what a constant initialisation leaves: units that start equal
receive equal gradients and stay equal.

The surprising choice: duplicates are searched without comparing all pairs. On up to 256 entries,
each unit is centred, normalised and projected on eight random directions. Perfectly correlated
units fall on the same eight numbers: only neighbours in the order of the first are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leadline.core.profile import Profile
from leadline.core.taps import Call, Taps
from leadline.measure.batch import read_batch
from leadline.measure.layers import Layer, on_layer
from leadline.measure.units.activation_zones import Zones, zones_of_function, zones_of_module
from leadline.measure.units.unit_axis import UnitAxis, sample_entries

SATURATED_SHARE = 0.95  # of a unit's entries that are flat
SAMPLED_ENTRIES = 256  # of each unit, among which duplicates are searched
DIRECTIONS = 8  # on which units are projected; 1e-4 in all of them hardly agrees by chance
SAME = 1e-4  # distance in each direction of two units of norm 1: a correlation of 1 - 5e-9
SAME_SIZE = 1e-5  # relative difference of two units' norms, in 32-bit arithmetic
CONSTANT = 1e-5  # standard deviation over root mean square, below which it is rounding
# Few entries agree by chance: two of any two units are perfectly correlated over two examples.
SUPPORT_IF_EQUAL = 4  # entries that are not 0, for units that are equal up to a constant
SUPPORT_IF_CORRELATED = 6  # the same for units that are multiples of each other

_WEIGHT_LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd)
_WEIGHT_FUNCTIONS = ("linear", "addmm", "mm", "matmul", "conv1d", "conv2d", "conv3d")


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitStates:
    """Which units of one layer are in which state, on the device of the model.

    `zeros` and `flat` are the shares of a unit's entries that are exactly 0, and at which the
    activation is flat. A layer with weights has only `duplicate`; the others are False and 0 there.
    """

    entries: int
    dead: Bool[Tensor, "U"]
    saturated: Bool[Tensor, "U"]
    always_on: Bool[Tensor, "U"]
    duplicate: Bool[Tensor, "U"]
    zeros: Float[Tensor, "U"]
    flat: Float[Tensor, "U"]


def units(model: nn.Module, inputs: Any, *, seed: int = 0) -> Profile:
    """The share of dead, saturated, always-on and duplicate units after each activation.

    `inputs` is a batch in any form; its targets are not used. A row per activation, a module or a
    function; a softmax is none. `units` counts them, `zeros` is the share of all entries that are
    0, `flat` of those where the slope is at most 5 %. A model without activations gives no rows.
    Raises MeasurementError for a batch that cannot be read or a model that fails on it.

    **Cost: 1 forward pass** and about two passes over the memory of each activation.

    **How to read it**: at the start about half the entries after a ReLU are 0 and hardly a unit is
    dead; a share of dead or saturated units above 0.5 is capacity that does not learn, 1.0 stops
    the layers before it altogether. With few entries per unit (`entries`) a unit is dead by
    chance: 8 examples all miss a healthy ReLU in 1 of 256 cases.

    >>> model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.tensor([[-1.0], [0.0], [1.0], [2.0]]))
    >>> row = units(model, torch.arange(1.0, 9.0).reshape(8, 1)).at("1")
    >>> row["dead"], row["always_on"], row["duplicate"], row["zeros"]
    (0.5, 0.5, 0.5, 0.5)
    """
    return _record(model, inputs, seed=seed, weights=False).activations()


def duplicate_units(model: nn.Module, inputs: Any, *, seed: int = 0) -> Profile:
    """The share of units of each linear and convolutional layer that equal another unit.

    Two units are duplicates when their outputs over the batch are equal up to sign and a constant
    and not constant themselves (a layer of zeros, as at the end of a residual branch, has none).
    Raises MeasurementError for a batch that cannot be read or a model that fails on it.

    **Cost: 1 forward pass** and 256 entries read of each unit.

    **How to read it**: healthy layers have 0; 1.0 is a layer whose units were all set alike, which
    learns as if it had a single one.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    >>> _ = nn.init.constant_(model[1].weight, 0.1)
    >>> duplicate_units(model, torch.randn(16, 3)).column("duplicate")
    (0.0, 1.0)
    """
    return _record(model, inputs, seed=seed, weights=True).weights()


def unit_states(model: nn.Module, inputs: Any, *, seed: int = 0) -> dict[str, UnitStates]:
    """Which units are in which state, for each activation and each layer with weights, in order.

    Raises MeasurementError for a batch that cannot be read or a model that fails on it.

    **Cost: 1 forward pass** and about two passes over the memory of each activation.

    **How to read it**: `states[layer].dead.nonzero()` lists the dead units of a layer.

    >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.tensor([[-1.0], [1.0]]))
    >>> unit_states(model, torch.ones(8, 1))["1"].dead
    tensor([ True, False])
    """
    return dict(_record(model, inputs, seed=seed, weights=True).states)


def _record(model: nn.Module, inputs: Any, *, seed: int, weights: bool) -> UnitRecorder:
    batch = read_batch(inputs, model=model)
    recorder = UnitRecorder(seed=seed, with_weights=weights)
    with Taps(model) as taps, torch.no_grad():
        recorder.listen(taps)
        batch.forward(model)
    return recorder


@dataclass(kw_only=True, eq=False)
class UnitRecorder:
    """Records the states of units in a forward pass that somebody else runs.

    `listen(taps)` before it; `activations()`, `weights()` and `states` after it. Nothing is read
    back from the device before `activations()` or `weights()` is called.
    """

    seed: int = 0
    with_weights: bool = True
    states: dict[str, UnitStates] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._axis = UnitAxis()
        self._generator = torch.Generator().manual_seed(self.seed)
        self._before: dict[int, Tensor] = {}  # inputs that a module is about to overwrite
        self._activations: list[str] = []
        self._weights: list[str] = []

    def listen(self, taps: Taps) -> None:
        """Have every layer of the tapped model recorded."""
        taps.on_input(self._keep)
        on_layer(taps, self._layer_ran)

    def activations(self) -> Profile:
        """A row per activation, as `units` returns it."""
        states = [self.states[name] for name in self._activations]
        return Profile(
            name="units after each activation",
            unit="share of units; zeros and flat: share of entries",
            reading="dead and saturated units learn nothing; above half of a layer, the layers "
            "before it hardly learn; about half zeros after a ReLU is healthy",
            layers=tuple(self._activations),
            values={
                **_shares(states, ("dead", "saturated", "always_on", "duplicate", "zeros", "flat")),
                "units": tuple(float(len(state.dead)) for state in states),
                "entries": tuple(float(state.entries) for state in states),
            },
        )

    def weights(self) -> Profile:
        """A row per layer with weights, as `duplicate_units` returns it."""
        states = [self.states[name] for name in self._weights]
        return Profile(
            name="duplicate units",
            unit="share of units",
            reading="0 is healthy; 1 is a layer whose units were all initialised alike, and which "
            "learns as if it had one",
            layers=tuple(self._weights),
            values={
                **_shares(states, ("duplicate",)),
                "units": tuple(float(len(state.dead)) for state in states),
            },
        )

    def _keep(self, call: Call, inputs: tuple[Any, ...]) -> None:
        if getattr(call.module, "inplace", False) and call.is_leaf:
            zones = zones_of_module(call.module)
            if zones is not None and zones.of_input:
                self._before[id(call.module)] = inputs[0].detach().clone()

    @torch.no_grad()
    def _layer_ran(self, layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        axis = self._axis.of(layer, inputs, output)
        if output.ndim == 0 or output.numel() == 0:
            return
        output = output.detach()
        before = self._before.pop(id(layer.module), None)
        if layer.module is not None:
            zones = zones_of_module(layer.module)
        else:
            zones = zones_of_function(layer.kind, inputs)
        if zones is not None:
            values, zones = _what_is_read(zones, inputs, output, before)
            self.states[layer.name] = self._of_activation(zones, values, output, axis)
            self._activations.append(layer.name)
        elif self.with_weights and _has_weights(layer, inputs):
            self.states[layer.name] = self._of_weights(output, axis)
            self._weights.append(layer.name)

    def _of_activation(self, zones: Zones, values: Tensor, output: Tensor, axis: int) -> UnitStates:
        entries = output.numel() // output.shape[axis]
        dead, linear, flat, zeros = _zone_shares(zones, values, output, axis)
        ceiling = zones.ceiling < math.inf
        at_ceiling = _count(output, torch.ge, zones.ceiling, axis) / entries if ceiling else 0.0
        if ceiling:
            flat = flat + at_ceiling
            dead, linear = (flat * entries).round() >= entries, linear & (at_ceiling == 0)
        elsewhere = at_ceiling if zones.rests_at_zero else flat
        if isinstance(elsewhere, Tensor):
            saturated = (elsewhere >= SATURATED_SHARE) & ~dead
        else:
            saturated = torch.zeros_like(dead)
        return UnitStates(
            entries=entries,
            dead=dead,
            saturated=saturated,
            always_on=linear & ~dead & ~saturated,
            duplicate=_duplicates(output, axis, self._generator, multiples=True),
            zeros=zeros,
            flat=flat,
        )

    def _of_weights(self, output: Tensor, axis: int) -> UnitStates:
        duplicate = _duplicates(output, axis, self._generator, multiples=False)
        none, nothing = torch.zeros_like(duplicate), torch.zeros_like(duplicate, dtype=torch.float)
        return UnitStates(
            entries=output.numel() // output.shape[axis],
            dead=none,
            saturated=none,
            always_on=none,
            duplicate=duplicate,
            zeros=nothing,
            flat=nothing,
        )


def _shares(states: list[UnitStates], columns: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """Each column's mean over units; all of them in one transfer from the device."""
    if not states:
        return dict.fromkeys(columns, ())
    means = [
        torch.stack([getattr(state, column).float().mean() for state in states])
        for column in columns
    ]
    rows = torch.stack(means).tolist()
    return {column: tuple(row) for column, row in zip(columns, rows, strict=True)}


def _has_weights(layer: Layer, inputs: tuple[Any, ...]) -> bool:
    if layer.module is not None:
        return isinstance(layer.module, _WEIGHT_LAYERS)
    if layer.kind == "matmul":
        return len(inputs) > 1 and isinstance(inputs[1], Tensor) and inputs[1].ndim == 2
    return layer.kind in _WEIGHT_FUNCTIONS


def _what_is_read(
    zones: Zones, inputs: tuple[Any, ...], output: Tensor, before: Tensor | None
) -> tuple[Tensor, Zones]:
    """The values that the zones are edges of."""
    if not zones.of_input:
        return output, zones
    if before is not None:
        return before, zones
    given = inputs[0].detach()
    if given.data_ptr() != output.data_ptr():
        return given, zones
    # A function in place: the input is gone. Outputs between the rest and 0 are taken as dead, as
    # they are unless the input was a tiny negative number.
    resting = (output <= 0) & (output >= zones.rest)
    return output.masked_fill(resting, -math.inf), zones


def _zone_shares(
    zones: Zones, values: Tensor, output: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per unit: dead, linear (both on every entry), share of flat entries, share of zeros."""
    entries = output.numel() // output.shape[axis]
    others = _other_axes(values, axis)
    if zones.flat == zones.dead == zones.linear and not zones.of_input and zones.centre is None:
        # A rectifier's edges are one and the same: one count tells everything.
        on = _count(output, torch.gt, 0.0, axis)
        off = 1 - on / entries
        return on == 0, on == entries, off, off
    zeros = _count(output, torch.eq, 0.0, axis) / entries
    if zones.centre is None:
        lowest, highest = _extremes(values, others)
        flat = _count(values, torch.le, zones.flat, axis) / entries
        linear = lowest > zones.linear
        if zones.leaks:
            linear = linear | (highest < zones.linear)
        return highest <= zones.dead, linear, flat, zeros
    distance = (values - zones.centre).abs_()
    nearest, farthest = _extremes(distance, others)
    flat = _count(distance, torch.ge, zones.flat, axis) / entries
    return nearest >= zones.dead, farthest < zones.linear, flat, zeros


def _other_axes(tensor: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(tensor.ndim) if other != axis)


def _extremes(tensor: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return (tensor.amin(axes), tensor.amax(axes)) if axes else (tensor, tensor)


def _count(
    tensor: Tensor, compare: Callable[..., Tensor], edge: float, axis: int
) -> Float[Tensor, "U"]:
    """How many entries of each unit compare true with `edge`.

    The marks are written as floating numbers, whose sum is several times faster than one of
    booleans; exact below 2^24 entries of a unit, and summed in 64 bits above.
    """
    marks = torch.empty_like(tensor, dtype=torch.float32)
    compare(tensor, edge, out=marks)
    axes = _other_axes(tensor, axis)
    if not axes:
        return marks
    exact = tensor.numel() // tensor.shape[axis] < 2**24
    return marks.sum(axes) if exact else marks.sum(axes, dtype=torch.float64).float()


def _duplicates(
    output: Tensor, axis: int, generator: torch.Generator, *, multiples: bool
) -> Bool[Tensor, "U"]:
    """Which units equal another one up to sign and a constant; with `multiples`, also a factor."""
    sample = sample_entries(output, axis, count=SAMPLED_ENTRIES, generator=generator)
    count, width = sample.shape
    none = torch.zeros(width, dtype=torch.bool, device=output.device)
    if count < SUPPORT_IF_EQUAL or width < 2:
        return none
    scratch = torch.empty_like(sample)
    support = torch.ne(sample, 0, out=scratch).sum(0)
    mean = sample.mean(0)
    centred = sample.sub_(mean)
    square = torch.mul(centred, centred, out=scratch).sum(0)
    size = square + count * mean.square()
    norm = square.sqrt()
    eligible = (square > CONSTANT**2 * size) & (support >= SUPPORT_IF_EQUAL) & square.isfinite()
    directions = torch.randn((DIRECTIONS, count), generator=generator).to(sample)
    scale = norm if multiples else torch.ones_like(norm)
    places = (directions @ centred) / scale
    places = places * torch.where(places[0] < 0, -1.0, 1.0)
    order = torch.where(eligible, places[0], torch.inf).argsort()
    places, support, eligible = places[:, order], support[order], eligible[order]
    norm, limit = norm[order], (SAME * norm / scale)[order]
    found = none.clone()
    for lag in (1, 2):  # 2: a third unit may lie between two that are equal up to rounding
        if width <= lag:
            break
        distance = (places[:, lag:] - places[:, :-lag]).abs().amax(0)
        alike = (norm[lag:] - norm[:-lag]).abs() <= SAME_SIZE * norm[lag:]
        if multiples:
            fewest = torch.minimum(support[lag:], support[:-lag])
            alike = alike | (fewest >= SUPPORT_IF_CORRELATED)
        alike = alike & (distance < limit[lag:]) & eligible[lag:] & eligible[:-lag]
        found[lag:] |= alike
        found[:-lag] |= alike
    return none.scatter(0, order, found)
