"""Tests of the suspicions about labels: how many were drawn by chance, and whether any belong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor, nn

from leadline.doctor.causes.suspected.labels import (
    SUREST,
    corrupted,
    last_choices,
    neighbours_agree,
    neighbours_vote,
)
from leadline.doctor.problem import Verdict

Patients = Callable[..., Any]


def clusters(count: int = 1200, classes: int = 6, *, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Examples about one point for each class."""
    generator = torch.Generator().manual_seed(3)
    centres = 2 * torch.randn(classes, 8, generator=generator)
    labels = torch.randint(0, classes, (count,), generator=generator)
    noise = torch.randn(count, 8, generator=generator)
    return centres[labels] + spread * noise, labels


def drawn_anew(labels: Tensor, share: float, classes: int = 6) -> Tensor:
    """The labels, of which this share is drawn by chance."""
    generator = torch.Generator().manual_seed(4)
    chosen = torch.rand(len(labels), generator=generator) < share
    return torch.where(
        chosen, torch.randint(0, classes, (len(labels),), generator=generator), labels
    )


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 6))


# ------------------------------------------------------------------------------------ the estimate


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("classes", [6, 9, 10])
def test_the_last_third_of_choices_estimates_the_share_drawn_by_chance(
    share: float, classes: int
) -> None:
    labels = torch.arange(20_000) % classes
    outputs = 10 * nn.functional.one_hot(labels, classes) + torch.randn(20_000, classes)
    estimate, _, looked = last_choices(outputs, drawn_anew(labels, share, classes))
    assert looked == int(SUREST * 20_000)
    assert estimate == pytest.approx(share, abs=0.03)


def test_classes_that_look_alike_are_not_taken_for_chance() -> None:
    """Half of the labels are those of the second choice: none is among the last."""
    labels = torch.arange(2000) % 6
    outputs = 5.0 * nn.functional.one_hot(labels, 6)
    outputs += 4.0 * nn.functional.one_hot((labels + 1) % 6, 6) + 0.01 * torch.randn(2000, 6)
    alike = torch.where(torch.arange(2000) % 2 == 0, labels, (labels + 1) % 6)
    assert last_choices(outputs, alike)[0] == 0.0


def test_probabilities_are_ranked_as_their_logits() -> None:
    outputs = torch.randn(600, 6) * 3
    labels = torch.randint(0, 6, (600,))
    logits = outputs.log_softmax(dim=1)
    assert last_choices(logits, labels) == last_choices(logits.exp(), labels)


def test_ignored_labels_are_left_out() -> None:
    outputs = 9.0 * torch.eye(6)[torch.arange(600) % 6] + 0.01 * torch.rand(600, 6)
    labels = torch.where(torch.arange(600) % 2 == 0, torch.arange(600) % 6, -100)
    assert 0 < last_choices(outputs, labels)[2] < SUREST * 600
    assert last_choices(outputs, torch.full((600,), -100))[2] == 0


# ---------------------------------------------------------------------------------- the neighbours


def test_the_neighbours_are_those_of_scikit_learn() -> None:
    rows, labels = clusters(300, spread=1.5)
    found = NearestNeighbors(n_neighbors=6).fit(rows.numpy()).kneighbors(rows.numpy())
    distances, indices = (torch.from_numpy(part[:, 1:]) for part in found)
    agree, chance, near = neighbours_agree(rows, labels)
    assert agree == pytest.approx(
        float((labels[indices] == labels[:, None]).float().mean()), abs=0.01
    )
    assert chance == pytest.approx(float((labels.bincount() / 300.0).square().sum()))
    typical = torch.cdist(rows, rows).sum() / (300 * 299)
    assert near == pytest.approx(float(distances.mean() / typical), rel=1e-2)


def test_identical_rows_are_no_distance_apart() -> None:
    agree, _, near = neighbours_agree(torch.ones(20, 3), torch.arange(20) % 2)
    assert near == 1.0 and 0 <= agree <= 1


def test_the_votes_are_those_of_scikit_learn() -> None:
    rows, labels = clusters(200)
    classifier = KNeighborsClassifier(n_neighbors=31).fit(rows, labels)
    expected = classifier.predict_proba(rows) * 31 - nn.functional.one_hot(labels, 6).numpy()
    assert neighbours_vote(rows, labels, 6).numpy() == pytest.approx(expected)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.7])
def test_votes_of_sound_labels_have_no_last_choices_and_others_do(share: float) -> None:
    rows, labels = clusters(2000, classes=9)
    shown = drawn_anew(labels, share, 9)
    estimate, _, looked = last_choices(neighbours_vote(rows, shown, 9), shown, right=0.2)
    assert looked == 800
    assert estimate == 0 if share == 0 else share / 3 < estimate < share + 0.1


# ------------------------------------------------------------------------------------ the diagnosis


@pytest.mark.parametrize(
    ("share", "severity", "count"),
    [(0.0, None, 1200), (0.25, "warning", 5000), (0.5, "error", 1200), (0.7, "error", 1200)],
)
def test_labels_drawn_by_chance_are_found(
    patient_for: Patients, share: float, severity: str | None, count: int
) -> None:
    inputs, labels = clusters(count)
    patient = patient_for(network, (inputs, drawn_anew(labels, share)))
    finding = corrupted(patient, patient.arm())
    assert (finding and finding.severity) == severity
    if finding is not None:
        assert finding.cause == "label_corrupted" and finding.proven
        assert finding.evidence[0].measured == pytest.approx(share, abs=0.15)


def test_where_a_network_learns_too_little_the_neighbours_are_asked(
    patient_for: Patients,
) -> None:
    """30 inputs of noise beside the 8 that tell the classes: half the examples teach it nothing."""
    inputs, labels = clusters(2000)
    noise = 0.3 * torch.randn(2000, 30, generator=torch.Generator().manual_seed(6))
    rows = torch.cat([inputs, noise], dim=1)

    def wide() -> nn.Module:
        return nn.Sequential(nn.Linear(38, 256), nn.ReLU(), nn.Linear(256, 6))

    patient = patient_for(wide, (rows, drawn_anew(labels, 0.8)), epochs=30)
    finding = corrupted(patient, patient.arm())
    assert finding is not None and finding.severity == "error"
    sound = patient_for(wide, (rows, labels), epochs=30)
    assert corrupted(sound, sound.arm()) is None


def test_labels_of_other_examples_are_found_by_their_neighbours(patient_for: Patients) -> None:
    inputs, labels = clusters()
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
    patient = patient_for(network, (inputs, mixed))
    finding = corrupted(patient, patient.arm())
    assert finding is not None
    assert (finding.cause, finding.severity) == ("label_corrupted", "error")
    assert "nearest neighbours" in finding.summary


def test_labels_known_by_heart_and_of_no_use_to_others_are_asked_of_the_neighbours(
    patient_for: Patients,
) -> None:
    inputs, labels = clusters()
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
    patient = patient_for(network, (inputs, mixed))
    by_heart = replace(
        patient.arm(),
        training=Verdict(error=0.1, surprise=0.1),
        held_out=Verdict(error=1.02, surprise=1.5),
    )
    finding = corrupted(patient, by_heart)
    assert finding is not None and "nearest neighbours" in finding.summary


def test_sound_labels_of_a_training_that_fails_are_not_accused(patient_for: Patients) -> None:
    patient = patient_for(network, clusters(), lr=0.0)
    assert corrupted(patient, patient.arm()) is None


@pytest.mark.parametrize(
    "data",
    [
        (clusters(180)[0], clusters(180)[1]),  # too few
        (clusters(classes=3)[0], clusters(classes=3)[1]),  # too few classes to have last choices
    ],
)
def test_of_little_nothing_is_said(patient_for: Patients, data: Any) -> None:
    inputs, labels = data
    classes = int(labels.max()) + 1
    noise = drawn_anew(labels, 0.9, classes)
    patient = patient_for(lambda: nn.Linear(8, classes), (inputs, noise))
    assert corrupted(patient, patient.arm()) is None
