"""Faults of the architecture: units, layers, masks, ties, and examples that see each other."""

from __future__ import annotations

import copy
from functools import partial

import keras
from fault import Fault
from healthy import keras_mlp
from healthy_models import (
    Attentive,
    PackedReader,
    Reader,
    Series,
    convnet,
    convolutional_language_model,
    gpt,
    mlp,
    plain_convnet,
    recurrent_language_model,
    segmenter,
)
from healthy_text import LETTERS, WORDS
from program import Program
from seeded_data import in_fitting
from seeded_preprocessing import everywhere
from surgery import more_outputs, within
from torch import Tensor, nn
from torch.nn import functional

from data import Examples


def one_unit_for_yes(program: Program) -> Program:
    """One output and no more, under a cross entropy over classes: it is always 0."""
    return program.but(loss=functional.cross_entropy)


def two_units_too_few(program: Program) -> Program:
    """Two outputs fewer than there are classes."""
    return more_outputs(program, -2)


def one_number_for_a_class(program: Program) -> Program:
    """One output that is to come near to the number of the class."""

    def numbers(part: Examples) -> Examples:
        return Examples(inputs=part.inputs, targets=part.targets[:, None].float())

    changed = more_outputs(in_fitting(program, numbers), -9)
    return changed.but(loss=functional.mse_loss)


def keras_one_unit(program: Program) -> Program:
    """Keras' Dense(1, activation="softmax") for ten classes."""

    def model() -> nn.Module:
        return nn.Sequential(*list(keras_mlp())[:-2], keras.dense(128, 1), nn.Softmax(dim=1))

    return program.but(model=model)


def with_model(program: Program, models: dict[str, object]) -> Program:
    """With the model that stands under the recipe's name."""
    return program.but(model=models[program.name])


NARROW = {
    "mlp-digits": partial(mlp, 64, 2, 10),
    "mlp-mnist": partial(mlp, 784, 3, 2, 10),
    "autoencoder-fashion": partial(mlp, 784, 128, 1, 128, 784),
    "conv-fashion": partial(convnet, 1, 2, 2, classes=10),
    "gru-speech": partial(Reader, symbols=0, features=20, width=2, outputs=10, cell=nn.GRU),
    "lstm-shakespeare": partial(recurrent_language_model, symbols=LETTERS, width=4),
    "mlp-housing": partial(mlp, 8, 1, 1),
}
"""One to four units where many are needed."""


class WordNumbers(nn.Module):
    """Reads the numbers of words as if they were quantities."""

    def __init__(self, *, outputs: int, cell: type[nn.RNNBase], width: int = 32) -> None:
        super().__init__()
        self.cell = cell(1, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, words: Tensor) -> Tensor:
        states, _ = self.cell(words.unsqueeze(2).float())
        return self.head(states[:, -1])


class Directly(nn.Module):
    """The mean over the time of a series, into the head."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, outputs)

    def forward(self, series: Tensor) -> Tensor:
        return self.head(series.mean(dim=1))


MISSING = {
    "lstm-reviews": partial(WordNumbers, outputs=2, cell=nn.LSTM),
    "gru-molecules": partial(WordNumbers, outputs=1, cell=nn.GRU),
    "mlp-housing": partial(mlp, 8, 1),
    "conv-fashion": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 10)),
    "conv-speech": partial(Directly, 20, 10),
    "resnet-cifar": lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 5)),
}
"""The embedding, the hidden layers, the convolutions left out."""


def deep_tower(inputs: int, width: int, outputs: int, *, layers: int = 14) -> nn.Sequential:
    """Many more layers than anybody needs, as torch begins them, without normalisation."""
    return mlp(inputs, *[width] * layers, outputs)


def early_average(*channels: int, classes: int, first: int = 1) -> nn.Sequential:
    """A convnet with an average over the whole picture before its convolutions."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Upsample(size=8),
        convnet(*channels, classes=classes, first=first),
    )


def pooled_convnet() -> nn.Sequential:
    """Two more poolings: of the picture only one pixel in 49 is left to the dense layers."""
    return nn.Sequential(nn.MaxPool2d(14), nn.Upsample(size=28), plain_convnet())


EXTRA = {
    "mlp-digits": partial(deep_tower, 64, 64, 10),
    "mlp-mnist": partial(deep_tower, 784, 64, 10),
    "conv-mnist": pooled_convnet,
    "conv-fashion": partial(early_average, 8, 16, 32, classes=10),
    "mlp-housing": lambda: nn.Sequential(*mlp(8, 64, 64, 1), nn.LayerNorm(1)),
    "counts-molecules": partial(deep_tower, 32, 32, 1),
}
"""Layers too many: deep towers, poolings of all there is, a norm over the only output."""

LOOKING_AHEAD = {
    "gpt-shakespeare": partial(gpt, symbols=LETTERS, causal=False),
    "gpt-lines": partial(gpt, symbols=LETTERS + 1, causal=False),
    "lstm-shakespeare": partial(recurrent_language_model, symbols=LETTERS, causal=False),
    "gru-lines": partial(recurrent_language_model, symbols=LETTERS + 1, cell=nn.GRU, causal=False),
    "conv-shakespeare": partial(convolutional_language_model, symbols=LETTERS, causal=False),
}
"""No mask, both directions, or padding on both sides."""

UNTIED = {
    "gpt-shakespeare": partial(gpt, symbols=LETTERS, tied="copied"),
    "gpt-lines": partial(gpt, symbols=LETTERS + 1, tied="copied"),
    "lstm-shakespeare": partial(recurrent_language_model, symbols=LETTERS, tied="copied"),
    "gru-lines": partial(recurrent_language_model, symbols=LETTERS + 1, cell=nn.GRU, tied="copied"),
}


def copied_deeply(program: Program) -> Program:
    """The parts are copied one by one, and what they shared is shared no more."""

    def copied(model: nn.Module) -> None:
        for name, part in list(model.named_children()):
            setattr(model, name, copy.deepcopy(part))

    return within(program, copied)


def much_longer(program: Program) -> Program:
    """Padded to three times the length, as a batch with one long text is."""

    def longer(part: Examples) -> Examples:
        more = 2 * part.inputs.shape[1]
        padding = (0, more) if part.inputs.ndim == 2 else (0, 0, 0, more)
        return Examples(inputs=functional.pad(part.inputs, padding), targets=part.targets)

    return everywhere(program, longer)


AT_PADDING = {
    "lstm-reviews": partial(Reader, symbols=WORDS + 1, width=32, outputs=2, at_end=False),
    "gru-reviews": partial(
        Reader, symbols=WORDS + 1, width=32, outputs=1, cell=nn.GRU, at_end=False
    ),
    "gru-speech": partial(
        Reader, symbols=0, features=20, width=48, outputs=10, cell=nn.GRU, at_end=False
    ),
    "gru-molecules": partial(Reader, symbols=33, width=48, outputs=1, cell=nn.GRU, at_end=False),
}


class PackedOutput(PackedReader):
    """A packed sequence unpacked again, and read at the last place of the batch."""

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs if self.embedding is None else self.embedding(inputs)
        states, _ = self.cell(features)
        known = (inputs != 0).unsqueeze(2) if inputs.ndim == 2 else inputs.any(dim=2, keepdim=True)
        return self.head((states * known)[:, -1])


def masked_states(program: Program) -> Program:
    """States at padding are set to 0, and the last is read all the same."""
    if program.name == "lstm-reviews":
        return program.but(model=partial(PackedOutput, symbols=WORDS + 1, width=32, outputs=2))
    return program.but(
        model=partial(PackedOutput, symbols=0, features=20, width=48, outputs=10, cell=nn.GRU)
    )


class TimeFirst(Reader):
    """A recurrent network that takes the first axis for time, given [B, T, D]."""

    def __init__(self, **choices: object) -> None:
        super().__init__(**choices)
        self.cell.batch_first = False


class OverTheBatch(nn.Module):
    """Standardises by the mean and the deviation of the batch it is in, in evaluation too."""

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - inputs.mean(dim=0)) / (inputs.std(dim=0, correction=0) + 0.1)


class BatchAttention(nn.Module):
    """Attention whose weights are normalised over the examples."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask, self.know = nn.Linear(width, 16), nn.Linear(width, 16)

    def forward(self, inputs: Tensor) -> Tensor:
        weights = (self.ask(inputs) @ self.know(inputs).T / 4).softmax(dim=1)  # [B, B]
        return inputs + weights @ inputs


MIXING = {
    "lstm-oil": partial(TimeFirst, symbols=0, features=7, width=32, outputs=1),
    "gru-speech": partial(TimeFirst, symbols=0, features=20, width=48, outputs=10, cell=nn.GRU),
    "attention-reviews": partial(Attentive, symbols=WORDS + 1, outputs=2, batch_first=False),
    "mlp-housing": lambda: nn.Sequential(BatchAttention(8), mlp(8, 64, 64, 1)),
    "mlp-digits": lambda: nn.Sequential(OverTheBatch(), mlp(64, 64, 10)),
    "conv-oil": lambda: nn.Sequential(OverTheBatch(), Series(7, 1, norm=False)),
}
"""Time taken for the batch axis, figures of the batch, attention from example to example."""


class ForgetfulReader(Reader):
    """Has a recurrent network, and gives the head the words themselves."""

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs if self.embedding is None else self.embedding(inputs)
        return self.head(features.mean(dim=1))


class ForgetfulSequential(nn.Module):
    """Has hidden layers, and calls only the first and the last."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.first = nn.Linear(sizes[0], sizes[1])
        self.second = nn.Linear(sizes[1], sizes[1])
        self.third = nn.Linear(sizes[1], sizes[1])
        self.last = nn.Linear(sizes[1], sizes[2])

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        return self.last(hidden)


class ForgetfulSegmenter(nn.Module):
    """Has an encoder and a decoder, and gives the pixels to the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = segmenter()[:-1]
        self.stem = nn.Conv2d(1, 8, 1)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.stem(pictures).relu())


FORGETFUL = {
    "gru-speech": partial(
        ForgetfulReader, symbols=0, features=20, width=20, outputs=10, cell=nn.GRU
    ),
    "lstm-oil": partial(ForgetfulReader, symbols=0, features=7, width=7, outputs=1),
    "mlp-housing": partial(ForgetfulSequential, 8, 64, 1),
    "autoencoder-fashion": partial(ForgetfulSequential, 784, 8, 784),
    "segmenter-membrane": ForgetfulSegmenter,
}
"""Layers that are made and never called."""


def fault_of(cause: str, models: dict[str, object], **parts: object) -> Fault:
    """A fault that is another model."""
    return Fault(cause=cause, broken=partial(with_model, models=models), **parts)


FAULTS = (
    Fault(
        cause="output_units_wrong",
        broken=one_unit_for_yes,
        setups=("dear-houses",),
        loops=("gru-reviews",),
        also=("loss_wrong",),
        notes="one unit under a cross entropy over classes: the units or the loss are wrong",
    ),
    Fault(
        cause="output_units_wrong",
        broken=two_units_too_few,
        setups=("mlp-digits", "conv-speech"),
        loops=("conv-mnist",),
        notes="torch refuses the labels beyond the outputs",
    ),
    Fault(
        cause="output_units_wrong",
        broken=one_number_for_a_class,
        setups=("gru-speech",),
        loops=("mlp-mnist",),
        also=("loss_wrong",),
        variant="number",
    ),
    Fault(cause="output_units_wrong", broken=keras_one_unit, setups=("keras-mnist",)),
    fault_of(
        "capacity_too_small",
        NARROW,
        setups=("mlp-digits", "autoencoder-fashion", "conv-fashion", "lstm-shakespeare"),
        loops=("mlp-mnist", "gru-speech", "mlp-housing"),
    ),
    fault_of(
        "layer_missing",
        MISSING,
        setups=("lstm-reviews", "conv-fashion", "mlp-housing", "resnet-cifar"),
        loops=("conv-speech", "gru-molecules"),
        also=("capacity_too_small",),
        notes="without its layers the network is too small as well",
    ),
    fault_of(
        "layer_extra",
        EXTRA,
        setups=("conv-mnist", "conv-fashion", "mlp-housing", "counts-molecules", "mlp-digits"),
        loops=("mlp-mnist",),
    ),
    fault_of(
        "causal_mask_missing",
        LOOKING_AHEAD,
        setups=("gpt-shakespeare", "lstm-shakespeare", "conv-shakespeare"),
        loops=("gpt-lines", "gru-lines"),
    ),
    fault_of(
        "weight_tying_broken",
        UNTIED,
        setups=("gpt-shakespeare", "lstm-shakespeare"),
        loops=("gpt-lines", "gru-lines"),
        notes="the score hardly suffers in so short a training",
    ),
    Fault(cause="weight_tying_broken", broken=copied_deeply, setups=("conv-shakespeare",)),
    fault_of(
        "state_read_at_padding",
        AT_PADDING,
        base=much_longer,
        setups=("lstm-reviews", "gru-speech", "gru-molecules"),
        loops=("gru-reviews",),
    ),
    Fault(
        cause="state_read_at_padding",
        base=much_longer,
        broken=masked_states,
        variant="masked",
        setups=("lstm-reviews",),
        loops=("gru-speech",),
    ),
    fault_of(
        "batch_leak",
        MIXING,
        setups=("lstm-oil", "attention-reviews", "mlp-housing"),
        loops=("gru-speech", "mlp-digits", "conv-oil"),
        notes="plainly wrong: an answer depends on what else is in the batch",
    ),
    fault_of(
        "parameters_unused",
        FORGETFUL,
        setups=("gru-speech", "mlp-housing", "segmenter-membrane"),
        loops=("lstm-oil", "autoencoder-fashion"),
        also=("layer_missing",),
    ),
)
