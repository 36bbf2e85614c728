"""Tests of the depth as parts, and of rates that fall from the head to the stem."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ModelError
from leadline.models.create import create_model, list_models
from leadline.optim.depth import decay_by_depth, depth_parts
from leadline.optim.optimizers import OptimizerOptions, make_optimizer

WHOLE = [name for name in list_models() if name != "resnet1202"]


def test_a_residual_network_has_a_stem_its_blocks_and_a_head() -> None:
    model = create_model("resnet20", num_classes=10, width=4)
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    parts = depth_parts(model)
    assert [part.name for part in parts] == ["conv1", *blocks, "linear"]
    assert parts[0].names == ("conv1", "bn1")


def test_a_network_inside_another_is_looked_into() -> None:
    wrapped = nn.ModuleDict({"backbone": create_model("resnet20", width=4)})
    model = nn.Module()
    model.backbone, model.probe = wrapped["backbone"], nn.Linear(16, 2)
    names = [part.name for part in depth_parts(model)]
    assert names[0] == "backbone.conv1"
    assert names[-1] == "probe"
    assert len(names) == 12


def test_what_the_model_holds_itself_belongs_to_the_first_part() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model.register_parameter("token", nn.Parameter(torch.zeros(2)))
    assert any(p is model.token for p in depth_parts(model)[0].parameters)


@pytest.mark.parametrize("name", WHOLE)
def test_every_parameter_is_in_one_part_and_the_head_is_the_last(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=3, width=8)
    parts = depth_parts(model)
    held = [id(parameter) for part in parts for parameter in part.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert model.heads[0] in parts[-1].names  # type: ignore[union-attr, operator]
    assert len(parts) > 2


def test_tied_parameters_belong_to_the_first_that_has_them() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    model[2].weight = model[0].weight
    assert [len(part.parameters) for part in depth_parts(model)] == [1, 0]


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ModelError, match="received a ReLU without"):
        depth_parts(nn.ReLU())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_rates_fall_from_the_head_to_the_stem_by_the_factor(optimizer: str) -> None:
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=3, width=4)
    plain = make_optimizer(model, OptimizerOptions(optimizer=optimizer, lr=0.5))
    rates = {id(p): group["lr"] for group in plain.param_groups for p in group["params"]}
    decayed = make_optimizer(model, OptimizerOptions(optimizer=optimizer, lr=0.5, layer_decay=0.8))
    found = {id(p): group["lr"] for group in decayed.param_groups for p in group["params"]}
    parts = depth_parts(model)
    for index, part in enumerate(parts):
        for parameter in part.parameters:
            expected = rates[id(parameter)] * 0.8 ** (len(parts) - 1 - index)
            assert found[id(parameter)] == pytest.approx(expected)
    assert decayed.param_groups[0]["lr"] == max(g["lr"] for g in decayed.param_groups)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "muon"])
def test_a_step_moves_every_parameter_by_its_own_rate(optimizer: str) -> None:
    def moved(layer_decay: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        options = OptimizerOptions(
            optimizer=optimizer, lr=0.1, weight_decay=0.0, layer_decay=layer_decay
        )
        made = make_optimizer(model, options)
        model(torch.ones(2, 4)).square().sum().backward()
        made.step()
        return {name: p.detach() - before[name] for name, p in model.named_parameters()}

    once, decayed = moved(1.0), moved(0.5)
    for name, change in decayed.items():
        torch.testing.assert_close(
            change, once[name] * 0.5 ** (3 - int(name[0])), rtol=2e-3, atol=1e-6
        )


def test_a_state_of_decayed_rates_is_loaded_into_a_new_optimizer() -> None:
    model = create_model("resnet20", num_classes=3, width=4)
    options = OptimizerOptions(optimizer="adamw", lr=1e-3, layer_decay=0.5)
    first, second = make_optimizer(model, options), make_optimizer(model, options)
    second.load_state_dict(first.state_dict())
    assert [g["lr"] for g in second.param_groups] == [g["lr"] for g in first.param_groups]


def test_decay_keeps_the_groups_without_weight_decay_apart() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = make_optimizer(model, OptimizerOptions(weight_decay=0.1, layer_decay=0.5))
    found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [(0.1, 0.1), (0.1, 0.0), (0.05, 0.1), (0.05, 0.0)]
    decay_by_depth(optimizer, model, factor=1.0)
    assert len(optimizer.param_groups) == 4
