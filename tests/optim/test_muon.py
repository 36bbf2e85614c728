"""Muon with AdamW against torch's own two and against Newton-Schulz written out."""

import copy

import pytest
import torch
from torch import Tensor, nn

from leadline.core.errors import ModelError
from leadline.optim.muon import (
    ADAMW_LR_SCALE,
    MuonAdamW,
    as_matrix,
    make_muon,
    memory_order,
    split_parameters,
)


class SmallNet(nn.Module):
    """Input kernel, hidden kernels (plain and grouped), norm, hidden matrix, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(6, 6, 3, groups=6)
        self.mix = nn.Linear(6, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.hidden(self.norm(self.stem(x)).relu()).relu())
        return self.head(self.mix(x.mean((2, 3))).relu())


def network() -> SmallNet:
    torch.manual_seed(0)
    return SmallNet()


def muon_for(model: nn.Module, **changes) -> MuonAdamW:
    options = {
        "lr": 0.01,
        "momentum": 0.9,
        "nesterov": True,
        "betas": (0.9, 0.99),
        "eps": 1e-8,
        "weight_decay": 0.1,
        "fused": True,
    }
    return make_muon(model, **{**options, **changes})


def train(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        inputs = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def newton_schulz(matrix: Tensor) -> Tensor:
    """Five quintic steps in float64, the coefficients from Jordan's text."""
    x = matrix.double()
    tall = x.shape[0] > x.shape[1]
    x = (x.T if tall else x) / x.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


def test_hidden_matrices_go_to_muon_and_all_else_to_adamw():
    hidden, others = split_parameters(network())
    assert [entry.name for entry in hidden] == ["hidden.weight", "mix.weight"]
    assert {entry.name for entry in others} == {
        "stem.weight",
        "stem.bias",
        "norm.weight",
        "norm.bias",
        "grouped.weight",
        "grouped.bias",
        "mix.bias",
        "head.weight",
        "head.bias",
    }


def test_an_embedding_counts_as_the_input_layer():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 9))
    assert [entry.name for entry in split_parameters(model)[0]] == ["1.weight", "2.weight"]


def test_a_position_table_of_three_dimensions_is_neither_matrix_nor_end():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
    model.register_parameter("position", nn.Parameter(torch.zeros(1, 7, 3)))
    assert [entry.name for entry in split_parameters(model)[0]] == ["1.weight"]


def test_matrices_of_one_row_or_column_are_vectors():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1), nn.Linear(1, 3), nn.Linear(3, 3))
    assert split_parameters(model)[0] == []


def test_a_linear_layer_moves_exactly_as_under_torch():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(7, 5, bias=False), nn.Linear(7, 5, bias=False)
    theirs.load_state_dict(ours.state_dict())
    optimizer = MuonAdamW(
        muon_groups=[{"params": [ours.weight]}], lr=0.02, momentum=0.9, weight_decay=0.1
    )
    oracle = torch.optim.Muon(
        theirs.parameters(),
        lr=0.02,
        momentum=0.9,
        weight_decay=0.1,
        adjust_lr_fn="match_rms_adamw",
    )
    for _ in range(5):
        ours.weight.grad = torch.randn(5, 7)
        theirs.weight.grad = ours.weight.grad.clone()
        optimizer.step()
        oracle.step()
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (20, 2, 2, 2), (5, 8, 1, 1)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_a_kernel_moves_as_newton_schulz_on_its_matrix_says(layout, shape, nesterov: bool):
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape).to(memory_format=layout))
    optimizer = MuonAdamW(
        muon_groups=[{"params": [kernel]}],
        lr=0.1,
        momentum=0.9,
        nesterov=nesterov,
        weight_decay=0.2,
    )
    matrix = kernel.detach().double().flatten(1)
    momentum = torch.zeros_like(matrix)
    for _ in range(3):
        kernel.grad = torch.randn(shape).to(memory_format=layout)
        gradient = kernel.grad.double().flatten(1)
        momentum = 0.9 * momentum + 0.1 * gradient
        direction = 0.1 * gradient + 0.9 * momentum if nesterov else momentum
        matrix = matrix * (1 - 0.1 * 0.2)
        matrix -= 0.1 * 0.2 * max(matrix.shape) ** 0.5 * newton_schulz(direction)
        optimizer.step()
    # torch iterates in bfloat16: 8 bits, five times over
    torch.testing.assert_close(kernel.detach().double().flatten(1), matrix, rtol=0, atol=0.01)


def test_the_gradient_may_lie_in_another_layout_than_the_kernel():
    torch.manual_seed(0)
    start, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    moved = []
    for layout in (torch.contiguous_format, torch.channels_last):
        kernel = nn.Parameter(start.clone().to(memory_format=torch.channels_last))
        optimizer = MuonAdamW(muon_groups=[{"params": [kernel]}], lr=0.1)
        kernel.grad = gradient.clone().to(memory_format=layout)
        optimizer.step()
        moved.append(kernel.detach())
    assert torch.equal(moved[0], moved[1])


def test_the_matrix_of_a_kernel_shares_its_storage_in_both_layouts():
    for layout in (torch.contiguous_format, torch.channels_last):
        kernel = torch.randn(4, 3, 2, 2).to(memory_format=layout)
        matrix = as_matrix(kernel, memory_order(kernel))
        matrix.zero_()
        assert matrix.shape == (4, 12)
        assert kernel.count_nonzero() == 0


def test_the_other_parameters_move_exactly_as_under_adamw():
    model = network()
    oracle_model = copy.deepcopy(model)
    names = {entry.name for entry in split_parameters(model)[1]}
    optimizer = muon_for(model)
    decayed = {"stem.weight", "grouped.weight", "head.weight"}
    parameters = dict(oracle_model.named_parameters())
    oracle = torch.optim.AdamW(
        [
            {"params": [parameters[n] for n in names & decayed], "weight_decay": 0.1},
            {"params": [parameters[n] for n in names - decayed], "weight_decay": 0.0},
        ],
        lr=0.01 * ADAMW_LR_SCALE,
        betas=(0.9, 0.99),
        fused=True,
    )
    for _ in range(3):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            parameters[name].grad = parameter.grad.clone()
        optimizer.step()
        oracle.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, parameters[name]) == (name in names)


def test_a_model_of_two_layers_is_trained_by_adamw_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(75, 4), nn.Linear(4, 2))
    optimizer = muon_for(model)
    assert {group["method"] for group in optimizer.param_groups} == {"adamw"}
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, range(1))
    assert not torch.equal(before["1.weight"], model[1].weight)


def test_a_parameter_without_a_gradient_is_left_alone():
    model = network()
    optimizer = muon_for(model)
    model.hidden.weight.grad = torch.ones_like(model.hidden.weight)
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"hidden.weight"}


def test_the_state_has_the_shapes_and_layouts_of_the_parameters():
    model = network().to(memory_format=torch.channels_last)
    optimizer = muon_for(model)
    train(model, optimizer, range(2))
    momentum = optimizer.state[model.hidden.weight]["momentum_buffer"]
    assert momentum.shape == model.hidden.weight.shape
    assert momentum.stride() == model.hidden.weight.stride()


def test_changing_the_memory_layout_midway_keeps_the_direction_of_the_momentum():
    models = [network(), network()]
    optimizers = [muon_for(model, fused=False) for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, range(2))
    models[1].to(memory_format=torch.channels_last)
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, range(2, 4))
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=3e-3)  # bfloat16 sums in another order


def test_zero_grad_and_a_closure_work_as_in_any_optimizer():
    model = network()
    optimizer = muon_for(model)

    def closure() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = model(torch.ones(2, 3, 5, 5)).square().mean()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) > 0
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_copied_optimizer_with_its_model_goes_on_by_itself():
    model = network()
    optimizer = muon_for(model)
    train(model, optimizer, range(2))
    model_copy, optimizer_copy = copy.deepcopy((model, optimizer))
    train(model, optimizer, range(2, 4))
    train(model_copy, optimizer_copy, range(2, 4))
    for a, b in zip(model.parameters(), model_copy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ModelError, match="no parameters at all"):
        muon_for(nn.ReLU())
