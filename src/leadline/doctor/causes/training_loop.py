"""Faults of the loop: parameters that the optimizer or the gradient never sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from leadline.core.taps import plain_name
from leadline.doctor.examination import Examination, settings
from leadline.doctor.finding import Evidence, Finding, counted


def signs(seen: Examination) -> Iterator[Finding]:
    """What the graph, the optimizer and the modes say."""
    yield from _unregistered(seen)
    yield from _cut(seen)
    yield from _optimizer(seen)
    yield from _sign(seen)
    yield from _mode(seen)


def _unregistered(seen: Examination) -> Iterator[Finding]:
    names = tuple(seen.survey.unregistered)
    if not names:
        return
    used = [name for name in names if seen.survey.unregistered[name]]
    yield Finding(
        cause="params_unregistered",
        severity="error" if used else "warning",
        summary=counted(len(names), "parameter sits", "parameters sit")
        + " in a plain attribute, list or dictionary: model.parameters() does not give them to the "
        "optimizer, nor do state_dict() and .to(device) know of them",
        layers=tuple(used) or names,
        evidence=(
            Evidence(
                quantity="parameters outside model.parameters()",
                measured=float(len(names)),
                expected="0",
            ),
            Evidence(
                quantity="of these, reached by the gradient",
                measured=float(len(used)),
                expected="0",
            ),
        ),
        remedy="put the layers into nn.ModuleList or nn.ModuleDict, tensors into nn.Parameter",
        source="pytorch/pytorch#666",
    )


def _cut(seen: Examination) -> Iterator[Finding]:
    cut = seen.still_in_the_loss
    if not seen.survey.connected:
        yield Finding(
            cause="graph_cut",
            severity="error",
            summary="no gradient comes from the loss to any parameter: the graph is cut",
            evidence=(
                Evidence(
                    quantity="parameters with a gradient", measured=0.0, expected="all of them"
                ),
            ),
            layers=cut,
            remedy="look for .detach(), .item(), .data, .numpy(), argmax or torch.no_grad() "
            "between the model and the loss",
        )
    elif cut:
        yield Finding(
            cause="graph_cut",
            severity="error",
            summary=counted(len(cut), "parameter changes", "parameters change")
            + " the loss but "
            + ("gets" if len(cut) == 1 else "get")
            + " no gradient: the graph is cut behind",
            layers=cut,
            evidence=(
                Evidence(
                    quantity="parameters in the loss without a gradient",
                    measured=float(len(cut)),
                    expected="0",
                ),
            ),
            remedy="look behind these layers for .detach(), .data, torch.no_grad(), or gradient "
            "checkpointing of inputs without gradient (use_reentrant=False)",
        )


def _optimizer(seen: Examination) -> Iterator[Finding]:
    if seen.optimizer is None:
        return
    held = {id(p) for group in seen.optimizer.param_groups for p in group["params"]}
    own = {plain_name(name): p for name, p in seen.model.named_parameters()}
    missing = [name for name, p in own.items() if p.requires_grad and id(p) not in held]
    strangers = len(held - {id(p) for p in own.values()})
    if missing:
        nothing = len(missing) == sum(p.requires_grad for p in own.values())
        yield Finding(
            cause="optimizer_missing_params",
            severity="error",
            summary="the optimizer was made for another model: it holds none of this one's "
            "parameters"
            if nothing
            else counted(len(missing), "parameter is", "parameters are")
            + " not in the optimizer: no step will change what it does not hold",
            layers=tuple(missing),
            evidence=(
                Evidence(
                    quantity="trainable parameters outside the optimizer",
                    measured=float(len(missing)),
                    expected="0",
                ),
                Evidence(
                    quantity="parameters in the optimizer that are not the model's",
                    measured=float(strangers),
                    expected="0",
                ),
            ),
            remedy="make the optimizer after the model is complete, moved and wrapped, from "
            "model.parameters()",
            source="pytorch/pytorch#149205",
        )
    frozen = [name for name, p in own.items() if not p.requires_grad and id(p) in held]
    if frozen:
        yield frozen_given(frozen)


def frozen_given(names: Sequence[str]) -> Finding:
    """The finding that these frozen parameters were given to the optimizer."""
    return Finding(
        cause="params_frozen",
        severity="warning",
        summary=counted(len(names), "frozen parameter was", "frozen parameters were")
        + " given to the optimizer: no step will change what is frozen",
        layers=tuple(names),
        evidence=(
            Evidence(
                quantity="parameters with requires_grad=False in the optimizer",
                measured=float(len(names)),
                expected="0",
            ),
        ),
        remedy="call .requires_grad_(True) on them, or leave them out of the optimizer",
    )


def _sign(seen: Examination) -> Iterator[Finding]:
    if any(group.get("maximize") for group in settings(seen)):
        yield Finding(
            cause="gradient_sign_flipped",
            severity="warning",
            summary="the optimizer maximises: the loss will grow",
            evidence=(Evidence(quantity="maximize", measured="True", expected="False"),),
            remedy="drop maximize=True, unless the loss is a reward",
        )


def _mode(seen: Examination) -> Iterator[Finding]:
    if seen.model.training:
        return
    idle = [
        name
        for name, module in seen.model.named_modules()
        if isinstance(module, _BatchNorm | _DropoutNd | nn.RReLU) and not module.training
    ]
    if idle:
        yield Finding(
            cause="eval_mode_in_training",
            severity="warning",
            summary="the model is in evaluation mode: its dropout and batch norm layers will not "
            "train",
            layers=tuple(idle[:5]),
            evidence=(
                Evidence(
                    quantity="dropout and batch norm layers in evaluation mode",
                    measured=float(len(idle)),
                    expected="0",
                ),
            ),
            remedy="call model.train() before the loop, and again behind every evaluation",
        )
