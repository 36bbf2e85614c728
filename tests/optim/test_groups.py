"""Which parameters decay."""

import pytest
import torch
from torch import nn

from leadline.core.errors import ModelError
from leadline.optim.groups import parameter_groups


class Everything(nn.Module):
    """A kernel, norms with scales of one and of three dimensions, a table, a scalar, a 2-D bias."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.map_norm = nn.LayerNorm([2, 4, 4])
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 2)
        self.bias = nn.Parameter(torch.zeros(2, 2))


def names_by_decay(model: nn.Module, weight_decay: float = 0.1) -> dict[float, set[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        group["weight_decay"]: {names[id(p)] for p in group["params"]}
        for group in parameter_groups(model, weight_decay=weight_decay)
    }


def test_matrices_kernels_and_embeddings_decay_and_nothing_else():
    assert names_by_decay(Everything()) == {
        0.1: {"conv.weight", "embedding.weight", "head.weight"},
        0.0: {
            "gain",
            "conv.bias",
            "norm.weight",
            "norm.bias",
            "map_norm.weight",
            "map_norm.bias",
            "head.bias",
            "bias",
        },
    }


def test_frozen_parameters_are_left_out_and_empty_groups_with_them():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert names_by_decay(model) == {0.1: {"weight"}}


def test_a_tied_parameter_appears_once():
    model = nn.ModuleDict({"table": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    model["head"].weight = model["table"].weight
    (group,) = parameter_groups(model, weight_decay=0.1)
    assert len(group["params"]) == 1


def test_every_trainable_parameter_is_in_exactly_one_group():
    model = Everything()
    grouped = [id(p) for g in parameter_groups(model, weight_decay=0.1) for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_a_model_without_parameters_says_what_to_do():
    with pytest.raises(
        ModelError, match=r"received ReLU with no parameters at all(.|\n)*ModuleList"
    ):
        parameter_groups(nn.ReLU(), weight_decay=0.1)


def test_a_frozen_model_says_what_to_do():
    model = nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(
        ModelError, match=r"2 parameters are all frozen(.|\n)*requires_grad_\(True\)"
    ):
        parameter_groups(model, weight_decay=0.1)
