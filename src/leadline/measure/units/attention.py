"""Where attention looks: the entropy of each head, and the heads that have collapsed.

Each row of a head's weights A = softmax(Q K^T / sqrt d + mask) is a distribution over the keys that
the query may see. Its entropy H = -sum a ln a lies between 0 (one key) and ln n (all n visible keys
alike); under a causal mask n grows with the row, so that the ratio H / ln n compares. A head is
    pointed    ratio < 0.01: one key for every query; no gradient passes through its softmax. The
               collapse of entropy goes with unstable training (Zhai et al. 2023, arXiv:2303.06296)
    uniform    ratio > 0.99: an average over the keys, whatever the query
    duplicate  its deviation from the uniform is that of another head of the layer, correlation
               above 0.999 (Michel et al. 2019, arXiv:1905.10650: most heads can be pruned)
Weight on the first key is an attention sink (Xiao et al. 2024, arXiv:2309.17453).

The surprising choice: kernels do not return weights, so they are computed again from the queries,
keys and masks that the calls are seen to get, in slices of the batch. Seen are
`F.scaled_dot_product_attention`, `nn.MultiheadAttention` (whose fast path is off meanwhile) and a
softmax over the last axis whose result is multiplied with the values.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from leadline.core.profile import Profile
from leadline.core.taps import ROOT, Call, Taps
from leadline.measure.batch import read_batch
from leadline.measure.units.attention_heads import HeadSums, add_slices, add_weights

POINTED_RATIO = 0.01  # of the entropy to its largest possible value
UNIFORM_RATIO = 0.99
DUPLICATE_CORRELATION = 0.999

_SDPA = functional.scaled_dot_product_attention
_MULTI_HEAD = functional.multi_head_attention_forward
_MULTI_HEAD_SIGNATURE = inspect.signature(_MULTI_HEAD)
_PRODUCTS = ("matmul", "bmm", "einsum", "baddbmm", "__matmul__")
_PASSING = ("dropout", "to", "type_as", "contiguous", "clone", "reshape", "view", "float", "half")
_HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")


def attention(model: nn.Module, inputs: Any) -> Profile:
    """Entropy and collapsed heads of each attention layer, in the order in which they run.

    `inputs` is a batch in any form; its targets are not used. A row per call of an attention:
    `entropy` in nats and `ratio` to its largest value, means over heads; the shares of `pointed`,
    `uniform` and `duplicate` heads; the weight on the `first` key and on the `diagonal`, the mean
    `distance` in positions; the number of `heads`. Queries that see a single key are left out.
    With as many keys as queries only: `diagonal` and `distance`, NaN elsewhere. Weights before
    dropout. A model without attention gives no rows. Raises MeasurementError for a batch that
    cannot be read or a model that fails on it.

    **Cost: 1 forward pass**, and the weights computed once more, at most 64 MiB of them at a time.

    **How to read it**: at the start every head is nearly uniform, and differs from the others by
    chance. After training a ratio near 0 on a layer's every head is a collapse; a layer of uniform
    heads has not learned where to look.

    >>> layer = nn.MultiheadAttention(4, 2, batch_first=True)
    >>> _ = nn.init.zeros_(layer.in_proj_weight)
    >>> class Itself(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.attend = layer
    ...     def forward(self, x):
    ...         return self.attend(x, x, x)[0]
    >>> row = attention(Itself(), torch.randn(3, 8, 4)).at("attend")
    >>> round(row["entropy"], 4), round(row["ratio"], 4), row["uniform"], round(row["first"], 4)
    (2.0794, 1.0, 1.0, 0.125)
    """
    return _record(model, inputs).layers()


def attention_heads(model: nn.Module, inputs: Any) -> Profile:
    """The same per head: a row for each, named `layer [head]`, heads counted from 0.

    `pointed`, `uniform` and `duplicate` are 0 or 1 here. Arguments, errors and cost are those of
    `attention`.

    **Cost: 1 forward pass**, and the weights computed once more.

    **How to read it**: `profile.worst("ratio", lowest=True)` is the most pointed head; `first`
    near 1 is a head that rests on the first token, which is common in trained language models.

    >>> class Diagonal(nn.Module):
    ...     def forward(self, x):
    ...         return functional.scaled_dot_product_attention(100 * x, 100 * x, x)
    >>> tokens = torch.eye(4).reshape(1, 1, 4, 4)
    >>> row = attention_heads(Diagonal(), tokens).at("scaled_dot_product_attention [0]")
    >>> row["pointed"], row["diagonal"], row["distance"]
    (1.0, 1.0, 0.0)
    """
    return _record(model, inputs).heads()


def _record(model: nn.Module, inputs: Any) -> AttentionRecorder:
    batch = read_batch(inputs, model=model)
    with Taps(model) as taps, AttentionRecorder(taps) as recorder, torch.no_grad():
        batch.forward(model)
    return recorder


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pending:
    """A softmax that may be an attention's: known when its result meets the values."""

    result: ref[Tensor]
    sums: HeadSums
    name: str


class AttentionRecorder(TorchFunctionMode):
    """Records the attention of a forward pass that somebody else runs inside its `with` block.

    `layers()` and `heads()` read the results, and wait for the device.
    """

    def __init__(self, taps: Taps) -> None:
        super().__init__()
        self._found: dict[str, HeadSums] = {}
        self._running: list[Call] = []
        self._pending: _Pending | None = None
        taps.on_input(lambda call, inputs: self._running.append(call))
        taps.on_output(lambda call, inputs, output: self._leave())

    def __enter__(self) -> AttentionRecorder:
        super().__enter__()  # type: ignore[no-untyped-call]  # torch annotates none of its modes
        return self

    def layers(self) -> Profile:
        """A row per attention layer, as `attention` returns it."""
        tables = [_columns(sums) for sums in self._found.values()]
        columns = tuple(tables[0]) if tables else _COLUMNS
        return Profile(
            name="attention per layer",
            unit="entropy: nats; distance: positions; else shares",
            reading="ratio 1 is uniform attention, as at the start; ratio 0 on every head is a "
            "collapse, through which no gradient reaches queries and keys",
            layers=tuple(self._found),
            values={
                **{
                    column: tuple(sum(table[column]) / len(table[column]) for table in tables)
                    for column in columns
                },
                "heads": tuple(float(len(table["ratio"])) for table in tables),
            },
        )

    def heads(self) -> Profile:
        """A row per head, as `attention_heads` returns it."""
        tables = {name: _columns(sums) for name, sums in self._found.items()}
        return Profile(
            name="attention per head",
            unit="entropy: nats; distance: positions; pointed, uniform, duplicate: 1 if so",
            reading="a pointed head looks at one key only, a uniform one at all alike; first near "
            "1 is an attention sink",
            layers=tuple(
                f"{name} [{head}]"
                for name, table in tables.items()
                for head in range(len(table["ratio"]))
            ),
            values={
                column: tuple(value for table in tables.values() for value in table[column])
                for column in _COLUMNS
            },
        )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is _SDPA:
            with torch.no_grad():
                self._kernel(*args, **kwargs)
        elif func is _MULTI_HEAD:
            given = _MULTI_HEAD_SIGNATURE.bind(*args, **kwargs)
            given.apply_defaults()
            with torch.no_grad():
                self._multi_head(given.arguments)
        elif isinstance(output, Tensor):
            self._written_out(getattr(func, "__name__", ""), args, kwargs, output)
        return output

    def _leave(self) -> None:
        self._running.pop()

    def _kernel(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        if attn_mask is not None:
            attn_mask = _with_heads(attn_mask.expand(*query.shape[:-1], key.shape[-2]), heads=1)
        query, key = _with_heads(query, heads=1), _with_heads(key, heads=1)
        if key.shape[1] != query.shape[1]:  # several heads of queries share one of keys
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        sums = add_slices(query * scale, key, mask=attn_mask, causal=is_causal)
        self._add(self._name("scaled_dot_product_attention"), sums)

    def _multi_head(self, given: dict[str, Any]) -> None:
        query, key, mask = _projected(given)
        self._add(self._name(""), add_slices(query, key, mask=mask))

    def _written_out(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        if function in ("softmax", "_softmax"):
            self._softmax(args, kwargs, output)
            return
        pending = self._pending
        if pending is None:
            return
        result = pending.result()
        operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if result is None or not any(operand is result for operand in operands):
            return
        if function in _PRODUCTS:
            self._add(pending.name, pending.sums)
            self._pending = None
        elif function in _PASSING and output.numel() == result.numel():
            self._pending = _Pending(result=ref(output), sums=pending.sums, name=pending.name)

    @torch.no_grad()
    def _softmax(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if output.ndim < 3 or dim not in (-1, output.ndim - 1):
            return
        scores = args[0] if args else kwargs["input"]
        heads = self._head_count(output.shape[0])
        sums = add_weights(_with_heads(output, heads=heads), _with_heads(scores, heads=heads))
        self._pending = _Pending(result=ref(output), sums=sums, name=self._name("softmax"))

    def _head_count(self, together: int) -> int:
        """How many heads lie in an axis of examples times heads: the module around it knows."""
        for call in reversed(self._running):
            for name in _HEAD_COUNTS:
                heads = getattr(call.module, name, None)
                if isinstance(heads, int) and heads > 0 and together % heads == 0:
                    return heads
        return 1

    def _name(self, function: str) -> str:
        around = self._running[-1].name if self._running else ROOT
        if around == ROOT:
            return function or ROOT
        return around

    def _add(self, name: str, sums: HeadSums) -> None:
        unique, calls = name, 1
        while unique in self._found:
            calls += 1
            unique = f"{name} (call {calls})"
        self._found[unique] = sums


_COLUMNS = (
    "entropy",
    "ratio",
    "pointed",
    "uniform",
    "duplicate",
    "first",
    "diagonal",
    "distance",
)


def _with_heads(tensor: Tensor, *, heads: int) -> Shaped[Tensor, "N H T E"]:
    """The axes example, head, position, and keys or width; what stands before is examples.

    Of three axes, the first is taken for examples times `heads`.
    """
    if tensor.ndim == 2:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim == 3:
        return tensor.reshape(-1, heads, *tensor.shape[1:])
    return tensor.reshape(-1, *tensor.shape[-3:])


def _columns(sums: HeadSums) -> dict[str, list[float]]:
    """The numbers of each head of one layer."""
    means = sums.means()
    ratio = means["ratio"]
    alike = sums.correlation() > DUPLICATE_CORRELATION
    uneven = ratio <= UNIFORM_RATIO  # uniform heads are alike without being copies
    alike = alike & uneven[:, None] & uneven[None, :]
    alike.fill_diagonal_(False)
    flags = {
        "pointed": ratio < POINTED_RATIO,
        "uniform": ratio > UNIFORM_RATIO,
        "duplicate": alike.any(1),
    }
    columns = {**means, **flags}
    return {name: columns[name].double().tolist() for name in _COLUMNS}


def _projected(given: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scaled queries and keys per head, and the whole mask, of a multi-head attention's call."""
    query, key = given["query"], given["key"]
    if query.ndim == 2:
        query, key = query.unsqueeze(1), key.unsqueeze(1)
    (targets, examples, width), sources = query.shape, key.shape[0]
    heads = given["num_heads"]
    if given["use_separate_proj_weight"]:
        query_weight, key_weight = given["q_proj_weight"], given["k_proj_weight"]
    else:
        query_weight, key_weight, _ = given["in_proj_weight"].chunk(3)
    bias = given["in_proj_bias"]
    query_bias, key_bias, _ = (None, None, None) if bias is None else bias.chunk(3)
    query = functional.linear(query, query_weight, query_bias)
    key = functional.linear(key, key_weight, key_bias)
    mask = _joined_mask(given, examples, heads, targets, sources)
    if given["bias_k"] is not None:
        key = torch.cat([key, given["bias_k"].expand(1, examples, width)])
    if given["add_zero_attn"]:
        key = torch.cat([key, key.new_zeros(1, examples, width)])
    added = key.shape[0] - sources
    if mask is not None and added:
        mask = functional.pad(mask, (0, added))
    query = query.reshape(targets, examples, heads, -1).permute(1, 2, 0, 3)
    key = key.reshape(sources + added, examples, heads, -1).permute(1, 2, 0, 3)
    return query * query.shape[-1] ** -0.5, key, mask


def _joined_mask(
    given: dict[str, Any], examples: int, heads: int, targets: int, sources: int
) -> Tensor | None:
    """The masks of positions and of padding as one that is added to the scores."""
    joined: Tensor | None = None
    mask, padding = given["attn_mask"], given["key_padding_mask"]
    if mask is not None:
        mask = mask if mask.ndim == 2 else mask.reshape(examples, heads, targets, sources)
        joined = _added(mask)
    if padding is not None:
        padded = _added(padding.reshape(examples, 1, 1, sources))
        joined = padded if joined is None else joined + padded
    return joined


def _added(mask: Tensor) -> Tensor:
    """A mask whose True means hidden, as numbers to add; one of numbers as it is."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill_(mask, -torch.inf)
