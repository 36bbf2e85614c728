"""A user's own loop in plain PyTorch that never clears the gradient (Stack Overflow 60335387).

The two functions `without_zero_grad` and `with_zero_grad` differ in that one line.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from case import Case, pick
from score import accuracy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from data import Examples, mnist
from leadline.training.execution import Execution

MEAN, STD = 0.1307, 0.3081
FLOAT32 = Execution(threads=1)


class Net(nn.Module):
    """The program's network, with its layers and its forward pass as published."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(x))
        x = self.pool(self.conv2(x))
        x = torch.flatten(x, 1)
        x = torch.relu(self.fc1(x))
        return self.fc2(x)


def without_zero_grad(seed: int, *, lr: float) -> Callable[[], nn.Module]:
    """The program as asked about."""

    def main() -> nn.Module:
        torch.manual_seed(seed)
        train_loader, val_loader = _loaders()
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        criterion = nn.CrossEntropyLoss()
        for _ in range(_epochs()):
            model.train()
            for images, labels in train_loader:
                outputs = model(images)
                loss = criterion(outputs, labels)
                loss.backward()
                optimizer.step()
            evaluate(model, val_loader)
        return model

    return main


def with_zero_grad(seed: int, *, lr: float) -> Callable[[], nn.Module]:
    """The program as answered."""

    def main() -> nn.Module:
        torch.manual_seed(seed)
        train_loader, val_loader = _loaders()
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        criterion = nn.CrossEntropyLoss()
        for _ in range(_epochs()):
            model.train()
            for images, labels in train_loader:
                optimizer.zero_grad()
                outputs = model(images)
                loss = criterion(outputs, labels)
                loss.backward()
                optimizer.step()
            evaluate(model, val_loader)
        return model

    return main


def evaluate(model: nn.Module, loader: DataLoader) -> float:
    """The share of right answers, as such loops compute it."""
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in loader:
            predicted = model(images).argmax(dim=1)
            correct += (predicted == labels).sum().item()
            total += len(labels)
    return correct / total


def missing_zero_grad(name: str, lr: float) -> Callable[[], Case]:
    """The case at one learning rate."""

    def make() -> Case:
        return Case(
            name=name,
            origin="real",
            faults=("zero_grad_missing",),
            buggy=lambda seed: without_zero_grad(seed, lr=lr),
            fixed=lambda seed: with_zero_grad(seed, lr=lr),
            score=accuracy(_normalised("test", pick(quick=1000, full=10_000)), FLOAT32),
            higher_is_better=True,
            metric="accuracy",
            execution=FLOAT32,
            notes=f"a plain loop at lr {lr}",
        )

    return make


def _loaders() -> tuple[DataLoader, DataLoader]:
    train = _normalised("train", pick(quick=2500, full=60_000))
    border = len(train) * 9 // 10
    parts = (TensorDataset(part.inputs, part.targets) for part in (train[:border], train[border:]))
    train_data, val_data = parts
    return (
        DataLoader(train_data, batch_size=30, shuffle=True),
        DataLoader(val_data, batch_size=200),
    )


def _epochs() -> int:
    return pick(quick=2, full=10)


def _normalised(split: str, count: int) -> Examples:
    digits = mnist(split, count=count)
    return Examples(inputs=(digits.inputs - MEAN) / STD, targets=digits.targets)


CASES = (
    missing_zero_grad("tc-so60335387", 1e-4),
    missing_zero_grad("tc-so60335387-low-rate", 1e-5),
)
