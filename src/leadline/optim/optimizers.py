"""The optimizers, torch's own, built from one flat set of options.

| name | step along | source |
|---|---|---|
| sgd | momentum of the gradient, Nesterov's look-ahead | Sutskever et al. 2013 |
| rmsprop | gradient / its running root mean square | Tieleman and Hinton 2012 |
| adam | running mean / running root mean square, decay added to the gradient | arXiv:1412.6980 |
| adamw | the same, decay applied to the weight itself | arXiv:1711.05101 |
| muon | orthogonalised momentum of a matrix, AdamW elsewhere | `leadline.optim.muon` |

Where torch has a fused kernel (sgd, adam, adamw on CPU, CUDA, MPS and XPU) it is used: one pass
over memory instead of several. A surprise lies there: fused kernels walk weight, gradient and
moments as flat memory and never look at strides, so moments loaded in another layout than the
weight's (a file is always contiguous, a weight may be channels_last) would be paired with the
wrong weights, silently. After loading a state, call `match_layout`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from leadline.core.config import check, in_range
from leadline.core.names import did_you_mean, look_up
from leadline.optim.depth import decay_by_depth
from leadline.optim.groups import parameter_groups
from leadline.optim.muon import make_muon

OptimizerName = Literal["sgd", "rmsprop", "adam", "adamw", "muon"]

FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Devices for which torch (2.9 and later) has fused SGD, Adam and AdamW kernels."""


USUAL_RATES = {"sgd": 0.1, "rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3, "muon": 0.02}
"""A learning rate to start from with each optimizer: their useful ranges do not overlap."""


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """How the weights move.

    The defaults are those for sgd with batch norm; `USUAL_RATES` has an `lr` for each optimizer.

    >>> OptimizerOptions(optimizer="adamw", lr=1e-3).momentum
    0.9
    """

    optimizer: OptimizerName = "sgd"
    """which one"""
    lr: float = 0.1
    """the peak learning rate, which the schedule scales"""
    momentum: float = 0.9
    """of sgd, rmsprop and muon"""
    nesterov: bool = True
    """look ahead along the momentum; sgd and muon"""
    betas: tuple[float, float] = (0.9, 0.999)
    """memory of the running mean and mean square; adam, adamw, and muon where it is AdamW"""
    weight_decay: float = 5e-4
    """pull towards zero; norms and biases are spared"""
    eps: float = 1e-8
    """keeps the denominator from zero; all but sgd"""
    layer_decay: float = 1.0
    """factor on lr from each part of the depth to the one before it, from the head back"""

    def __post_init__(self) -> None:
        names = get_args(OptimizerName)
        unknown = None
        if self.optimizer not in names:
            hint = did_you_mean(self.optimizer, names)
            unknown = f"optimizer must be one of {', '.join(names)}, received {self.optimizer!r}"
            unknown += hint
        check(
            self,
            unknown,
            in_range("lr", self.lr, 0, open_low=True, open_high=True),
            in_range("momentum", self.momentum, 0, 1, open_high=True),
            in_range("betas[0]", self.betas[0], 0, 1, open_high=True),
            in_range("betas[1]", self.betas[1], 0, 1, open_high=True),
            in_range("weight_decay", self.weight_decay, 0, open_high=True),
            in_range("eps", self.eps, 0, open_high=True),
            in_range("layer_decay", self.layer_decay, 0, 1, open_low=True),
        )


def make_optimizer(model: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimizer that `options` describes, for the trainable parameters of `model`.

    Make it after the model is on its device and in its memory format; after `load_state_dict` call
    `match_layout`. `nesterov` without momentum is plain SGD. A model without trainable parameters
    is a ModelError.

    >>> model = nn.Linear(2, 1)
    >>> optimizer = make_optimizer(model, OptimizerOptions(lr=0.5, momentum=0.0, weight_decay=0.0))
    >>> _ = nn.init.ones_(model.weight)
    >>> model.weight.grad = torch.ones_like(model.weight)
    >>> optimizer.step()
    >>> model.weight.tolist()
    [[0.5, 0.5]]
    """
    optimizer = look_up(options.optimizer, _MAKERS, kind="optimizer")(model, options)
    if options.layer_decay != 1.0:
        decay_by_depth(optimizer, model, factor=options.layer_decay)
    return optimizer


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay every moment in `optimizer` out in memory as the parameter it belongs to.

    To be called after every `load_state_dict`, of any optimizer; changes no value.

    >>> kernel = nn.Parameter(torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last))
    >>> optimizer = torch.optim.SGD([kernel], lr=0.1, momentum=0.9, fused=True)
    >>> optimizer.state[kernel] = {"momentum_buffer": torch.ones(2, 3, 4, 4)}  # as a file has it
    >>> match_layout(optimizer)
    >>> optimizer.state[kernel]["momentum_buffer"].stride() == kernel.stride()
    True
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.shape != parameter.shape:
                continue
            if value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def fuses(model: nn.Module) -> bool:
    """Whether torch has fused optimizer kernels for every trainable parameter of `model`."""
    return all(
        p.device.type in FUSED_DEVICES and p.is_floating_point()
        for p in model.parameters()
        if p.requires_grad
    )


def _sgd(model: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameter_groups(model, weight_decay=options.weight_decay),
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov and options.momentum > 0,
        fused=fuses(model),
    )


def _rmsprop(model: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(
        parameter_groups(model, weight_decay=options.weight_decay),
        lr=options.lr,
        momentum=options.momentum,
        eps=options.eps,
    )


def _adam(model: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        parameter_groups(model, weight_decay=options.weight_decay),
        lr=options.lr,
        betas=options.betas,
        eps=options.eps,
        fused=fuses(model),
    )


def _adamw(model: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameter_groups(model, weight_decay=options.weight_decay),
        lr=options.lr,
        betas=options.betas,
        eps=options.eps,
        fused=fuses(model),
    )


def _muon(model: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    return make_muon(
        model,
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        betas=options.betas,
        eps=options.eps,
        weight_decay=options.weight_decay,
        fused=fuses(model),
    )


_MAKERS: dict[str, Callable[[nn.Module, OptimizerOptions], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": _adamw,
    "muon": _muon,
}
