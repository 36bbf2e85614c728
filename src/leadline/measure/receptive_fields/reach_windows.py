"""What slides along an axis lets its units see: convolution, pooling, interpolation, padding.

All of them are one rule, a table of taps: the source indices of each output. With kernel k, stride
s, dilation d and padding p, output o of a convolution has the taps o s - p + t d for t < k, and so
the closed form of Araujo et al. (2019, Distill, doi:10.23915/distill.00021) follows: the jump is
multiplied by s and the size grows by (k - 1) d times the jump.

Indices outside the map, in the padding, are taken as though the map went on: so sizes do not
depend on the size of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from leadline.measure.receptive_fields.reach import NOTHING, Operation, Reach, union

NO_TAP = -(2**40)  # in a table of taps: this output has fewer taps than others


def through_windows(reach: Reach, dim: int, taps: Tensor, jump: float) -> Reach:
    """Each output along `dim` sees what its taps see; `jump` multiplies the axis's jump.

    `taps` is a table of source indices, outputs by taps; those outside the map continue it.
    """
    length, size = reach.shape[dim], len(taps)
    real = taps[taps != NO_TAP]
    before, after = max(0, -int(real.min())), max(0, int(real.max()) - length + 1)
    everywhere = bool((taps != NO_TAP).any(1).all())
    bounds: list[Tensor] = []
    for number, bound in enumerate(reach.bounds):
        axis = number // 2
        step = reach.jumps[axis] * (-1.0) ** number if reach.dims[axis] == dim else 0.0
        if bound.shape[dim] == 1 and (length > 1 or step == 0):  # it does not vary
            if everywhere and (length > 1 or reach.dims[axis] is not None or not reach.jumps[axis]):
                bounds.append(bound)
                continue
            bound = bound.expand([length if d == dim else n for d, n in enumerate(bound.shape)])
        if reach.dims[axis] is None and reach.jumps[axis] and length == 1 and before + after:
            raise ValueError(
                "a map of one unit has no neighbours to go on with; use a larger input"
            )
        whole = extend(bound, dim, (before, after), step)
        bounds.append(_lowest(whole, dim, (taps + before), taps == NO_TAP))
    here = [place == dim for place in reach.dims]
    jumps = [j * jump if h else j for j, h in zip(reach.jumps, here, strict=True)]
    shape = [size if d == dim else n for d, n in enumerate(reach.shape)]
    return Reach(torch.Size(shape), tuple(bounds), tuple(jumps), reach.dims)


def _lowest(bound: Tensor, dim: int, taps: Tensor, missing: Tensor) -> Tensor:
    """The smallest bound among the taps of each output."""
    shape = [-1 if d == dim else 1 for d in range(bound.ndim)]
    best: Tensor | None = None
    for column, none in zip(taps.T, missing.T, strict=True):
        seen = bound.index_select(dim, column.clamp(min=0)).masked_fill(none.view(shape), NOTHING)
        best = seen if best is None else torch.minimum(best, seen)
    assert best is not None
    return best


def extend(bound: Tensor, dim: int, by: tuple[int, int], step: float) -> Tensor:
    """The bound as it would go on before and after its ends along `dim`.

    It repeats with a period and a growth; `step` is the growth of a single unit, in which none can
    be seen. Units in no pattern (some see everything already, others not yet) have padding beside
    them that sees no more than its nearest unit.
    """
    if by == (0, 0):
        return bound
    length = bound.shape[dim]
    places = torch.arange(-by[0], length + by[1], device="cpu")
    pattern = _pattern(bound, dim, step)
    if pattern is None:
        return bound.index_select(dim, places.clamp(0, length - 1))
    period, growth = pattern
    turns = places.clamp(max=0).div(period, rounding_mode="floor")
    turns += (places - length).div(period, rounding_mode="floor").clamp(min=-1) + 1
    shape = [-1 if d == dim else 1 for d in range(bound.ndim)]
    found = bound.index_select(dim, places - turns * period)
    first = growth.index_select(dim, (places - turns * period) % growth.shape[dim])
    return found + first * turns.view(shape).to(bound.dtype)


def _pattern(bound: Tensor, dim: int, step: float) -> tuple[int, Tensor] | None:
    """The shortest period after which the bound repeats, and how much it has grown by then."""
    length = bound.shape[dim]
    if length == 1:
        return 1, torch.full_like(bound, step)
    for period in range(1, length // 2 + 1):
        count = length - period
        difference = bound.narrow(dim, period, count) - bound.narrow(dim, 0, count)
        growth = difference.narrow(dim, 0, 1)
        if bool(((difference == growth) | difference.isnan()).all()):  # nan: infinite - infinite
            return period, growth.nan_to_num(0.0)
    return None


def _numbers(value: Any, count: int, default: int) -> list[int]:
    """One number for each of `count` dimensions from a number, a list or an empty list."""
    listed = list(value) if isinstance(value, list | tuple) else [value]
    listed = [default if entry is None else int(entry) for entry in listed] or [default]
    return listed * count if len(listed) == 1 else listed


def _slide(
    reach: Reach, sizes: Sequence[int], kernel: Sequence[int], call: Operation, stride: list[int]
) -> Reach:
    """A kernel slid over the last dimensions of the map, to outputs of the given sizes."""
    count = len(sizes)
    padding = _numbers(call.get("padding", 0), count, 0)
    dilation = _numbers(call.get("dilation", 1), count, 1)
    transposed = bool(call.get("transposed", False))
    for i, size in enumerate(sizes):
        place = torch.arange(size, device="cpu")[:, None]
        offset = torch.arange(kernel[i], device="cpu")[None] * dilation[i]
        if transposed:
            taps = place + padding[i] - offset
            hit = taps % stride[i] == 0
            taps = torch.where(hit, taps // stride[i], NO_TAP)
            jump = 1 / stride[i]
        else:
            taps, jump = place * stride[i] - padding[i] + offset, float(stride[i])
        reach = through_windows(reach, reach.ndim - count + i, taps, jump)
    return reach


def convolution(call: Operation) -> Reach | None:
    reach, weight = call.reach("input"), call.arguments["weight"]
    shape, groups = call.shape(), int(call.get("groups", 1))
    count = len(shape) - 2
    stride = _numbers(call.get("stride", 1), count, 1)
    others = [source for source in call.sources if source is not reach]
    if reach is None:
        return None
    # A group's outputs see all of its input channels.
    parts = reach.map(lambda bound: _of_groups(bound, groups), (1, groups, *reach.shape[2:]))
    parts = _slide(parts, shape[2:], weight.shape[2:], call, stride)
    parts = parts.map(
        lambda b: b if b.shape[1] == 1 else b.repeat_interleave(shape[1] // groups, dim=1), shape
    )
    # Weights computed from the inputs bring all that they see.
    return union([parts, *(_all_of(other, len(shape)) for other in others)], shape)


def _of_groups(bound: Tensor, groups: int) -> Tensor:
    return bound if bound.shape[1] == 1 else bound.unflatten(1, (groups, -1)).amin(2)


def _all_of(reach: Reach, ndim: int) -> Reach:
    none = (None,) * len(reach.dims)
    merged = reach.map(lambda bound: bound.amin().view((1,) * ndim), (1,) * ndim)
    return replace(merged, dims=none, jumps=(0.0,) * len(none))


def pooling(call: Operation) -> Reach | None:
    count = int(call.name.partition("pool")[2][0])
    kernel = _numbers(call.arguments["kernel_size"], count, 1)
    stride = _numbers(call.get("stride") or kernel, count, 1)
    reach = call.reach("self")
    return reach and _slide(reach, call.shape()[-count:], kernel, call, stride)


def adaptive_pooling(call: Operation) -> Reach | None:
    reach, count = call.reach("self"), int(call.name.partition("pool")[2][0])
    for dim in range(-count, 0):
        if reach is None:
            return None
        length, size = reach.shape[dim], call.shape()[dim]
        place = torch.arange(size, device="cpu")
        first, last = place * length // size, -(-(place + 1) * length // size) - 1
        taps = first[:, None] + torch.arange(int((last - first).max()) + 1)
        taps = torch.where(taps <= last[:, None], taps, NO_TAP)
        reach = through_windows(reach, dim % reach.ndim, taps, 0.0 if size == 1 else length / size)
    return reach


def interpolation(call: Operation) -> Reach | None:
    reach = call.reach("self") or call.reach("input")
    if reach is None or "_aa" in call.name:
        return None
    count = int(call.name[-2])
    scales = (
        call.get("scale_factors")
        or [
            call.get(key)
            for key in (("scales",) if count == 1 else ("scales_d", "scales_h", "scales_w"))
        ][-count:]
    )
    for i in range(count):
        dim = reach.ndim - count + i
        length, size = reach.shape[dim], call.shape()[dim]
        ratio = length / size if not scales[i] else 1 / float(scales[i])
        taps = _sources(call, length, size, ratio)
        reach = through_windows(reach, dim, taps, length / size)
    return reach


def _sources(call: Operation, length: int, size: int, ratio: float) -> Tensor:
    """Which inputs each output of an interpolation is computed from."""
    place = torch.arange(size, dtype=torch.float64, device="cpu")
    if "nearest" in call.name:
        half = 0.5 if "exact" in call.name else 0.0
        return ((place + half) * ratio).floor().clamp(max=length - 1).long()[:, None]
    if call.get("align_corners", False):
        source = place * ((length - 1) / max(size - 1, 1))
    else:
        source = (place + 0.5) * ratio - 0.5
    floor = source.floor().long()[:, None]
    between = (source - source.floor() > 1e-9)[:, None]  # on a sample the others weigh nothing
    offsets = (-1, 0, 1, 2) if "cubic" in call.name else (0, 1)
    return torch.cat(
        [torch.where(between | (o == 0), floor + o, NO_TAP) for o in map(torch.tensor, offsets)],
        dim=1,
    )


def padding(call: Operation) -> Reach | None:
    reach, pads = call.reach("self"), list(call.get("pad") or call.get("padding"))
    for i in range(len(pads) // 2):
        if reach is None:
            return None
        dim, before, after = reach.ndim - 1 - i, pads[2 * i], pads[2 * i + 1]
        length = reach.shape[dim]
        taps = torch.arange(-before, length + after, device="cpu")
        if dim not in reach.dims:  # new channels: constants, which see nothing
            taps = torch.where((taps < 0) | (taps >= length), NO_TAP, taps)
        reach = through_windows(reach, dim, taps[:, None], 1.0)
    return reach


def patches(call: Operation) -> Reach | None:
    """Patches laid out as vectors: the same function, on a map that goes on into the padding."""
    reach, padding = call.reach("self"), _numbers(call.arguments["padding"], 2, 0)
    if reach is None:
        return None
    for dim, pad in zip((-2, -1), padding, strict=True):
        taps = torch.arange(-pad, reach.shape[dim] + pad, device="cpu")[:, None]
        reach = through_windows(reach, reach.ndim + dim, taps, 1.0)
    keys = ("kernel_size", "dilation", "stride")
    options = {key: call.arguments[key] for key in keys}
    whole = reach
    bounds = [functional.unfold(whole.full(n), **options) for n in range(len(reach.bounds))]
    return Reach(call.shape(), tuple(bounds), reach.jumps, (None,) * len(reach.dims))
