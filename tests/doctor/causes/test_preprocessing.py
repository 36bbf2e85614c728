"""Tests of the preprocessing faults: inputs that are far too large, too small or uneven."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.check import check


@pytest.fixture
def pixels() -> Tensor:
    """Pictures of numbers from 0 to 255."""
    return torch.randint(0, 256, (16, 3, 16, 16)).float()


def plain() -> nn.Sequential:
    """Two convolutions without a norm."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


LABELS = torch.arange(16) % 10


def test_raw_pixels_are_not_normalised(verdict: Any, pixels: Tensor) -> None:
    loss = nn.CrossEntropyLoss()
    assert verdict(plain(), (pixels, LABELS), loss) == ["error input_not_normalized"]
    assert verdict(plain(), (pixels / 127.5 - 1, LABELS), loss) == []
    assert verdict(plain(), (pixels / 255, LABELS), loss) == []


def test_raw_pixels_in_a_dense_net_are_not_normalised(verdict: Any, mlp: Any) -> None:
    inputs = torch.randint(0, 256, (64, 784)).float()
    labels = torch.arange(64) % 10
    network, loss = mlp(784, 10), nn.CrossEntropyLoss()
    assert verdict(network, (inputs, labels), loss) == ["error input_not_normalized"]
    assert verdict(network, (inputs / 127.5 - 1, labels), loss) == []


def test_a_moderate_scale_is_a_warning(verdict: Any, mlp: Any, rows: Any) -> None:
    inputs, labels = rows
    loss = nn.CrossEntropyLoss()
    assert verdict(mlp(), (inputs * 20, labels), loss)[0] == "warning input_not_normalized"
    assert verdict(mlp(), (inputs * 3, labels), loss) == []


def test_a_network_that_normalises_first_does_not_care(
    verdict: Any, conv_net: Any, mlp: Any, pixels: Tensor
) -> None:
    assert verdict(conv_net(), (pixels, LABELS), nn.CrossEntropyLoss()) == []
    table = torch.randn(64, 20) * 500 + 1000
    network = nn.Sequential(nn.BatchNorm1d(20), mlp())
    assert verdict(network, (table, torch.arange(64) % 5), nn.CrossEntropyLoss()) == []


def test_pixels_divided_by_255_twice_are_tiny(verdict: Any, pixels: Tensor) -> None:
    loss = nn.CrossEntropyLoss()
    assert verdict(plain(), (pixels / 255 / 255, LABELS), loss) == ["error input_double_normalized"]


def test_features_of_uneven_scale_are_a_warning(verdict: Any, mlp: Any, rows: Any) -> None:
    inputs, labels = rows
    uneven = inputs.clone()
    uneven[:, 0] *= 20
    uneven[:, 1:3] *= 0.001
    loss = nn.CrossEntropyLoss()
    assert verdict(mlp(), (uneven, labels), loss) == ["warning input_not_normalized"]
    standard = (uneven - uneven.mean(dim=0)) / uneven.std(dim=0)
    assert verdict(mlp(), (standard, labels), loss) == []


def test_tokens_are_no_inputs_to_scale(
    verdict: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    assert verdict(gpt(), text, language_loss) == []


def test_an_input_of_zeros_is_not_called_scaled_twice(verdict: Any, mlp: Any, rows: Any) -> None:
    found = verdict(mlp(), (torch.zeros(64, 20), rows[1]), nn.CrossEntropyLoss())
    assert "error input_double_normalized" not in found


def test_a_network_that_scales_its_inputs_by_itself_is_healthy(
    verdict: Any, pixels: Tensor
) -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = plain()

        def forward(self, x: Tensor) -> Tensor:
            return self.network((x - 127.5) / 73)

    assert verdict(Scales(), (pixels, LABELS), nn.CrossEntropyLoss()) == []


def test_a_batch_norm_on_the_numbers_beside_embeddings_is_healthy(verdict: Any) -> None:
    class Table(nn.Module):
        def __init__(self, *, normed: bool) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 4)
            self.numbers = nn.BatchNorm1d(5) if normed else nn.Identity()
            self.first, self.last = nn.Linear(9, 32), nn.Linear(32, 3)

        def forward(self, words: Tensor, numbers: Tensor) -> Tensor:
            x = torch.cat([self.words(words), self.numbers(numbers)], dim=1)
            return self.last(torch.relu(self.first(x)))

    inputs = torch.randint(0, 10, (64,)), torch.randn(64, 5) * 100
    batch = (*inputs, torch.arange(64) % 3)
    assert verdict(Table(normed=True), batch, nn.CrossEntropyLoss()) == []
    assert verdict(Table(normed=False), batch, nn.CrossEntropyLoss())[0] == (
        "error input_not_normalized"
    )


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss()])
def test_targets_in_the_thousands_are_not_normalised(
    verdict: Any, mlp: Any, loss: nn.Module
) -> None:
    inputs = torch.randn(64, 20)
    prices = 2e5 + 5e4 * inputs[:, :1]
    scaled = (prices - prices.mean()) / prices.std()
    network = mlp(outputs=1)
    assert verdict(network, (inputs, prices), loss) == ["warning target_not_normalized"]
    assert verdict(network, (inputs, scaled), loss) == []


def test_a_network_that_puts_out_the_scale_of_its_targets_is_healthy(
    verdict: Any, mlp: Any
) -> None:
    class Prices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp(outputs=1)

        def forward(self, x: Tensor) -> Tensor:
            return 2e5 + 5e4 * self.network(x)

    inputs = torch.randn(64, 20)
    batch = inputs, 2e5 + 5e4 * inputs[:, :1]
    assert verdict(Prices(), batch, nn.L1Loss()) == []


def test_sparse_rows_are_not_small_for_their_zeros(verdict: Any, mlp: Any) -> None:
    rows = nn.functional.one_hot(torch.arange(64) * 40, 3000).float()
    labels, loss = torch.arange(64) % 5, nn.CrossEntropyLoss()
    assert rows.square().mean().sqrt() < 0.02
    assert verdict(mlp(3000), (rows, labels), loss) == []
    assert verdict(mlp(3000), (rows * 1e-3, labels), loss) == ["warning input_double_normalized"]


def test_only_what_may_be_pixels_is_said_to_be_divided_by_255_twice(mlp: Any) -> None:
    labels, loss = torch.arange(64) % 5, nn.CrossEntropyLoss()
    pixels = torch.randint(0, 256, (64, 20)) / 255**2
    quiet = torch.randn(64, 20, generator=torch.Generator().manual_seed(0)) * 0.01
    for inputs, divided in ((pixels, True), (quiet, False), (pixels + 0.01, False)):
        (finding,) = check(mlp(), (inputs, labels), loss).findings
        assert finding.cause == "input_double_normalized"
        assert ("255" in finding.summary) == divided


def test_inputs_that_are_scaled_in_one_mode_only_are_told(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    class Scales(nn.Module):
        def __init__(self, only: bool) -> None:
            super().__init__()
            self.network, self.only = mlp(), only

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.network(x / 2 if self.training or not self.only else x)
            return answer

    loss = nn.CrossEntropyLoss()
    assert verdict(Scales(only=True), rows, loss) == ["warning preprocess_train_test_mismatch"]
    assert verdict(Scales(only=False), rows, loss) == []


class Scaled(nn.Module):
    """Pixels as bytes, made floating inside."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.network, self.scale = plain(), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.float() / self.scale)


def test_bytes_that_the_model_turns_into_large_numbers_are_found(
    verdict: Any, pixels: Tensor
) -> None:
    batch, loss = (pixels.to(torch.uint8), LABELS), nn.CrossEntropyLoss()
    assert verdict(Scaled(1.0), batch, loss) == ["error input_not_normalized"]
    assert verdict(Scaled(255.0), batch, loss) == []


class Two(nn.Module):
    """Two inputs, the second through a layer of its own behind a scale."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.a, self.b, self.end = nn.Linear(20, 16), nn.Linear(8, 16), nn.Linear(16, 5)
        self.scale = scale

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.end(torch.relu(self.a(a) + self.b(b / self.scale)))


def test_the_second_of_two_inputs_is_judged_by_itself(verdict: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(64, 20, generator=generator), torch.randn(64, 8, generator=generator)
    labels, loss = torch.arange(64) % 5, nn.CrossEntropyLoss()
    found = verdict(Two(), ((a, 200 * b), labels), loss)
    assert "error input_not_normalized" in found
    assert verdict(Two(), ((a, b), labels), loss) == []
    assert verdict(Two(scale=200), ((a, 200 * b), labels), loss) == [], "scaled by the model"
