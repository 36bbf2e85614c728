"""Tests of the initialisation faults: constants, scales that vanish or explode, a sure start."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from leadline.doctor.check import check


def weights_of(network: nn.Module, gain: float) -> nn.Module:
    """Normal weights of variance gain² / fan-in, biases 0."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(std=gain / math.sqrt(module.in_features))
                module.bias.zero_()
    return network


@pytest.mark.parametrize("value", [0.5, 0.01])
def test_weights_that_begin_alike_stay_alike(
    verdict: Any, mlp: Any, rows: Any, value: float
) -> None:
    network = mlp()
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []
    with torch.no_grad():
        network[2].weight.fill_(value)
    found = verdict(network, rows, nn.CrossEntropyLoss())
    assert found[0] == "error init_constant"
    assert len(found) == 1
    assert check(network, rows, nn.CrossEntropyLoss()).findings[0].layers == ("2.weight",)


def test_weights_that_are_all_0_hear_no_gradient(verdict: Any, mlp: Any, rows: Any) -> None:
    network = mlp()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert verdict(network, rows, nn.CrossEntropyLoss()) == ["error init_constant"]


def test_a_last_layer_of_zeros_is_a_good_start(
    verdict: Any, mlp: Any, rows: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    network = mlp()
    nn.init.zeros_(network[-1].weight)
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []
    model = gpt()
    for block in model.blocks:  # so begin residual branches that must not disturb
        nn.init.zeros_(block.project.weight)
        nn.init.zeros_(block.down.weight)
    assert verdict(model, text, language_loss) == []


def test_a_deep_net_that_begins_too_weak_hears_nothing_and_he_mends_it(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp(depth=30)
    weak = verdict(weights_of(network, 0.5), rows, nn.CrossEntropyLoss())
    assert weak == ["error init_bad_scale"]
    right = weights_of(network, math.sqrt(2))
    assert verdict(right, rows, nn.CrossEntropyLoss()) == []


def test_a_deep_net_of_torchs_default_weights_without_norms_is_named(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    found = verdict(mlp(depth=30), rows, nn.CrossEntropyLoss())
    assert found in (["error norm_missing"], ["warning norm_missing"], ["error init_bad_scale"])


def test_a_deep_net_that_begins_too_strong_is_a_bad_scale(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    strong = weights_of(mlp(depth=20), 4.0)
    found = verdict(strong, rows, nn.CrossEntropyLoss())
    assert found[0].endswith("init_bad_scale")
    assert set(found) <= {"error init_bad_scale", "warning init_bad_scale"}


def test_a_deep_tanh_net_at_the_edge_of_chaos_is_healthy(verdict: Any, mlp: Any, rows: Any) -> None:
    network = weights_of(mlp(depth=12, activation=nn.Tanh), 1.0)
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []


def test_a_network_that_is_sure_and_wrong_at_the_start_is_told(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp()
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []
    with torch.no_grad():
        network[-1].weight.mul_(300)
    assert verdict(network, rows, nn.CrossEntropyLoss()) == ["warning init_bad_scale"]
    finding = check(network, rows, nn.CrossEntropyLoss()).findings[0]
    assert "ln 5 = 1.61" in finding.evidence[0].expected


def test_the_start_of_a_sum_is_that_of_all_targets(verdict: Any, mlp: Any, rows: Any) -> None:
    found = verdict(mlp(), rows, nn.CrossEntropyLoss(reduction="sum"))
    assert found == ["warning loss_reduction_wrong"]


@pytest.mark.parametrize("depth", [8, 20])
def test_tiny_weights_beside_ordinary_biases_are_a_bad_scale_and_not_dead_units(
    mlp: Any, rows: Any, depth: int
) -> None:
    network = mlp(depth=depth)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(std=0.01)
    findings = check(network, rows, nn.CrossEntropyLoss()).findings
    assert findings[0].cause == "init_bad_scale"
    assert "hidden_activation_wrong" not in {finding.cause for finding in findings}
