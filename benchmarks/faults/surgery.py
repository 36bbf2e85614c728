"""Changes to any of the recipes' models: parts exchanged, put before, behind or into them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from program import Program
from torch import Tensor, nn

Make = Callable[[], nn.Module]
LAYERS = (nn.Linear, nn.Conv2d, nn.Conv1d)
ACTIVATIONS = (nn.ReLU, nn.GELU)


class Scale(nn.Module):
    """The input times a number, plus another."""

    def __init__(self, factor: float, shift: float = 0.0) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor + self.shift


class Detach(nn.Module):
    """Cuts the graph, as `.detach()` or `.data` in a forward pass does."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.detach()


def before(program: Program, *first: Callable[[], nn.Module]) -> Program:
    """With other modules before the model."""
    return program.but(model=lambda: nn.Sequential(*(make() for make in first), program.model()))


def behind(program: Program, *last: Callable[[], nn.Module]) -> Program:
    """With other modules behind the model."""
    return program.but(model=lambda: nn.Sequential(program.model(), *(make() for make in last)))


def within(program: Program, change: Callable[[nn.Module], nn.Module | None]) -> Program:
    """With the model changed after it is made; `change` returns it, or nothing."""

    def make() -> nn.Module:
        model = program.model()
        changed = change(model)
        return model if changed is None else changed

    return program.but(model=make)


def exchange(
    model: nn.Module,
    kinds: type[nn.Module] | tuple[type[nn.Module], ...],
    make: Callable[[nn.Module], nn.Module],
) -> None:
    """Every part of these kinds becomes what `make` makes of it."""
    for parent in list(model.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, kinds):
                setattr(parent, name, make(part))


def activation(program: Program, make: Callable[[], nn.Module]) -> Program:
    """With another activation in the place of every hidden one."""
    return within(program, lambda model: exchange(model, ACTIVATIONS, lambda _: make()))


def head_name(model: nn.Module) -> str:
    """The last layer with weights."""
    return [name for name, part in model.named_modules() if isinstance(part, LAYERS)][-1]


def change_head(program: Program, change: Callable[[nn.Module], nn.Module]) -> Program:
    """With another last layer."""

    def changed(model: nn.Module) -> None:
        name = head_name(model)
        model.set_submodule(name, change(model.get_submodule(name)))

    return within(program, changed)


def more_outputs(program: Program, count: int) -> Program:
    """With so many more outputs (below 0: fewer)."""

    def widened(layer: nn.Module) -> nn.Module:
        assert isinstance(layer, nn.Linear), "the head of a classifier"
        return nn.Linear(layer.in_features, layer.out_features + count)

    return change_head(program, widened)


def initialised(program: Program, begin: Callable[[Tensor], object]) -> Program:
    """With every matrix of weights begun otherwise, and every layer's bias at 0."""

    def begun(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    begin(parameter)
            for part in model.modules():
                if isinstance(part, LAYERS) and part.bias is not None:
                    part.bias.zero_()

    return within(program, begun)
