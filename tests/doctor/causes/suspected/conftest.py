"""Patients for the suspicions: small trainings, diagnosed for as short as can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.finding import Finding
from leadline.doctor.patient import Patient
from leadline.training.setup import Setup


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """1,024 pictures of 8 by 8 pixels as 64 numbers from 0 to 1, and which digit each shows."""
    data = load_digits()
    images = torch.tensor(data.data[:1024], dtype=torch.float32) / 16
    return images, torch.tensor(data.target[:1024])


@pytest.fixture
def setup_of() -> Callable[..., Setup]:
    """A Setup from a model factory and one pair of tensors, in batches of 32."""

    def make(model: Callable[[], nn.Module], data: tuple[Tensor, Tensor], **changes: Any) -> Setup:
        pairs = list(zip(data[0].split(32), data[1].split(32), strict=True))
        rate = changes.pop("lr", 1e-2)
        given = {
            "loss": functional.cross_entropy,
            "optimizer": lambda network: torch.optim.Adam(network.parameters(), lr=rate),
            "batches": pairs,
            "epochs": 3,
            **changes,
        }
        return Setup(model=model, **given)

    return make


@pytest.fixture
def patient_for(setup_of: Callable[..., Setup]) -> Callable[..., Patient]:
    """The patient of such a Setup, whose trials are short."""

    def make(
        model: Callable[[], nn.Module], data: tuple[Tensor, Tensor], **changes: Any
    ) -> Patient:
        return Patient(setup_of(model, data, **changes), seconds=6)

    return make


@pytest.fixture
def named() -> Callable[[Iterator[Finding]], list[str]]:
    """Findings as words: `["error labels_shifted"]`; each must say what it is and what helps."""

    def name(findings: Iterator[Finding]) -> list[str]:
        every = list(findings)
        assert all(f.summary and f.evidence and f.remedy and f.source for f in every)
        return [f"{finding.severity} {finding.cause}" for finding in every]

    return name
