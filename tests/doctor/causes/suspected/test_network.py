"""Tests of the suspicions about the network: activations, first weights, dropout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.causes.suspected.network import SPREAD_OUT, linear_pairs, suspicions

Patients = Callable[..., Any]
INPUTS = torch.randn(128, 8, generator=torch.Generator().manual_seed(0))
CLASSES = INPUTS[:, :3].argmax(dim=1)


def softmax() -> nn.Module:
    return nn.Softmax(dim=1)


def chain(*hidden: Callable[[], nn.Module], depth: int = 2) -> Callable[[], nn.Module]:
    """Linear layers, each but the last followed by these layers."""

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        width = 8
        for _ in range(depth):
            layers += [nn.Linear(width, 16), *(make() for make in hidden)]
            width = 16
        return nn.Sequential(*layers, nn.Linear(16, 3))

    return build


def dropping(rate: float) -> Callable[[], nn.Module]:
    return lambda: nn.Dropout(rate)


def causes(patient: Any) -> list[str]:
    found = list(suspicions(patient))
    assert all(f.severity == "note" and not f.proven and f.change is not None for f in found)
    return [f.cause for f in found]


@pytest.mark.parametrize("hidden", [nn.ReLU, nn.GELU, nn.LeakyReLU, nn.SiLU])
def test_a_usual_network_is_not_suspected(patient_for: Patients, hidden: Any) -> None:
    assert causes(patient_for(chain(hidden), (INPUTS, CLASSES))) == []


@pytest.mark.parametrize(
    ("hidden", "words"),
    [(nn.Sigmoid, "Sigmoid"), (nn.Tanh, "Tanh"), (softmax, "a softmax inside")],
)
def test_squashing_inside_the_network_is_suspected(
    patient_for: Patients, hidden: Any, words: str
) -> None:
    patient = patient_for(chain(hidden), (INPUTS, CLASSES))
    (finding,) = suspicions(patient)
    assert finding.cause == "hidden_activation_wrong"
    assert words in finding.summary and finding.layers == ("1", "3")
    assert finding.change is not None
    kinds = {type(m) for m in finding.change(patient.setup).model().children()}
    assert kinds == {nn.Linear, nn.ReLU}


def test_the_activation_at_the_end_is_not_inside(patient_for: Patients) -> None:
    patient = patient_for(
        lambda: nn.Sequential(*chain(nn.ReLU)(), nn.Sigmoid()),
        (INPUTS, nn.functional.one_hot(CLASSES, 3).float()),
        loss=nn.MSELoss(),
    )
    assert causes(patient) == []


# ------------------------------------------------------------------------ nothing in between layers


@pytest.mark.parametrize(
    ("hidden", "names"),
    [
        ((), ["0", "1"]),
        ((nn.Identity,), ["0", "2"]),
        ((dropping(0.1),), ["0", "2"]),
        ((nn.ReLU,), []),
        ((nn.ReLU, dropping(0.1)), []),
        ((lambda: nn.LayerNorm(16), nn.ReLU), []),
        ((lambda: nn.BatchNorm1d(16),), ["1", "3"]),
        ((lambda: nn.BatchNorm1d(16), nn.ReLU), []),
    ],
)
def test_weight_layers_that_follow_one_another_are_found(
    patient_for: Patients, hidden: Any, names: list[str]
) -> None:
    patient = patient_for(chain(*hidden), (INPUTS, CLASSES))
    assert linear_pairs(patient) == names
    assert causes(patient) == ["activation_missing"] * bool(names)


def test_a_norm_before_a_branch_of_a_residual_path_says_nothing(patient_for: Patients) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)
            self.branch, self.last = nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.first(x))
            return self.last(torch.relu(x + self.branch(x)))

    assert causes(patient_for(Residual, (INPUTS, CLASSES))) == []


def test_an_activation_as_a_function_counts(patient_for: Patients) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x)))

    assert causes(patient_for(Plain, (INPUTS, CLASSES))) == []


def test_the_remedy_puts_one_behind_each(patient_for: Patients) -> None:
    patient = patient_for(chain(), (INPUTS, CLASSES))
    (finding,) = suspicions(patient)
    assert finding.change is not None
    model = finding.change(patient.setup).model()
    inputs = torch.randn(5, 8)
    hidden = torch.relu(model[1](torch.relu(model[0](inputs))))  # type: ignore[index]
    torch.testing.assert_close(model(inputs), model[2](hidden))  # type: ignore[index]


# ------------------------------------------------------------------------------------ first weights


def scaled(factor: float) -> Callable[[], nn.Module]:
    """Weights whose root mean square is the factor times that of He's rule, exactly."""

    def build() -> nn.Module:
        model = chain(nn.ReLU)()
        for layer in model:  # type: ignore[attr-defined]
            if isinstance(layer, nn.Linear):
                usual = math.sqrt(2 / layer.in_features)
                signs = torch.where(torch.arange(layer.weight.numel()) % 3 > 0, 1.0, -1.0)
                layer.weight.data = factor * usual * signs.reshape(layer.weight.shape)
        return model

    return build


@pytest.mark.parametrize(
    ("factor", "word"),
    [(0.05, "smaller"), (0.2, None), (1.0, None), (2.4, None), (2.6, "larger"), (20.0, "larger")],
)
def test_first_weights_far_from_the_rules_are_suspected(
    patient_for: Patients, factor: float, word: str | None
) -> None:
    found = [
        f
        for f in suspicions(patient_for(scaled(factor), (INPUTS, CLASSES)))
        if f.cause == "init_bad_scale"
    ]
    assert len(found) == (word is not None)
    if found:
        assert f"far {word}" in found[0].summary
        assert found[0].evidence[0].measured == pytest.approx(factor, rel=1e-3)
        assert (factor > SPREAD_OUT) is (word == "larger")


def test_a_layer_of_zeros_among_others_is_suspected(patient_for: Patients) -> None:
    def build() -> nn.Module:
        model = chain(nn.ReLU)()
        nn.init.zeros_(model[2].weight)  # type: ignore[index, arg-type]
        return model

    (finding,) = suspicions(patient_for(build, (INPUTS, CLASSES)))
    assert (finding.cause, finding.layers) == ("init_constant", ("2",))


@pytest.mark.parametrize(("hidden", "rule"), [(nn.ReLU, "kaiming"), (nn.Tanh, "xavier")])
def test_the_rule_is_that_of_the_activation(patient_for: Patients, hidden: Any, rule: str) -> None:
    def build() -> nn.Module:
        model = chain(hidden)()
        for parameter in model.parameters():
            parameter.data *= 50
        return model

    found = {f.cause: f for f in suspicions(patient_for(build, (INPUTS, CLASSES)))}
    change = found["init_bad_scale"].change
    assert change is not None and rule in change.diff


# ----------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize(
    ("rates", "cause"),
    [
        ((0.1, 0.1), None),
        ((0.5, 0.5), None),
        ((0.6,), "dropout_too_high"),
        ((0.5, 0.5, 0.5, 0.5, 0.5), "dropout_too_high"),  # 3 % of the signal is left
        ((0.9,), "dropout_misuse"),  # 0.1 was meant
        ((0.95,), "dropout_too_high"),  # nobody means 0.05
        ((0.0, 0.0), None),
    ],
)
def test_dropout_that_leaves_hardly_anything_is_suspected(
    patient_for: Patients, rates: tuple[float, ...], cause: str | None
) -> None:
    def build() -> nn.Module:
        layers = chain(nn.ReLU, depth=1)()
        return nn.Sequential(*layers[:2], *(nn.Dropout(rate) for rate in rates), layers[2])  # type: ignore[index, misc]

    patient = patient_for(build, (INPUTS, CLASSES))
    found = list(suspicions(patient))
    assert [f.cause for f in found] == ([] if cause is None else [cause])
    for finding in found:
        kept = math.prod(1 - rate for rate in rates)
        assert finding.evidence[1].measured == pytest.approx(kept)
        assert finding.change is not None
        mended = [m.p for m in finding.change(patient.setup).model() if isinstance(m, nn.Dropout)]
        assert max(mended) <= 0.2 + 1e-9 and max(mended) < max(rates)


def test_a_dropout_of_the_answers_is_suspected(patient_for: Patients) -> None:
    def build(rate: float) -> nn.Module:
        return nn.Sequential(*chain(nn.ReLU, depth=1)(), nn.Dropout(rate))  # type: ignore[misc]

    patient = patient_for(lambda: build(0.3), (INPUTS, CLASSES))
    (finding,) = suspicions(patient)
    assert (finding.cause, finding.layers) == ("dropout_misuse", ("3",))
    assert finding.change is not None
    assert isinstance(finding.change(patient.setup).model()[3], nn.Identity)  # type: ignore[index]
    assert not list(suspicions(patient_for(lambda: build(0.0), (INPUTS, CLASSES))))


def test_a_share_to_keep_given_as_the_share_to_drop_is_turned_round(patient_for: Patients) -> None:
    patient = patient_for(chain(nn.ReLU, dropping(0.8), depth=1), (INPUTS, CLASSES))
    (finding,) = suspicions(patient)
    assert finding.change is not None
    drop = finding.change(patient.setup).model()[2]  # type: ignore[index]
    assert drop.p == pytest.approx(0.2)  # type: ignore[union-attr]
