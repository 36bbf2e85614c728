"""Tests of the normalisation faults: statistics of too few values, or broken for evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from leadline.doctor.check import check


@pytest.mark.parametrize("examples", [2, 3])
def test_a_batch_norm_over_two_or_three_values_subtracts_chance(
    verdict: Any, examples: int
) -> None:
    network = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))
    few = torch.randn(examples, 20), torch.arange(examples)
    many = torch.randn(32, 20), torch.arange(32) % 5
    assert verdict(network, few, nn.CrossEntropyLoss()) == ["warning batch_size_too_small"]
    assert verdict(network, many, nn.CrossEntropyLoss()) == []


def test_a_batch_norm_of_a_single_picture_is_small_where_the_picture_ends(
    verdict: Any, conv_net: Any
) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=4, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    one = torch.randn(2, 3, 8, 8), torch.arange(2)
    many = torch.randn(16, 3, 8, 8), torch.arange(16) % 5
    assert verdict(network, one, nn.CrossEntropyLoss()) == ["warning batch_size_too_small"]
    assert check(network, one, nn.CrossEntropyLoss()).findings[0].layers[-1] == "4"
    assert verdict(network, many, nn.CrossEntropyLoss()) == []


def test_a_batch_norm_over_the_pixels_of_two_pictures_has_enough(
    verdict: Any, conv_net: Any, images: Any
) -> None:
    inputs, labels = images
    assert verdict(conv_net(), (inputs[:2], labels[:2]), nn.CrossEntropyLoss()) == []


def test_one_example_and_a_batch_norm_behind_pooling_fails_and_names_the_layer(
    conv_net: Any,
) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    batch = torch.randn(1, 4), torch.zeros(1, dtype=torch.long)
    with pytest.raises(Exception, match="BatchNorm1d '1'"):
        check(network, batch, nn.CrossEntropyLoss())


def test_a_momentum_of_0_never_updates_the_statistics(
    verdict: Any, conv_net: Any, images: Any
) -> None:
    network = conv_net()
    network[1].momentum = 0.0
    assert verdict(network, images, nn.CrossEntropyLoss()) == ["error norm_eval_stats_broken"]
    assert check(network, images, nn.CrossEntropyLoss()).findings[0].layers == ("1",)
    network[1].momentum = None  # the plain mean over all batches
    assert verdict(network, images, nn.CrossEntropyLoss()) == []


def test_statistics_that_do_not_fit_the_data_show_in_evaluation_mode(
    verdict: Any, conv_net: Any, images: Any
) -> None:
    network = conv_net().train()
    inputs, labels = images
    loss = nn.CrossEntropyLoss()
    for _ in range(60):
        network(inputs)
    assert verdict(network, (inputs, labels), loss) == []
    network[1].running_var.fill_(1e-6)  # as after a network whose inputs had another scale
    assert verdict(network, (inputs, labels), loss) == ["warning norm_eval_stats_broken"]


def test_a_fresh_network_is_not_blamed_for_statistics_it_has_not_seen(
    verdict: Any, conv_net: Any, images: Any
) -> None:
    network = conv_net()
    network[1].running_var.fill_(1e-6)
    assert verdict(network, images, nn.CrossEntropyLoss()) == []
