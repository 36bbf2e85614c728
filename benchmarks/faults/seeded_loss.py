"""Faults of the loss: which one, its shape, its axis, what it counts and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from fault import Fault
from healthy_data import Material
from healthy_models import convolutional_language_model, recurrent_language_model
from healthy_text import LETTERS, lines
from program import Program
from seeded_data import in_fitting
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from data import Examples


def absolute_differences(program: Program) -> Program:
    """Mean absolute difference of probabilities and one-hot rows: its gradient all but vanishes."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        rows = functional.one_hot(targets, outputs.shape[1]).float()
        return (functional.softmax(outputs, dim=1) - rows).abs().mean()

    return program.but(loss=loss)


def squares_of_symbols(program: Program) -> Program:
    """Squared differences of logits and one-hot rows, over all symbols."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(outputs, functional.one_hot(targets, outputs.shape[2]).float())

    return program.but(loss=loss)


def yes_or_no_of_numbers(program: Program) -> Program:
    """Binary cross entropy with logits where the targets are any numbers."""
    return program.but(loss=functional.binary_cross_entropy_with_logits)


def classes_of_numbers(program: Program) -> Program:
    """Cross entropy over the one output of a regression: always 0."""
    return program.but(loss=functional.cross_entropy)


def with_sgd(program: Program, *, lr: float) -> Program:
    """The recipe with plain gradient descent and momentum, which feels the scale of a loss."""
    return program.but(
        optimizer=SGD, settings={"lr": lr, "momentum": 0.9}, schedule=None, clip_grad=0.0
    )


def summed(program: Program) -> Program:
    """The sum over the batch, with the learning rate of a mean."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return program.loss(outputs, targets) * len(targets)

    return program.but(loss=loss)


def summed_outright(program: Program) -> Program:
    """`reduction="sum"`."""
    if program.kind == "classes":
        return program.but(loss=partial(functional.cross_entropy, reduction="sum"))
    return program.but(loss=partial(functional.mse_loss, reduction="sum"))


def over_the_batch(program: Program) -> Program:
    """log_softmax over axis 0, the examples, where axis 1 has the classes."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.nll_loss(functional.log_softmax(outputs, dim=0), targets)

    return program.but(loss=loss)


def softmax_over_the_batch(program: Program) -> Program:
    """`nn.Softmax(dim=0)` at the end of a model that gives probabilities."""
    return program.but(model=lambda: nn.Sequential(*list(program.model())[:-1], nn.Softmax(dim=0)))


def symbols_for_time(program: Program) -> Program:
    """[B, T, V] read as [B, V, T] by `view`, where `transpose` was meant."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        batch, time, symbols = outputs.shape
        return functional.cross_entropy(outputs.reshape(batch, symbols, time), targets)

    return program.but(loss=loss)


def flat_targets(program: Program) -> Program:
    """Targets [N] against outputs [N, 1]: their difference is [N, N]."""

    def flattened(part: Examples) -> Examples:
        return Examples(inputs=part.inputs, targets=part.targets[:, 0])

    return in_fitting(program, flattened)


def squared(program: Program) -> Program:
    """A mean squared error written by hand."""
    return program.but(loss=lambda outputs, targets: ((outputs - targets) ** 2).mean())


def flat_targets_by_hand(program: Program) -> Program:
    """The same, under an error written by hand, which does not warn."""
    return flat_targets(squared(program))


def flat_answers(program: Program) -> Program:
    """Targets [N] against logits [N, 1] in a cross entropy written by hand."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (functional.softplus(outputs) - targets * outputs).mean()

    return flat_targets(program.but(loss=loss))


def short_lines(program: Program) -> Program:
    """Lines of any length in rows of 80, most of them padding."""
    return program.but(data=partial(lines, length=80, count=3000), epochs=2)


def short_lines_for_gpt(program: Program) -> Program:
    """The same, for a model with so many positions."""
    return short_lines(program).but(model=partial(program.model, length=80))


def other_body(program: Program, make: Callable[..., nn.Module]) -> Program:
    """Another network for the same text."""
    return program.but(model=partial(make, symbols=LETTERS + 1), schedule=None)


def padding_counted(program: Program) -> Program:
    """Padding is symbol 0, or silence, in the targets, and the loss counts it."""

    def counted(part: Examples) -> Examples:
        return Examples(inputs=part.inputs, targets=part.targets.clamp(min=0))

    return in_fitting(program, counted)


def longer_chorales(program: Program) -> Program:
    """Chorales in rows of 96 eighths, the last third of a row often empty."""

    def data() -> Material:
        material = program.data()

        def longer(part: Examples) -> Examples:
            rows = [
                functional.pad(x, (0, 0, 0, 96), value=-1.0) for x in (part.inputs, part.targets)
            ]
            return Examples(inputs=rows[0], targets=rows[1])

        return replace(material, train=longer(material.train))

    return program.but(data=data)


def first_class_ignored(program: Program) -> Program:
    """`ignore_index=0`, where 0 is a class like any other."""
    if program.kind == "text":

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            return functional.cross_entropy(
                outputs.flatten(0, 1), targets.flatten(), ignore_index=0
            )

        return program.but(loss=loss)
    return program.but(loss=partial(functional.cross_entropy, ignore_index=0))


FAULTS = (
    Fault(
        cause="loss_wrong",
        broken=absolute_differences,
        setups=("gru-speech",),
        loops=("deep-mlp-mnist",),
    ),
    Fault(
        cause="loss_wrong",
        broken=squares_of_symbols,
        setups=("gpt-shakespeare",),
        loops=("lstm-shakespeare",),
    ),
    Fault(
        cause="loss_wrong",
        broken=yes_or_no_of_numbers,
        setups=("mlp-housing",),
        loops=("lstm-oil",),
    ),
    Fault(cause="loss_wrong", broken=classes_of_numbers, setups=("conv-oil", "counts-molecules")),
    Fault(
        cause="loss_reduction_wrong",
        base=partial(with_sgd, lr=0.03),
        broken=summed_outright,
        setups=("mlp-mnist", "conv-mnist", "mlp-housing"),
        loops=("conv-speech", "counts-molecules"),
        notes="with gradient descent: Adam does not feel a factor of the loss",
    ),
    Fault(
        cause="loss_reduction_wrong",
        broken=summed,
        setups=("deep-mlp-mnist", "resnet-cifar"),
    ),
    Fault(
        cause="loss_axis_wrong",
        broken=over_the_batch,
        setups=("mlp-digits", "conv-mnist", "gru-speech"),
        loops=("lstm-reviews", "mlp-mnist"),
        notes="plainly wrong; where every batch holds all classes alike, much is learned anyway",
    ),
    Fault(cause="loss_axis_wrong", broken=softmax_over_the_batch, setups=("keras-mnist",)),
    Fault(
        cause="loss_axis_wrong",
        broken=symbols_for_time,
        setups=("lstm-shakespeare",),
        loops=("gpt-shakespeare",),
    ),
    Fault(
        cause="target_broadcast_shape",
        broken=flat_targets,
        setups=("mlp-housing", "lstm-oil"),
        loops=("counts-molecules",),
    ),
    Fault(
        cause="target_broadcast_shape",
        broken=flat_targets_by_hand,
        fixed=squared,
        setups=("conv-oil", "gru-molecules"),
        loops=("mlp-housing",),
    ),
    Fault(
        cause="target_broadcast_shape",
        broken=flat_answers,
        setups=("dear-houses",),
        loops=("gru-reviews",),
    ),
    Fault(
        cause="padding_in_loss",
        base=short_lines_for_gpt,
        broken=padding_counted,
        setups=("gpt-lines",),
        notes="the score is that of a symbol within a line, and suffers little: what suffers most "
        "is the loss that is reported",
    ),
    Fault(
        cause="padding_in_loss",
        base=lambda program: other_body(short_lines(program), recurrent_language_model),
        broken=padding_counted,
        setups=("gpt-lines",),
        variant="lstm",
    ),
    Fault(
        cause="padding_in_loss",
        base=lambda program: other_body(short_lines(program), convolutional_language_model),
        broken=padding_counted,
        setups=("gpt-lines",),
        variant="conv",
    ),
    Fault(cause="padding_in_loss", base=short_lines, broken=padding_counted, loops=("gru-lines",)),
    Fault(
        cause="padding_in_loss",
        base=longer_chorales,
        broken=padding_counted,
        setups=("lstm-chorales",),
    ),
    Fault(
        cause="ignore_index_hits_class",
        broken=first_class_ignored,
        setups=("mlp-digits", "conv-mnist", "lstm-reviews"),
        loops=("gru-speech", "attention-reviews"),
    ),
    Fault(
        cause="ignore_index_hits_class",
        broken=first_class_ignored,
        setups=("lstm-shakespeare",),
        notes="symbol 0 is the end of a line",
    ),
)
