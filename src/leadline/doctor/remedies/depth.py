"""Remedies of depth: shortcuts around the blocks of a trunk, or blocks that begin as rotations.

Both let a signal through any depth; they are different in kind.

1. A residual path, x + f(x) / sqrt(L) around each of L blocks (He et al. 2015; the scale keeps the
   sum of L independent branches at the size of one, Noci et al. 2022). The weights stay as drawn.
2. No shortcut: every block begins as a rotation, so that the whole trunk is one (dynamical
   isometry: Saxe et al. 2013; Xiao et al. 2018). Three things make a block one:
   - mirrored units, W = [M; -M] before a rectifier and [M', -M'] behind it: relu(a) - relu(-a) is
     a, and the same holds for GELU and SiLU (Balduzzi et al. 2017, 'looks linear');
   - attention that begins as the identity, (1 - b) I + b A with b = 1 / L and both learned
     ('value skip', He et al. 2023, 'Deep transformers without shortcuts');
   - weights that are rotations, M' M = R, and a rate 1 / sqrt(L) as high inside the trunk, since
     the steps of L layers in a row add up.

The surprising choice: R leaves the direction (1, 1, ... 1) where it is. A layer norm takes that
direction out. Were it turned into another one each time, every norm would take out one more, and
behind as many norms as there are features nothing would be left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from leadline.core.grafts import graft_around, graft_behind
from leadline.core.taps import Taps, tensors_in
from leadline.doctor.remedies.surgery import operated
from leadline.doctor.remedy import Remedy
from leadline.measure.batch import Batch
from leadline.measure.layers import ATTENTIONS, Layer, on_layer
from leadline.measure.survey import is_activation
from leadline.training.setup import Setup


def shortcuts(blocks: Sequence[str]) -> Remedy:
    """Add to each block's output, divided by the root of their number, what the block was given.

    The blocks are modules that keep the shape of their first argument.
    """
    scale = len(blocks) ** -0.5

    def change(model: nn.Module) -> None:
        for name in blocks:
            graft_behind(model.get_submodule(name), _Shortcut(scale), keywords=True)

    return Remedy(
        title=f"a residual path around each of {len(blocks)} blocks: x + block(x) / "
        f"sqrt({len(blocks)})",
        apply=lambda setup: operated(setup, change),
        lines=("- x = block(x)", f"+ x = x + block(x) / {len(blocks)} ** 0.5"),
        settings={"model.residual": True},
    )


class _Shortcut:
    """A graft: the first floating argument is added to the scaled first output."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        given = next(t for t in tensors_in((args, kwargs)) if t.is_floating_point())
        if isinstance(output, Tensor):
            return given + self.scale * output
        return type(output)((given + self.scale * output[0], *output[1:]))


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A weight layer that becomes a rotation, or a part of one.

    `mirrored_in` and `mirrored_out` say whether its inputs and outputs come as pairs (a, -a);
    `slope` is by how much the activation before it multiplies a - (-a), or a small a.
    """

    name: str
    mirrored_in: bool
    mirrored_out: bool
    slope: float


@dataclass(frozen=True, kw_only=True)
class Isometry:
    """What has to change for a trunk to begin as a rotation: its weight layers and attentions."""

    blocks: tuple[str, ...]
    turns: tuple[Turn, ...]
    attentions: tuple[str, ...]


def isometry_of(model: nn.Module, batch: Batch, *, blocks: Sequence[str]) -> Isometry | None:
    """How the blocks become rotations, None where they cannot by their first weights alone.

    So it is with an activation that is not 0 at 0 (a sigmoid) or halves its units (GLU), and with
    weights that are computed from others. Cost: 1 forward pass of 2 examples.
    """
    path: list[tuple[Layer, bool]] = []

    def note(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        path.append((layer, _is_square_softmax(layer.kind, output)))

    with Taps(model) as taps, torch.no_grad():
        model.train()
        on_layer(taps, note)
        batch.first(2).forward(model)
    reader = _Reader(blocks)
    for layer, softmax in path:  # behind the taps, which would hear the activations that it tries
        reader.pass_on(layer, square_softmax=softmax)
    turns, attentions = tuple(reader.turns), tuple(dict.fromkeys(reader.attentions))
    twice = len({turn.name for turn in turns}) < len(turns)
    if reader.unknown or twice or not (turns or attentions):
        return None
    return Isometry(blocks=tuple(blocks), turns=turns, attentions=attentions)


class _Reader:
    """Reads layers in the order in which they run: which weights, and what lies between them."""

    def __init__(self, blocks: Sequence[str]) -> None:
        self.turns: list[Turn] = []
        self.attentions: list[str] = []
        self.unknown: list[str] = []
        self._blocks = frozenset(blocks)
        self._inside = tuple(f"{name}." for name in blocks)
        self._behind = False  # whether nothing that mixes lies between the last turn and here
        self._slope, self._mirrored = 1.0, False

    def pass_on(self, layer: Layer, *, square_softmax: bool) -> None:
        owner = layer.name.partition("/")[0].partition(" (call")[0]
        within = owner in self._blocks or owner.startswith(self._inside)
        if isinstance(layer.module, nn.Linear | _ConvNd):
            if within:
                self._weight(owner, layer.module)
            self._after_mixing(within)
        elif layer.kind in ATTENTIONS or square_softmax:
            if within:
                self.attentions.append(owner)
            self._after_mixing(False)
        elif is_activation(layer.kind) and self._behind:
            found = _slope_of(layer)
            if found is None:
                self.unknown.append(owner)
                return
            self._slope, self._mirrored = found
            self.turns[-1] = replace(self.turns[-1], mirrored_out=self._mirrored)

    def _weight(self, name: str, layer: nn.Module) -> None:
        if not _is_plain(layer):
            self.unknown.append(name)
        self.turns.append(
            Turn(name=name, mirrored_in=self._mirrored, mirrored_out=False, slope=self._slope)
        )

    def _after_mixing(self, turned: bool) -> None:
        self._behind = turned and bool(self.turns)
        self._slope, self._mirrored = 1.0, False


def _is_plain(layer: nn.Module) -> bool:
    """Whether its weight is a parameter that one map of the units fills."""
    if parametrize.is_parametrized(layer) or not isinstance(layer.weight, nn.Parameter):
        return False
    if not isinstance(layer, _ConvNd):
        return True
    odd = all(size % 2 for size in layer.kernel_size)
    return odd and layer.groups == 1 and not layer.transposed and set(layer.stride) == {1}


def _is_square_softmax(kind: str, output: Tensor) -> bool:
    square = output.ndim >= 3 and output.shape[-1] == output.shape[-2] > 1
    return kind.lower() == "softmax" and square


@torch.no_grad()
def _slope_of(layer: Layer) -> tuple[float, bool] | None:
    """What an activation f makes of small signals, and whether pairs make that exact.

    For a rectifier f(a) - f(-a) = k a for all a; else the slope at 0, where f(0) = 0.
    """
    known = getattr(functional, layer.kind, None) or getattr(torch, layer.kind, None)
    f: Callable[[Tensor], Tensor] | None = layer.module or known
    if f is None:
        return None
    device = next((p.device for p in layer.module.parameters()), None) if layer.module else None
    a = torch.linspace(0.01, 3.0, 32, device=device)
    try:
        there, back, zero = f(a), f(-a), f(torch.zeros_like(a))
    except (RuntimeError, TypeError, ValueError):
        return None  # one that asks for more than the signal: a GLU's even width, say
    if there.shape != a.shape or float(zero.abs().max()) > 1e-6:
        return None
    pairs = (there - back) / a
    if float(pairs.min()) > 0 and float(pairs.max() / pairs.min()) < 1.001:
        straight = float((there + back).abs().max()) < 1e-6  # an odd f is as good without pairs
        return float(pairs.mean()) / (2 if straight else 1), not straight
    at_zero = float(there[0] - back[0]) / (2 * float(a[0]))
    return (at_zero, False) if at_zero > 0.1 else None


def rotations(plan: Isometry) -> Remedy:
    """Let the trunk begin as a rotation, and let its weights move slowly enough to stay near one.

    Attention is reached in nn.MultiheadAttention, and in any module that calls torch's
    scaled_dot_product_attention or softmax on a square of positions.
    """
    count = len(plan.blocks)

    def apply(setup: Setup) -> Setup:
        turned = operated(setup, lambda model: _turn(model, plan))
        return replace(turned, optimizer=_slower(setup.optimizer, plan.blocks, count**-0.5))

    attention = ", attention that begins as the identity" if plan.attentions else ""
    return Remedy(
        title=f"first weights that make a rotation of {count} blocks{attention}, and a rate "
        f"1 / sqrt({count}) as high in them",
        apply=apply,
        lines=(
            "+ torch.nn.init.orthogonal_(M); first.weight[:] = torch.cat([M, -M])",
            "+ second.weight[:] = R @ torch.cat([M, -M]).T  # R a rotation; biases 0",
            *(_ATTENTION_LINES if plan.attentions else ()),
            f"+ {{'params': blocks.parameters(), 'lr': lr / {count} ** 0.5}}",
        ),
    )


_ATTENTION_LINES = (
    "- x = attention(q, k, v)",
    "+ x = own * v + others * attention(q, k, v)  # learned, 1 - 1 / L and 1 / L at first",
)


def rotation(size: int) -> Float[Tensor, "size size"]:
    """A random rotation (or reflection) that leaves the direction (1, 1, ... 1) where it is.

    >>> turned = rotation(8) @ torch.ones(8)
    >>> torch.allclose(turned, torch.ones(8), atol=1e-5)
    True
    """
    if size == 1:
        return torch.ones(1, 1)
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(size, 1), torch.randn(size, size - 1)], dim=1))
    inner = nn.init.orthogonal_(torch.empty(size - 1, size - 1))
    turned: Tensor = basis @ torch.block_diag(torch.ones(1, 1), inner) @ basis.T
    return turned


@torch.no_grad()
def _turn(model: nn.Module, plan: Isometry) -> None:
    where = next(model.parameters()).device
    for name in plan.attentions:
        module = model.get_submodule(name)
        others = torch.tensor(1 / len(plan.attentions), device=where)
        module.register_parameter("leadline_own", nn.Parameter(1 - others))
        module.register_parameter("leadline_others", nn.Parameter(others))
        _near_identity(module)
    before: Tensor | None = None
    for turn in plan.turns:
        layer = model.get_submodule(turn.name)
        assert isinstance(layer, nn.Linear | _ConvNd), "planned for such layers only"
        outputs, inputs = layer.weight.shape[:2]
        rows = outputs // 2 if turn.mirrored_out and outputs > 1 else outputs
        columns = inputs // 2 if turn.mirrored_in and inputs > 1 else inputs
        core = _core(rows, columns, before)
        before = core
        wide = torch.zeros(rows, inputs)
        wide[:, :columns] = core / turn.slope
        if columns < inputs:
            wide[:, columns : 2 * columns] = -core / turn.slope
        whole = torch.zeros(outputs, inputs)
        whole[:rows] = wide
        if rows < outputs:
            whole[rows : 2 * rows] = -wide
        _fill(layer, whole)


def _core(rows: int, columns: int, before: Tensor | None) -> Tensor:
    """The map of one layer; behind one that widens, it undoes that one up to a rotation."""
    if rows < columns and before is not None and before.shape == (columns, rows):
        return rotation(rows) @ before.T
    if rows % columns == 0 and rows // columns in (1, 3):  # queries, keys and values in one
        return torch.cat([rotation(columns) for _ in range(rows // columns)])
    return nn.init.orthogonal_(torch.empty(rows, columns))


def _fill(layer: nn.Linear | _ConvNd, weight: Tensor) -> None:
    taps = torch.zeros(*weight.shape, layer.weight[0, 0].numel())
    taps[:, :, taps.shape[2] // 2] = weight  # a kernel's centre: the map of every place alike
    layer.weight.copy_(taps.view(layer.weight.shape))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _near_identity(module: nn.Module) -> None:
    """Let an attention hand on each position's own value but for a share of the others'."""
    if not isinstance(module, nn.MultiheadAttention):
        scope = _Scope()
        graft_around(module, scope.enter, scope.leave)
        return
    width = module.embed_dim
    if module._qkv_same_embed_dim:
        module.in_proj_weight[2 * width :] = rotation(width).to(module.in_proj_weight)
    elif module.v_proj_weight.shape[0] == module.v_proj_weight.shape[1]:
        module.v_proj_weight[:] = rotation(width).to(module.v_proj_weight)
    module.out_proj.weight[:] = rotation(width).to(module.out_proj.weight)
    biases: tuple[Tensor | None, ...] = (module.in_proj_bias, module.out_proj.bias)
    for bias in biases:
        if bias is not None:
            nn.init.zeros_(bias)
    graft_behind(module, _own_value, keywords=True)


def _own_value(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    """The graft on nn.MultiheadAttention: own W_o W_v x + others attention(x)."""
    assert isinstance(module, nn.MultiheadAttention), "it is put on such modules only"
    value: Tensor = args[2] if len(args) > 2 else kwargs["value"]
    width, same = module.embed_dim, module._qkv_same_embed_dim
    weight = module.in_proj_weight[2 * width :] if same else module.v_proj_weight
    biases: Tensor | None = module.in_proj_bias
    bias = None if biases is None else biases[2 * width :]
    own = module.out_proj(functional.linear(value, weight, bias))
    return (module.leadline_own * own + module.leadline_others * output[0], *output[1:])


class _Scope:
    """Grafts around a module that calls torch's own attention: inside it, I is mixed into A."""

    def __init__(self) -> None:
        self.open: list[ExitStack] = []

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.open.append(ExitStack())
        self.open[-1].enter_context(_Mixed(module))

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.open.pop().close()


class _Mixed(TorchFunctionMode):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        own, others = self.module.leadline_own, self.module.leadline_others
        if func is functional.scaled_dot_product_attention:
            value = args[2] if len(args) > 2 else (kwargs or {})["value"]
            return own * value + others * output if value.shape == output.shape else output
        if func in _SOFTMAXES and _is_square_softmax("softmax", output):
            return own * torch.eye(output.shape[-1]).to(output) + others * output
        return output


_SOFTMAXES = (functional.softmax, torch.softmax, Tensor.softmax)


def _slower(
    make: Callable[[nn.Module], Optimizer], blocks: Sequence[str], factor: float
) -> Callable[[nn.Module], Optimizer]:
    """The optimizer with the parameters of the blocks in groups of a lower rate."""

    def made(model: nn.Module) -> Optimizer:
        optimizer = make(model)
        inner = {id(p) for name in blocks for p in model.get_submodule(name).parameters()}
        for group in list(optimizer.param_groups):
            trunk = [p for p in group["params"] if id(p) in inner]
            rest = [p for p in group["params"] if id(p) not in inner]
            if not trunk:
                continue
            slow = {**group, "params": trunk, "lr": group["lr"] * factor}
            if "initial_lr" in group:
                slow["initial_lr"] = group["initial_lr"] * factor
            if rest:
                group["params"] = rest
                optimizer.add_param_group(slow)
            else:
                group.update(slow)
        return optimizer

    return made
