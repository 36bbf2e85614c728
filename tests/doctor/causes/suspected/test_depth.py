"""Tests of the suspicions about depth: who is accused, who is not, and that both remedies work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.seeds import seed_everything
from leadline.doctor.causes.suspected.depth import suspicions
from leadline.doctor.finding import Finding
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.setup import Setup
from leadline.training.state import TrainingState

Patients = Callable[..., Any]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def plain(activation: Any = nn.ReLU, *, layers: int = 20, width: int = 48) -> nn.Module:
    """Dense layers, drawn as torch draws them, with biases."""
    inner = [layer for _ in range(layers) for layer in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(64, width), activation(), *inner, nn.Linear(width, 10))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(64, 32)
        self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(20))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = x + functional.relu(block(x)) / 20**0.5
        return self.head(x)


class Attentive(nn.Module):
    """Attention and an MLP behind norms, without residual paths."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        h, _ = self.attention(h, h, h, need_weights=False)
        return self.mlp(self.norm2(h))


class Rows(nn.Module):
    """The pixels' rows as positions: 8 tokens of 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 16)
        self.blocks = nn.Sequential(*(Attentive() for _ in range(16)))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.enter(x.view(-1, 8, 8))).mean(1))


def he_drawn() -> nn.Module:
    model = plain()
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def test_a_deep_plain_network_is_suspected_with_two_remedies(
    patient_for: Patients, digits: Any
) -> None:
    found = list(suspicions(patient_for(plain, digits)))
    assert [f.cause for f in found] == ["layer_missing", "init_bad_scale"]
    assert all(f.severity == "note" and not f.proven and f.source for f in found)
    assert all(f.layers == ("2", "40") and f.change is not None for f in found)
    blocks, kept, gone = (entry.measured for entry in found[0].evidence)
    assert blocks == 20
    assert isinstance(kept, float)
    assert kept < 1e-6
    assert isinstance(gone, float)
    assert gone < 12


def test_attention_that_makes_positions_alike_is_suspected(
    patient_for: Patients, digits: Any
) -> None:
    found = list(suspicions(patient_for(Rows, digits)))
    assert [f.cause for f in found] == ["layer_missing", "init_bad_scale"]
    assert "positions look alike" in found[0].summary
    idle = found[0].evidence[-1]
    assert idle.quantity.startswith("gradient of queries and keys")
    assert isinstance(idle.measured, float)
    assert idle.measured < 1e-4


def test_an_activation_that_allows_no_rotation_leaves_one_remedy(
    patient_for: Patients, digits: Any
) -> None:
    found = suspicions(patient_for(lambda: plain(nn.Sigmoid), digits))
    assert [f.cause for f in found] == ["layer_missing"]


@pytest.mark.parametrize(
    "healthy",
    [
        Residual,
        he_drawn,
        lambda: plain(layers=8),
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            *(
                layer
                for i in range(8)
                for layer in (nn.Conv2d(16 if i else 1, 16, 3, padding=1), nn.ReLU())
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        ),
    ],
    ids=["residual paths", "He's rule", "8 layers", "8 convolutions"],
)
def test_a_network_that_carries_its_signal_is_not_suspected(
    patient_for: Patients, digits: Any, healthy: Any
) -> None:
    assert list(suspicions(patient_for(healthy, digits))) == []


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_each_remedy_alone_lets_a_network_of_thirty_layers_learn(
    patient_for: Patients, setup_of: Callable[..., Setup], digits: Any, activation: Any
) -> None:
    def build() -> nn.Module:
        return plain(activation, layers=30)

    found = list(suspicions(patient_for(build, digits)))
    setup = setup_of(build, digits, lr=1e-3, epochs=8)
    assert _loss(setup) > 2.0  # ln 10 = 2.303: it knows next to nothing
    assert len(found) == 2
    for finding in found:
        assert finding.change is not None
        assert _loss(finding.change(setup)) < 0.5, finding.cause


def test_nothing_is_said_of_a_network_whose_loss_cannot_be_computed(
    patient_for: Patients, digits: Any
) -> None:
    patient = patient_for(plain, digits)
    patient.checked = type(patient.checked)(checkup=patient.checked.checkup, seen=None)
    nothing: Iterator[Finding] = suspicions(patient)
    assert list(nothing) == []


def _loss(setup: Setup) -> float:
    seed_everything(setup.seed)
    execution = Execution()
    state = TrainingState(setup, execution)
    losses = [float(step.loss) for step in steps(setup, execution, state=state)]
    return sum(losses[-10:]) / 10
