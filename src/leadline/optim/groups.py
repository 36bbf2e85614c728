"""Which parameters decay: matrices and kernels do, norms, biases and other vectors do not.

Weight decay pulls a weight towards zero at every step. On the matrices of linear maps and on
convolution kernels it bounds their size; on a bias, or on a norm's scale and shift, it only fights
what the data ask for (Goyal et al. 2017, arXiv:1706.02677, section 3.1; He et al. 2018,
arXiv:1812.01187, section 3.1). The rule is on shape first: a parameter of at most one dimension
(bias, norm, scalar gain) never decays. Two more exceptions hold whatever the shape: everything
inside a normalisation layer (a LayerNorm over [C, H, W] has three-dimensional scales), and
anything named `bias`. Embeddings decay, as matrices do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from leadline.core.errors import ModelError

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS = (*BATCH_NORMS, *INSTANCE_NORMS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""torch's normalisation layers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnedParameter:
    """A trainable parameter with its full name and the module that declares it."""

    name: str
    parameter: nn.Parameter
    owner: nn.Module

    @property
    def is_plain(self) -> bool:
        """Whether it is a bias, part of a norm, or a vector: what weight decay leaves alone."""
        named_bias = self.name.rpartition(".")[2] == "bias"
        return self.parameter.ndim <= 1 or named_bias or isinstance(self.owner, NORMS)


def trainable_parameters(model: nn.Module) -> list[OwnedParameter]:
    """Every parameter that asks for a gradient, once (tied ones too), in order of declaration."""
    return list(_walk(model))


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters of `model` as torch's parameter groups, with and without decay.

    A parameter used in two places (tied) appears once, a frozen one not at all, a group without
    members is left out. `weight_decay` is per step and per unit of weight, as in torch. A model
    without trainable parameters is a ModelError.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    >>> for group in parameter_groups(model, weight_decay=0.1):
    ...     print(group["weight_decay"], [tuple(p.shape) for p in group["params"]])
    0.1 [(4, 3)]
    0.0 [(4,), (4,), (4,)]
    """
    owned = trainable_parameters(model)
    if not owned:
        raise no_parameters(model)
    decayed = [entry.parameter for entry in owned if not entry.is_plain]
    plain = [entry.parameter for entry in owned if entry.is_plain]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def no_parameters(model: nn.Module) -> ModelError:
    """The error for a model in which an optimizer finds nothing to move."""
    frozen = sum(1 for _ in model.parameters())
    received = f"{type(model).__name__} with no parameters at all"
    if frozen:
        received = f"{type(model).__name__} whose {frozen} parameters are all frozen"
    return ModelError(
        expected="a model with at least one trainable parameter",
        received=received,
        remedy="call `requires_grad_(True)` on what is to be trained"
        if frozen
        else "give the model a layer with weights, registered as an attribute of the module "
        "(a plain Python list hides layers: use nn.ModuleList)",
    )


def _walk(model: nn.Module) -> Iterator[OwnedParameter]:
    seen: set[int] = set()
    for prefix, owner in model.named_modules():
        for name, parameter in owner.named_parameters(prefix, recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield OwnedParameter(name=name, parameter=parameter, owner=owner)
