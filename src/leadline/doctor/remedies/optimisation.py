"""Remedies of optimisation: other rates, another optimizer, other batch sizes, longer runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import BatchSampler, DataLoader

from leadline.doctor.remedies.batches import counted
from leadline.doctor.remedy import Remedy
from leadline.training.setup import Setup


def rate_times(factor: float, lr: float) -> Remedy:
    """Multiply every learning rate; `lr` is the present one, for the words."""

    def apply(setup: Setup) -> Setup:
        make = setup.optimizer

        def scaled(model: nn.Module) -> Optimizer:
            optimizer = make(model)
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * factor
                if "initial_lr" in group:
                    group["initial_lr"] = group["initial_lr"] * factor
            return optimizer

        return replace(setup, optimizer=scaled, schedule=_of_own_rates(setup.schedule, factor))

    return Remedy(
        title=f"a learning rate of {lr * factor:.3g} instead of {lr:.3g}",
        apply=apply,
        lines=(f"- lr={lr:.3g}", f"+ lr={lr * factor:.3g}"),
        settings={"optimizer.lr": float(f"{lr * factor:.6g}")},
    )


Schedule = Callable[[Optimizer], LRScheduler]


def _of_own_rates(make: Schedule | None, factor: float) -> Schedule | None:
    """The schedule times the factor where it brings its own rates, as the one-cycle policy does."""
    if make is None:
        return None
    given = make

    def scaled(optimizer: Optimizer) -> LRScheduler:
        schedule = given(optimizer)
        for group in optimizer.param_groups:
            for key in ("lr", *OWN_RATES) if "max_lr" in group else ():
                if key in group:
                    group[key] = group[key] * factor
        return schedule

    return scaled


OWN_RATES = ("initial_lr", "max_lr", "min_lr")
"""Where `OneCycleLR` keeps the rates it was given."""


def positive_rate(lr: float) -> Remedy:
    """Take the usual rate of the optimizer instead of one that is not above 0."""

    def apply(setup: Setup) -> Setup:
        make = setup.optimizer

        def corrected(model: nn.Module) -> Optimizer:
            optimizer = make(model)
            for group in optimizer.param_groups:
                if not group["lr"] > 0:
                    group["lr"] = lr
            return optimizer

        return replace(setup, optimizer=corrected)

    return Remedy(
        title=f"a learning rate of {lr:g}",
        apply=apply,
        lines=(f"+ lr={lr:g}",),
        settings={"optimizer.lr": lr},
    )


def adam(lr: float = 1e-3) -> Remedy:
    """Adam at its usual rate, on the parameters that the present optimizer holds."""

    def apply(setup: Setup) -> Setup:
        make = setup.optimizer

        def other(model: nn.Module) -> Optimizer:
            groups = make(model).param_groups
            kept = [
                {"params": g["params"], "weight_decay": g.get("weight_decay", 0.0)} for g in groups
            ]
            return torch.optim.Adam(kept, lr=lr)

        return replace(setup, optimizer=other, schedule=None)

    return Remedy(
        title=f"Adam at a rate of {lr:g}",
        apply=apply,
        lines=(f"+ torch.optim.Adam(model.parameters(), lr={lr:g})",),
        settings={"optimizer.optimizer": "adam", "optimizer.lr": lr},
    )


def option(key: str, value: Any, *, was: Any = None) -> Remedy:
    """One option of the optimizer set in every group: eps, weight_decay, maximize, betas."""

    def apply(setup: Setup) -> Setup:
        make = setup.optimizer

        def changed(model: nn.Module) -> Optimizer:
            optimizer = make(model)
            for group in optimizer.param_groups:
                if key in group:
                    group[key] = value
            return optimizer

        return replace(setup, optimizer=changed)

    said = () if was is None else (f"- {key}={was}",)
    settings = {"optimizer.weight_decay": value} if key == "weight_decay" else {}
    return Remedy(
        title=f"{key}={value} in the optimizer",
        apply=apply,
        lines=(*said, f"+ {key}={value}"),
        settings=settings,
    )


def every_parameter() -> Remedy:
    """Give the optimizer every trainable parameter of the model."""

    def apply(setup: Setup) -> Setup:
        make = setup.optimizer

        def complete(model: nn.Module) -> Optimizer:
            optimizer = make(model)
            own = {id(p) for p in model.parameters()}
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            missing = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
            if not held & own:
                optimizer.param_groups[0]["params"] = missing
            elif missing:
                first = optimizer.param_groups[0]
                options = {k: v for k, v in first.items() if k not in ("params", "param_names")}
                wanted: list[Any] = missing
                if "param_names" in first:
                    names = {id(p): name for name, p in model.named_parameters()}
                    wanted = [(names[id(p)], p) for p in missing]
                optimizer.add_param_group({**options, "params": wanted})
            return optimizer

        return replace(setup, optimizer=complete)

    return Remedy(
        title="give the optimizer every parameter",
        apply=apply,
        lines=("+ optimizer = Optimizer(model.parameters(), ...)  # behind the last change of it",),
    )


def trainable_again(names: Sequence[str]) -> Remedy:
    """Let frozen parameters learn, and the optimizer have them."""

    def apply(setup: Setup) -> Setup:
        build, make = setup.model, setup.optimizer

        def thawed() -> nn.Module:
            model = build()
            for name, parameter in model.named_parameters():
                if name in names:
                    parameter.requires_grad_(True)
            return model

        change = every_parameter().apply
        assert change is not None
        return change(replace(setup, model=thawed, optimizer=make))

    return Remedy(
        title="let the frozen parameters learn",
        apply=apply,
        lines=("- parameter.requires_grad = False", "+ parameter.requires_grad = True"),
    )


def without_schedule() -> Remedy:
    """Keep the rate where it begins."""
    return Remedy(
        title="leave out the schedule",
        apply=lambda setup: replace(setup, schedule=None),
        lines=("- scheduler.step()  # once per batch", "+ scheduler.step()  # once per epoch"),
        settings={"schedule.schedule": "constant"},
    )


def schedule_per_epoch(steps: int) -> Remedy:
    """Let the schedule go on once per epoch of so many steps, as its length may be meant."""

    def apply(setup: Setup) -> Setup:
        make = setup.schedule
        if make is None:
            return setup
        return replace(setup, schedule=lambda optimizer: cast(Any, Paced(make(optimizer), steps)))

    return Remedy(
        title="step the schedule once per epoch",
        apply=apply,
        lines=("- scheduler.step()  # after each batch", "+ scheduler.step()  # after each epoch"),
    )


class Paced:
    """A schedule that goes on with every so-manieth step only."""

    def __init__(self, schedule: LRScheduler, steps: int) -> None:
        self.schedule = schedule
        self.steps = max(1, steps)
        self.count = 0

    def step(self) -> None:
        """Count, and pass on the last step of each period."""
        self.count += 1
        if self.count % self.steps == 0:
            self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"count": self.count, "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it where `state_dict` found it."""
        self.count = state["count"]
        self.schedule.load_state_dict(state["schedule"])


def clip_at(bound: float, was: float) -> Remedy:
    """Bound the gradient's norm at another number; 0 leaves it alone."""
    return Remedy(
        title=f"clip the gradient at {bound:g}" if bound else "do not clip the gradient",
        apply=lambda setup: replace(setup, clip_grad=bound),
        lines=(f"- max_norm={was:g}", f"+ max_norm={bound:g}" if bound else "+"),
        settings={"budget.clip_grad": bound},
    )


def epochs_times(factor: int, epochs: int) -> Remedy:
    """Train longer."""
    return Remedy(
        title=f"{epochs * factor} epochs instead of {epochs}",
        apply=lambda setup: replace(setup, epochs=setup.epochs * factor),
        lines=(f"- epochs={epochs}", f"+ epochs={epochs * factor}"),
        settings={"budget.epochs": epochs * factor},
    )


class Regrouped:
    """The same examples in batches of another size, in the order they come."""

    def __init__(self, source: Any, size: int) -> None:
        self.source = source
        self.size = size
        self._examples: int | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs: list[Tensor] = []
        targets: list[Tensor] = []
        held = 0
        for x, y in self.source:
            inputs.append(x)
            targets.append(y)
            held += len(x)
            if held < self.size:
                continue
            rows, wanted = torch.cat(inputs), torch.cat(targets)
            whole = held // self.size * self.size
            for start in range(0, whole, self.size):
                yield rows[start : start + self.size], wanted[start : start + self.size]
            inputs, targets, held = [rows[whole:]], [wanted[whole:]], held - whole
        if held:
            yield torch.cat(inputs), torch.cat(targets)

    def __len__(self) -> int:
        if self._examples is None:
            drawn = _sampled(self.source)
            self._examples = counted(self.source, _examples) if drawn is None else drawn
        return -(-self._examples // self.size)


def _examples(batch: Sequence[Tensor]) -> int:
    return len(batch[0])


def _sampled(source: Any) -> int | None:
    """The examples of an epoch of a plain DataLoader, without loading any; None for others."""
    plain = isinstance(source, DataLoader) and type(source.batch_sampler) is BatchSampler
    if not plain or source.drop_last or not hasattr(source.sampler, "__len__"):
        return None
    return len(source.sampler)


def batches_of(size: int, was: int) -> Remedy:
    """Cut the same examples into batches of another size."""
    return Remedy(
        title=f"batches of {size} examples instead of {was}",
        apply=lambda setup: replace(setup, batches=Regrouped(setup.batches, size)),
        lines=(f"- batch_size={was}", f"+ batch_size={size}"),
        settings={"budget.batch_size": size},
    )
