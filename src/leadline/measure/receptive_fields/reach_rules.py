"""What each operation lets its units see: the rules by which reach passes through a network.

What slides along an axis stands in `reach_windows`; here is what mixes units along dimensions
(products, attention, norms, means) and the table of all rules. A batch norm in training mode, an
instance norm and a group norm see all that their statistics are taken over. A masked softmax sees
only what its mask leaves, and what it weighs with 0 is not seen behind it either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from leadline.measure.receptive_fields.reach import NOTHING, Operation, Reach, union
from leadline.measure.receptive_fields.reach_windows import (
    adaptive_pooling,
    convolution,
    interpolation,
    padding,
    patches,
    pooling,
)

POINTWISE = frozenset(
    ["hardswish", "hardsigmoid", "mish", "_prelu_kernel", "rrelu_with_noise", "log_sigmoid_forward"]
)
"""Functions of single numbers that torch does not mark as such."""

MASKED = 50.0  # logits this far below the row's largest are a mask: e^-50 is 2e-22


def reach_rules(call: Operation) -> Reach | None:
    """What the first output of one operation sees; None where there is no rule for it."""
    rule = _RULES.get(call.name)
    if rule is not None:
        return rule(call)
    if torch.Tag.pointwise in call.function.tags or call.name in POINTWISE:
        return union(call.sources, call.shape())
    return None


def over(reach: Reach, dims: Sequence[int], *, keep: bool = True) -> Reach:
    """The units along `dims` all together; with `keep`, those dimensions stay with length 1."""
    dims = [dim % reach.ndim for dim in dims] if dims else list(range(reach.ndim))
    inside = [place in dims for place in reach.dims]
    jumps = [0.0 if gone else jump for jump, gone in zip(reach.jumps, inside, strict=True)]
    shape = [1 if dim in dims else length for dim, length in enumerate(reach.shape)]
    places = reach.dims
    if not keep:
        shape = [length for dim, length in enumerate(reach.shape) if dim not in dims]
        places = tuple(
            None if place is None or place in dims else place - sum(dim < place for dim in dims)
            for place in places
        )
    merged = reach.map(lambda bound: bound.amin(dims, keepdim=keep), shape)
    return replace(merged, jumps=tuple(jumps), dims=places)


def spread(reach: Reach, dims: Sequence[int]) -> Reach:
    """Every unit sees what those along `dims` see together, as after a softmax or a norm."""
    return replace(over(reach, dims), shape=reach.shape, jumps=reach.jumps, dims=reach.dims)


def _dims(call: Operation) -> list[int]:
    given = call.get("dim")
    return (
        []
        if given is None
        else [int(d) for d in given]
        if isinstance(given, list | tuple)
        else [int(given)]
    )


def _reduction(call: Operation) -> Reach | None:
    reach = call.reach("self")
    return reach and over(reach, _dims(call), keep=bool(call.get("keepdim", False)))


def _cumulative(call: Operation) -> Reach | None:
    reach, dim = call.reach("self"), _dims(call)[0]

    def running(bound: Tensor) -> Tensor:
        return bound if bound.shape[dim] == 1 else torch.cummin(bound, dim).values

    return reach and reach.map(running)


def _ordering(call: Operation) -> Reach | None:
    reach, dim = call.reach("self"), int(call.get("dim", -1))
    return reach and replace(spread(reach, [dim]), shape=call.shape())


def _gated(call: Operation) -> Reach | None:
    """A gated linear unit: each of the first half is multiplied by one of the second."""
    reach, dim = call.reach("self"), int(call.get("dim", -1))

    def both(bound: Tensor) -> Tensor:
        return bound if bound.shape[dim] == 1 else torch.minimum(*bound.chunk(2, dim))

    return reach and reach.map(both, call.shape())


def _softmax(call: Operation) -> Reach | None:
    reach, dim = call.reach("self"), int(call.arguments["dim"])
    if reach is None:
        return None
    logits = call.arguments["self"]
    if "log" in call.name or logits.is_meta:
        return spread(reach, [dim])
    zero = (logits < logits.amax(dim, keepdim=True) - MASKED).cpu()
    if not bool(zero.any()):
        return spread(reach, [dim])
    allowed = reach.map(lambda bound: torch.where(zero, NOTHING, bound))
    seen = spread(allowed, [dim]).map(lambda bound: torch.where(zero, NOTHING, bound))
    return replace(seen, zero=zero)


def _product(call: Operation) -> Reach | None:
    """A matrix product: an entry sees its row of the left and its column of the right."""
    bias = call.reach("self") if call.name in ("addmm", "baddbmm") else None
    left = call.reach("mat1") or call.reach("batch1")
    right = call.reach("mat2") or call.reach("batch2")
    if call.name in ("mm", "bmm"):
        left = call.reach("self")
    shape = call.shape()
    parts = [bias] if bias is not None else []
    if left is not None:
        parts.append(over(left, [-1]))
    if right is not None:
        zero = left.zero if left is not None else None
        if zero is None:
            parts.append(over(right, [-2]))
        else:  # forbidden by a mask: that row of the right is not seen
            if any(bound.shape[-1] > 1 for bound in right.bounds):
                return None
            seen = right.map(lambda b: _allowed(b.transpose(-1, -2), zero), (*shape[:-1], 1))
            parts.append(seen)
    return union(parts, shape) if parts else None


def _allowed(row: Tensor, forbidden: Tensor) -> Tensor:
    return torch.where(forbidden, NOTHING, row).amin(-1, keepdim=True)


def _attention(call: Operation) -> Reach | None:
    """Every query sees itself and all keys and values that it may attend to."""
    query, shape = call.reach("query"), call.shape()
    keys = [r for name in ("key", "value") if (r := call.reach(name)) is not None]
    length = call.arguments["key"].shape[-2]
    mask = call.get("attn_mask") if call.get("attn_mask") is not None else call.get("attn_bias")
    forbidden = torch.zeros(shape[-2], length, dtype=torch.bool, device="cpu")
    if mask is not None and not mask.is_meta:
        mask = mask.cpu()
        additive = mask.dtype != torch.bool
        forbidden = forbidden | (
            (mask < mask.amax(-1, keepdim=True) - MASKED) if additive else ~mask
        )
    if call.get("is_causal", False):
        forbidden = forbidden | ~forbidden.new_ones(shape[-2], length).tril()
    parts = [] if query is None else [over(query, [-1])]
    for reach in keys:
        row = over(reach, [-1])
        parts.append(row.map(lambda b: _allowed(b.transpose(-1, -2), forbidden), (*shape[:-1], 1)))
    return union(parts, shape) if parts else None


def _layer_norm(call: Operation) -> Reach | None:
    reach, count = call.reach("input"), len(call.arguments["normalized_shape"])
    return reach and spread(reach, list(range(-count, 0)))


def _group_norm(call: Operation) -> Reach | None:
    reach, groups = call.reach("input"), int(call.arguments["group"])
    if reach is None:
        return None
    shape = call.shape()

    def together(bound: Tensor) -> Tensor:
        if bound.shape[1] == 1:
            return bound.amin(list(range(2, bound.ndim)), keepdim=True)
        parts = bound.expand(shape).reshape(shape[0], groups, -1)
        return parts.amin(-1, keepdim=True).expand_as(parts).reshape(shape)

    return reach.map(together)


def _batch_norm(call: Operation) -> Reach | None:
    reach = call.reach("input")
    if reach is None:
        return None
    always = call.name == "_batch_norm_with_update"
    if call.get("training", always) and "no_" not in call.name:
        return spread(reach, [dim for dim in range(reach.ndim) if dim != 1])
    return reach


def _same(call: Operation) -> Reach | None:
    return call.sources[0]


def _embedding(call: Operation) -> Reach | None:
    reach, shape = call.reach("indices"), call.shape()
    return reach and reach.map(lambda bound: bound.unsqueeze(-1), shape)


def _named(
    rule: Callable[[Operation], Reach | None], names: str
) -> dict[str, Callable[[Operation], Reach | None]]:
    return dict.fromkeys(names.split(), rule)


_RULES: dict[str, Callable[[Operation], Reach | None]] = {
    **_named(convolution, "convolution"),
    **_named(pooling, "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d"),
    **_named(pooling, "avg_pool1d max_pool1d"),
    **_named(adaptive_pooling, "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool2d"),
    **_named(adaptive_pooling, "adaptive_max_pool2d adaptive_max_pool3d adaptive_avg_pool3d"),
    **_named(interpolation, "upsample_nearest1d upsample_nearest2d upsample_nearest3d"),
    **_named(interpolation, "_upsample_nearest_exact1d _upsample_nearest_exact2d"),
    **_named(interpolation, "upsample_linear1d upsample_bilinear2d upsample_trilinear3d"),
    **_named(interpolation, "upsample_bicubic2d _upsample_nearest_exact3d"),
    **_named(padding, "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d"),
    **_named(padding, "replication_pad1d replication_pad2d replication_pad3d"),
    **_named(_reduction, "mean sum amax amin max min var std prod logsumexp linalg_vector_norm"),
    **_named(_reduction, "var_mean std_mean norm median argmax argmin any all"),
    **_named(_cumulative, "cumsum cumprod cummax cummin logcumsumexp"),
    **_named(_ordering, "topk sort"),
    **_named(_gated, "glu"),
    **_named(patches, "im2col"),
    **_named(_softmax, "_softmax _safe_softmax _log_softmax"),
    **_named(_product, "mm addmm bmm baddbmm"),
    **_named(_attention, "_scaled_dot_product_flash_attention_for_cpu"),
    **_named(_attention, "_scaled_dot_product_flash_attention"),
    **_named(_attention, "_scaled_dot_product_efficient_attention"),
    **_named(_attention, "_scaled_dot_product_cudnn_attention"),
    **_named(_layer_norm, "native_layer_norm _fused_rms_norm"),
    **_named(_group_norm, "native_group_norm"),
    **_named(_batch_norm, "native_batch_norm cudnn_batch_norm _native_batch_norm_legit"),
    **_named(_batch_norm, "_native_batch_norm_legit_no_training _batch_norm_with_update"),
    **_named(_batch_norm, "_batch_norm_no_update miopen_batch_norm"),
    **_named(_same, "native_dropout dropout copy"),
    **_named(_embedding, "embedding"),
}
