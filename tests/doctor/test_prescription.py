"""Tests of the prescription: each cause gets the remedy that takes it away in this patient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer

from leadline.core.seeds import seed_everything
from leadline.doctor.check import check_on
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.prescription import (
    REMEDIES,
    ending_of,
    hidden_activations,
    outputs_are,
    prescribe,
    usual_rate,
)
from leadline.doctor.vocabulary import FAMILIES
from leadline.training.setup import Setup

INPUTS = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
CLASSES = INPUTS[:, :3].argmax(dim=1)
YES = (INPUTS.sum(dim=1, keepdim=True) > 0).float()
NUMBERS = INPUTS[:, :1] * 2


def chain(*ending: Callable[[], nn.Module], width: int = 3) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, width), *(make() for make in ending)
    )


def softmax() -> nn.Module:
    return nn.Softmax(dim=1)


def setup_of(targets: Tensor = CLASSES, *, inputs: Tensor = INPUTS, **changes: Any) -> Setup:
    size = changes.pop("size", 32)
    parts: dict[str, Any] = {
        "model": chain(),
        "batches": list(zip(inputs.split(size), targets.split(size), strict=True)),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda model: Adam(model.parameters(), lr=0.01),
        "epochs": 1,
    }
    return Setup(**(parts | changes))


def making(kind: Any, **options: Any) -> Callable[[nn.Module], Optimizer]:
    return lambda model: kind(model.parameters(), **options)


def a_finding(cause: str, **changes: Any) -> Finding:
    evidence = (Evidence(quantity="q", measured=1.0, expected="another"),)
    parts: dict[str, Any] = {"severity": "error", "summary": "", "remedy": "", **changes}
    return Finding(cause=cause, evidence=evidence, **parts)


class Functional(nn.Module):
    """A model that ends in a function."""

    def __init__(self, ending: Callable[[Tensor], Tensor], width: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, width)
        self.ending = ending

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.last(torch.relu(self.first(x))))


# ------------------------------------------------------------------------------ what ends the model


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (chain(), (None, "linear")),
        (chain(softmax), ("3", "softmax")),
        (chain(lambda: nn.LogSoftmax(dim=1)), ("3", "log_softmax")),
        (chain(nn.Sigmoid), ("3", "sigmoid")),
        (chain(nn.ReLU), ("3", "relu")),
        (chain(nn.LeakyReLU), ("3", "leaky_relu")),
        (chain(nn.Tanh), ("3", "tanh")),
        (lambda: Functional(lambda x: x), (None, "linear")),
        (lambda: Functional(lambda x: torch.softmax(x, dim=1)), (None, "softmax")),
        (lambda: Functional(lambda x: torch.log_softmax(x, dim=1)), (None, "log_softmax")),
        (lambda: Functional(torch.sigmoid), (None, "sigmoid")),
        (lambda: Functional(torch.relu), (None, "relu")),
    ],
)
def test_what_ends_a_model_is_found_as_a_module_or_a_function(model: Any, found: Any) -> None:
    patient = Patient(setup_of(model=model, loss=lambda o, t: o.square().mean()), seconds=1)
    assert ending_of(patient) == found
    wanted = "probabilities" if found[1] in ("softmax", "sigmoid") else "logits"
    assert outputs_are(patient) == wanted


def test_the_activations_inside_are_those_before_the_last_weights() -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Softmax(dim=1), nn.Linear(6, 3),
            nn.ReLU(),
        )  # fmt: skip

    assert hidden_activations(Patient(setup_of(model=build), seconds=1)) == ["1", "3"]


def test_a_model_without_weight_layers_has_none_inside() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))
            self.act = nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x[:, :3]) * self.factor

    assert hidden_activations(Patient(setup_of(model=Scale), seconds=1)) == []


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        (making(SGD, lr=5.0), 1e-2),
        (making(Adam, lr=5.0), 1e-3),
        (making(torch.optim.Adadelta, lr=5.0), 1.0),
    ],
)
def test_the_usual_rate_is_that_of_the_optimizer(optimizer: Any, rate: float) -> None:
    assert usual_rate(optimizer(nn.Linear(2, 2))) == rate
    assert usual_rate(None) == 1e-3


# ------------------------------------------------------------------ each cause is healed by its own


def nan_in_one() -> Tensor:
    inputs = INPUTS.clone()
    inputs[1, 2] = torch.nan
    return inputs


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x *= 2
        return self.layer(x)


def constant(value: float) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = chain()()
        for parameter in model.parameters():
            nn.init.constant_(parameter, value)
        return model

    return build


def deep(depth: int, hidden: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(8, 16), hidden()]
        for _ in range(depth):
            layers += [nn.Linear(16, 16), hidden()]
        return nn.Sequential(*layers, nn.Linear(16, 3))

    return build


def untouched(model: nn.Module) -> Optimizer:
    return SGD(next(model.children()).parameters(), lr=0.1)


def backwards(model: nn.Module) -> Optimizer:
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = -0.1
    return optimizer


HEALED: dict[str, Setup] = {
    "input_not_finite": setup_of(inputs=nan_in_one()),
    "labels_shifted": setup_of(CLASSES + 1),
    "data_modified_in_place": setup_of(model=Writing),
    "input_not_normalized": setup_of(inputs=INPUTS * 500 + 1000),
    "input_double_normalized": setup_of(inputs=INPUTS / 1000),
    "target_not_normalized": setup_of(
        NUMBERS * 1000 + 5000, model=chain(width=1), loss=nn.MSELoss()
    ),
    "double_softmax": setup_of(model=chain(softmax)),
    "activation_extra": setup_of(
        YES, model=chain(nn.Sigmoid, width=1), loss=nn.BCEWithLogitsLoss()
    ),
    "output_activation_wrong": setup_of(model=chain(nn.ReLU)),
    "loss_reduction_wrong": setup_of(loss=nn.CrossEntropyLoss(reduction="sum")),
    "target_broadcast_shape": setup_of(
        NUMBERS[:, 0], model=chain(width=1), loss=lambda o, t: (o - t).square().mean()
    ),
    "init_constant": setup_of(model=constant(0.5)),
    "lr_negative": setup_of(optimizer=backwards),
    "lr_too_high": setup_of(optimizer=making(SGD, lr=1e4)),
    "lr_too_low": setup_of(optimizer=making(SGD, lr=0.0)),
    "gradient_sign_flipped": setup_of(optimizer=making(SGD, lr=0.1, maximize=True)),
    "optimizer_missing_params": setup_of(optimizer=untouched),
    "norm_eval_stats_broken": setup_of(
        model=lambda: nn.Sequential(nn.BatchNorm1d(8, momentum=0.0), nn.Linear(8, 3))
    ),
    "dropout_too_high": setup_of(model=chain(lambda: nn.Dropout(0.95))),
    "reg_too_strong": setup_of(optimizer=making(SGD, lr=0.1, weight_decay=5.0)),
}
"""A patient for each of the causes that one batch shows."""


def causes_of(setup: Setup) -> list[str]:
    """What a check says of the Setup, on its first batch."""
    seed_everything(0)
    batch = next(iter(setup.batches))
    return [finding.cause for finding in check_on(setup, batch).checkup.findings]


@pytest.mark.parametrize("cause", HEALED)
def test_the_treated_setup_trains_and_a_checkup_no_longer_finds_the_cause(cause: str) -> None:
    sick = HEALED[cause]
    patient = Patient(sick, seconds=1)
    finding = next(f for f in patient.checked.checkup.findings if f.cause == cause)
    change = prescribe(finding, patient)
    assert change is not None and change.lines and change.title
    assert cause not in causes_of(change(sick))
    outcome = patient.arm(change)
    assert outcome.ended == "" and outcome.steps == patient.steps


# ------------------------------------------------------------------------------------ the endings


def _of_probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.nll_loss(outputs.clamp_min(1e-9).log(), targets)


@pytest.mark.parametrize(
    ("model", "loss", "targets", "ends"),
    [
        (chain(nn.ReLU, width=1), nn.BCELoss(), YES, "sigmoid"),
        (chain(nn.Sigmoid), _of_probabilities, CLASSES, "softmax"),
        (chain(nn.ReLU, width=1), nn.MSELoss(), NUMBERS, "linear"),
    ],
)
def test_the_model_is_given_the_ending_that_its_loss_asks_for(
    model: Any, loss: Any, targets: Tensor, ends: str
) -> None:
    sick = setup_of(targets, model=model, loss=loss)
    patient = Patient(sick, seconds=1)
    change = prescribe(a_finding("output_activation_wrong"), patient)
    assert change is not None
    outputs = change(sick).model()(INPUTS)
    bounded = bool((outputs >= 0).all() and (outputs <= 1).all())
    assert bounded is (ends != "linear")
    if ends == "softmax":
        torch.testing.assert_close(outputs.sum(dim=1), torch.ones(len(outputs)))


def test_a_function_in_forward_is_left_and_the_loss_is_changed() -> None:
    sick = setup_of(model=lambda: Functional(torch.relu), loss=nn.CrossEntropyLoss())
    patient = Patient(sick, seconds=1)
    change = prescribe(a_finding("output_activation_wrong"), patient)
    assert change is not None
    treated = change(sick)
    assert treated.model is sick.model and treated.loss is not sick.loss


# ------------------------------------------------------------------------------------- the options


def test_a_rate_is_lowered_by_as_many_powers_of_ten_as_the_first_step_is_too_long() -> None:
    sick = setup_of(optimizer=making(SGD, lr=1e4))
    patient = Patient(sick, seconds=1)
    assert patient.seen is not None and patient.seen.step is not None
    change = prescribe(a_finding("lr_too_high"), patient)
    assert change is not None
    rate = change(sick).optimizer(sick.model()).param_groups[0]["lr"]
    steps = torch.log10(torch.tensor(1e4 / rate))
    assert torch.isclose(steps, steps.round(), atol=1e-4)
    assert patient.seen.step.typical * rate / 1e4 <= 0.01


@pytest.mark.parametrize(("decay", "changed"), [(5.0, True), (1e-4, False), (0.0, False)])
def test_a_decay_that_is_small_is_left_alone(decay: float, changed: bool) -> None:
    sick = setup_of(optimizer=making(SGD, lr=0.1, weight_decay=decay))
    change = prescribe(a_finding("reg_too_strong"), Patient(sick, seconds=1))
    assert (change is not None) is changed


@pytest.mark.parametrize(
    ("hidden", "kind"),
    [(nn.Sigmoid, nn.ReLU), (nn.Tanh, nn.ReLU), (nn.ReLU, nn.LeakyReLU)],
)
def test_hidden_activations_make_way_for_others(hidden: Any, kind: Any) -> None:
    sick = setup_of(model=deep(3, hidden))
    patient = Patient(sick, seconds=1)
    change = prescribe(a_finding("hidden_activation_wrong"), patient)
    assert change is not None
    model = change(sick).model()
    kinds = {type(m) for m in model.modules()} - {nn.Sequential, nn.Linear}
    assert kinds == {kind}


def test_weights_are_drawn_for_the_activation_that_is_there() -> None:
    for hidden, rule in ((nn.ReLU, "kaiming"), (nn.Tanh, "xavier")):
        patient = Patient(setup_of(model=deep(2, hidden)), seconds=1)
        change = prescribe(a_finding("init_bad_scale"), patient)
        assert change is not None and rule in change.diff


def test_norms_are_put_behind_all_weight_layers_but_the_last() -> None:
    sick = setup_of(model=deep(3, nn.Tanh))
    change = prescribe(a_finding("norm_missing"), Patient(sick, seconds=1))
    assert change is not None
    model = change(sick).model()
    behind = [name for name, m in model.named_modules() if name.endswith("leadline_norm")]
    assert behind == [f"{n}.leadline_norm" for n in (0, 2, 4, 6)]


@pytest.mark.parametrize(("size", "cut"), [(2, True), (64, False)])
def test_batches_are_made_larger_where_they_are_small(size: int, cut: bool) -> None:
    sick = setup_of(
        model=lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)),
        size=size,
    )
    change = prescribe(a_finding("batch_size_too_small"), Patient(sick, seconds=1))
    assert (change is not None) is cut
    if change is not None:
        assert {len(x) for x, _ in change(sick).batches} == {32}


def test_frozen_layers_that_the_finding_names_learn_again() -> None:
    def frozen() -> nn.Module:
        model = chain()()
        model[0].requires_grad_(False)  # type: ignore[index]
        return model

    sick = setup_of(model=frozen)
    finding = a_finding("params_frozen", layers=("0.weight",))
    change = prescribe(finding, Patient(sick, seconds=1))
    assert change is not None
    model = change(sick).model()
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    assert trainable["0.weight"] and not trainable["0.bias"]


def test_sorted_examples_are_shuffled() -> None:
    order = CLASSES.argsort()
    sick = setup_of(CLASSES[order], inputs=INPUTS[order])
    change = prescribe(a_finding("shuffle_missing"), Patient(sick, seconds=1))
    assert change is not None
    first = next(iter(change(sick).batches))
    assert len(first[1].unique()) == 3


# ------------------------------------------------------------------------ what only the author can


def test_a_cause_that_only_its_author_can_mend_has_none() -> None:
    patient = Patient(setup_of(), seconds=1)
    for cause in ("graph_cut", "causal_mask_missing", "batch_leak", "label_corrupted"):
        assert cause not in REMEDIES
        assert prescribe(a_finding(cause), patient) is None


def test_a_patient_whose_loss_cannot_be_computed_has_none() -> None:
    patient = Patient(setup_of(CLASSES[:, None]), seconds=1)
    assert patient.seen is None
    for cause in ("target_broadcast_shape", "lr_too_high", "double_softmax"):
        assert prescribe(a_finding(cause), patient) is None


def test_a_loss_that_refuses_logits_gets_a_sigmoid_before_it() -> None:
    setup = setup_of(YES, model=chain(width=1), loss=nn.BCELoss())
    patient = Patient(setup, seconds=1)
    assert patient.seen is None
    remedy = prescribe(a_finding("output_activation_wrong"), patient)
    assert remedy is not None
    model = remedy(setup).model()
    outputs = model(INPUTS)
    assert ((outputs > 0) & (outputs < 1)).all()


def test_whole_number_inputs_are_not_standardised() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x).mean(dim=1))

    tokens = torch.randint(0, 9, (256, 5))
    patient = Patient(setup_of(inputs=tokens, model=Bag), seconds=1)
    assert prescribe(a_finding("input_not_normalized"), patient) is None


def test_every_cause_with_a_remedy_is_a_word_of_the_vocabulary() -> None:
    words = {word for family in FAMILIES.values() for word in family}
    assert set(REMEDIES) <= words
