"""Faults of activations: at the output, between the layers, missing, or one too many."""

from __future__ import annotations

from functools import partial

from fault import Fault
from healthy import keras_mlp, text_loss
from program import Program
from surgery import activation, behind, exchange, within
from torch import Tensor, nn
from torch.nn import functional


def rectified(program: Program) -> Program:
    """A ReLU behind the last layer."""
    return behind(program, nn.ReLU)


def squashed(program: Program) -> Program:
    """A tanh behind the last layer, though the targets go beyond 1."""
    return behind(program, nn.Tanh)


def in_unit_interval(program: Program) -> Program:
    """A sigmoid behind the last layer, though the targets are no shares."""
    return behind(program, nn.Sigmoid)


def with_probabilities(program: Program, last: type[nn.Module]) -> Program:
    """The model gives probabilities, the loss takes them."""
    make = partial(last, dim=1) if last is nn.Softmax else last
    return behind(program, make).but(loss=probable)


def probable(outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of probabilities."""
    return functional.binary_cross_entropy(outputs, targets)


def softmax_over_one(program: Program) -> Program:
    """A softmax over the only output, which is 1 then."""
    return with_probabilities(program, nn.Softmax)


def softmax_over_many(program: Program) -> Program:
    """A softmax over answers that do not exclude each other."""
    return with_probabilities(program, nn.Softmax)


def sigmoid_for_each(program: Program) -> Program:
    """A sigmoid for every answer."""
    return with_probabilities(program, nn.Sigmoid)


def keras_rectified(program: Program) -> Program:
    """Keras' Dense(10, activation="relu") under a cross entropy of probabilities."""
    return program.but(model=partial(keras_mlp, ending=(nn.ReLU(),)))


def keras_linear(program: Program) -> Program:
    """Keras' Dense(10), without a softmax, under a cross entropy of probabilities."""
    return program.but(model=partial(keras_mlp, ending=()))


def sigmoids(program: Program) -> Program:
    """Sigmoids between the layers of a deep network."""
    return activation(program, nn.Sigmoid)


def hidden_softmax(program: Program) -> Program:
    """A softmax between the layers."""
    return activation(program, partial(nn.Softmax, dim=1))


class Thresholded(nn.Module):
    """1 above 0 and 0 below: a step, with no gradient."""

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs > 0).float() * 1.0 + 0.0 * inputs


def step_functions(program: Program) -> Program:
    """Steps between the layers: their gradient is 0."""
    return activation(program, Thresholded)


def linear(program: Program) -> Program:
    """No activation between the layers."""
    return activation(program, nn.Identity)


def pooled_linear(program: Program) -> Program:
    """No activation between the layers, and averages in the place of maxima."""

    def changed(model: nn.Module) -> None:
        exchange(model, nn.ReLU, lambda _: nn.Identity())
        exchange(model, nn.MaxPool2d, lambda part: nn.AvgPool2d(part.kernel_size))

    return within(program, changed)


def averaging(program: Program) -> Program:
    """The healthy twin: averages in the place of maxima."""

    def changed(model: nn.Module) -> None:
        exchange(model, nn.MaxPool2d, lambda part: nn.AvgPool2d(part.kernel_size))

    return within(program, changed)


def likelihood_of_logits(program: Program) -> Program:
    """`nll_loss` on outputs that no log_softmax has made log-probabilities."""
    return program.but(loss=functional.nll_loss)


def likelihood(program: Program) -> Program:
    """`nll_loss` behind a log_softmax."""
    return behind(program, partial(nn.LogSoftmax, dim=1)).but(loss=functional.nll_loss)


def sigmoid_before_logits_loss(program: Program) -> Program:
    """A sigmoid before binary_cross_entropy_with_logits, which has one."""
    return behind(program, nn.Sigmoid)


def softmax_before_cross_entropy(program: Program) -> Program:
    """A softmax before cross_entropy, which has one."""
    return behind(program, partial(nn.Softmax, dim=-1))


def softmax_in_text_loss(program: Program) -> Program:
    """The softmax of a language model is taken in the loss function, and then once more."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return text_loss(functional.softmax(outputs, dim=-1), targets)

    return program.but(loss=loss)


def keras_softmax_twice(program: Program) -> Program:
    """A model that ends in a softmax, under torch's cross_entropy."""
    return program.but(loss=functional.cross_entropy)


def keras_logits(program: Program) -> Program:
    """A model that ends in logits, under torch's cross_entropy."""
    return program.but(model=partial(keras_mlp, ending=()), loss=functional.cross_entropy)


FAULTS = (
    Fault(
        cause="output_activation_wrong",
        broken=rectified,
        setups=("mlp-digits", "conv-mnist"),
        loops=("gru-speech",),
        also=("activation_extra",),
        notes="a rectifier behind logits is also one activation too many",
    ),
    Fault(
        cause="output_activation_wrong",
        broken=squashed,
        setups=("mlp-housing", "lstm-oil"),
        also=("activation_extra",),
    ),
    Fault(
        cause="output_activation_wrong",
        broken=in_unit_interval,
        setups=("counts-molecules",),
        loops=("conv-oil",),
        also=("activation_extra",),
    ),
    Fault(
        cause="output_activation_wrong",
        broken=softmax_over_one,
        fixed=sigmoid_for_each,
        setups=("dear-houses",),
        loops=("gru-reviews",),
    ),
    Fault(
        cause="output_activation_wrong",
        broken=softmax_over_many,
        fixed=sigmoid_for_each,
        setups=("pairs-of-digits",),
    ),
    Fault(
        cause="output_activation_wrong",
        broken=keras_rectified,
        setups=("keras-mnist",),
    ),
    Fault(
        cause="hidden_activation_wrong",
        broken=sigmoids,
        setups=("conv-mnist", "autoencoder-fashion"),
        notes="a network with batch norm learns with sigmoids too, and is left out",
    ),
    Fault(
        cause="hidden_activation_wrong",
        broken=hidden_softmax,
        setups=("mlp-housing",),
        loops=("mlp-mnist",),
        variant="softmax",
    ),
    Fault(
        cause="hidden_activation_wrong",
        broken=step_functions,
        setups=("conv-speech", "mlp-digits"),
        variant="step",
    ),
    Fault(
        cause="activation_missing",
        broken=linear,
        setups=("mlp-housing", "conv-speech", "deep-mlp-mnist"),
        loops=("conv-oil",),
    ),
    Fault(
        cause="activation_missing",
        broken=pooled_linear,
        fixed=averaging,
        setups=("conv-mnist", "pairs-of-digits"),
    ),
    Fault(
        cause="activation_missing",
        broken=likelihood_of_logits,
        fixed=likelihood,
        setups=("mlp-digits",),
        loops=("lstm-reviews",),
        also=("loss_wrong",),
        variant="output",
    ),
    Fault(
        cause="activation_missing",
        broken=keras_linear,
        setups=("keras-mnist",),
        also=("output_activation_wrong",),
        variant="output",
    ),
    Fault(
        cause="activation_extra",
        broken=sigmoid_before_logits_loss,
        setups=("dear-houses", "segmenter-membrane", "pairs-of-digits"),
        loops=("gru-reviews",),
        notes="plainly wrong, though some recipes still come to the right side of one half",
    ),
    Fault(
        cause="activation_extra",
        broken=sigmoid_before_logits_loss,
        setups=("gru-speech", "mlp-digits"),
        loops=("conv-mnist",),
        also=("output_activation_wrong",),
        notes="a sigmoid behind the logits of a cross entropy over classes",
    ),
    Fault(
        cause="double_softmax",
        broken=softmax_before_cross_entropy,
        setups=("conv-mnist", "gru-speech", "attention-reviews", "mlp-digits"),
        loops=("mlp-mnist",),
        notes="plainly wrong, though a long training of an easy task overcomes it",
    ),
    Fault(
        cause="double_softmax",
        broken=softmax_in_text_loss,
        setups=("lstm-shakespeare",),
        loops=("gpt-lines",),
    ),
    Fault(
        cause="double_softmax",
        broken=keras_softmax_twice,
        fixed=keras_logits,
        setups=("keras-mnist",),
    ),
)
