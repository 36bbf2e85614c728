"""Tests of the faults of the loop: parameters that the optimizer or the gradient never sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint

from leadline.doctor.check import check


class Listed(nn.Module):
    """Layers in a list, of Python's or of torch's."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 32), nn.Linear(32, 5)
        self.layers = kind([nn.Linear(32, 32), nn.Linear(32, 32)])

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        for layer in self.layers:
            x = functional.relu(layer(x))
        return self.last(x)


def test_layers_in_a_plain_list_are_not_registered(verdict: Any, rows: Any) -> None:
    for kind in (list, tuple):
        assert verdict(Listed(kind), rows, nn.CrossEntropyLoss()) == ["error params_unregistered"]
    assert verdict(Listed(nn.ModuleList), rows, nn.CrossEntropyLoss()) == []
    finding = check(Listed(list), rows, nn.CrossEntropyLoss()).findings[0]
    assert "layers.0.weight" in finding.layers
    assert finding.evidence[1].measured == 4.0


def test_layers_in_a_dictionary_and_tensors_with_gradients_are_not_registered(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    class Odd(nn.Module):
        def __init__(self, *, registered: bool) -> None:
            super().__init__()
            heads = {"a": nn.Linear(20, 5), "b": nn.Linear(20, 5)}
            scale = torch.ones(5, requires_grad=True)
            self.heads = nn.ModuleDict(heads) if registered else heads
            self.scale = nn.Parameter(scale) if registered else scale
            self.trunk = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.trunk(x) + self.heads["a"](x) * self.scale + self.heads["b"](x)

    assert verdict(Odd(registered=False), rows, nn.CrossEntropyLoss()) == [
        "error params_unregistered"
    ]
    assert verdict(Odd(registered=True), rows, nn.CrossEntropyLoss()) == []


def test_a_second_list_of_registered_layers_is_healthy(verdict: Any, mlp: Any, rows: Any) -> None:
    network = mlp()
    network.linear_layers = [m for m in network if isinstance(m, nn.Linear)]
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []


def test_a_teacher_that_is_kept_out_on_purpose_is_no_error(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp()
    network.teacher = [mlp().requires_grad_(False)]  # in a list so that it is not saved along
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []


class Cut(nn.Module):
    """A network with something between its two halves."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 32), nn.Linear(32, 5)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(functional.relu(self.first(x))))


def test_a_detach_between_two_layers_cuts_the_graph(verdict: Any, rows: Any) -> None:
    loss = nn.CrossEntropyLoss()
    for between in (torch.detach, lambda x: x.data, lambda x: torch.tensor(x.tolist())):
        assert verdict(Cut(between), rows, loss) == ["error graph_cut"]
    assert verdict(Cut(lambda x: x), rows, loss) == []
    finding = check(Cut(torch.detach), rows, loss).findings[0]
    assert set(finding.layers) == {"first.weight", "first.bias"}


def test_a_loss_of_detached_outputs_cuts_the_whole_graph(verdict: Any, mlp: Any, rows: Any) -> None:
    def cut(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.detach(), targets)

    assert verdict(mlp(), rows, cut) == ["error graph_cut"]
    assert verdict(mlp(), rows, functional.cross_entropy) == []


def test_an_argmax_in_the_loss_cuts_the_whole_graph(verdict: Any, mlp: Any, rows: Any) -> None:
    def error_rate(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(dim=1) != targets).float().mean()

    assert verdict(mlp(), rows, error_rate) == ["error graph_cut"]


def test_checkpointing_of_what_needs_no_gradient_cuts_the_graph(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, *, reentrant: bool) -> None:
            super().__init__()
            self.first, self.rest, self.reentrant = nn.Linear(20, 20), mlp(), reentrant
            self.first.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            halves = self.rest[:2], self.rest[2:]
            x = checkpoint(halves[0], self.first(x), use_reentrant=self.reentrant)
            return halves[1](x)

    import warnings

    loss = nn.CrossEntropyLoss()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the inputs need no gradient
        assert verdict(Checkpointed(reentrant=True), rows, loss) == ["error graph_cut"]
    assert verdict(Checkpointed(reentrant=False), rows, loss) == []


def test_an_optimizer_of_another_model_is_found(verdict: Any, mlp: Any, rows: Any) -> None:
    network, other = mlp(), mlp()
    stranger = SGD(other.parameters(), lr=0.1)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=stranger) == [
        "error optimizer_missing_params"
    ]
    own = SGD(network.parameters(), lr=0.1)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=own) == []
    findings = check(network, rows, nn.CrossEntropyLoss(), optimizer=stranger).findings
    assert findings[0].evidence[0].measured == 6.0
    assert findings[0].evidence[1].measured == 6.0
    assert "another model" in findings[0].summary


def test_a_head_that_was_replaced_after_the_optimizer_was_made_is_found(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp(outputs=10)
    optimizer = SGD(network.parameters(), lr=0.1)
    network[-1] = nn.Linear(64, 5)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer) == [
        "error optimizer_missing_params"
    ]
    finding = check(network, rows, nn.CrossEntropyLoss(), optimizer=optimizer).findings[0]
    assert finding.layers == ("4.weight", "4.bias")


def test_frozen_parameters_in_the_optimizer_are_a_warning(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp()
    network[0].requires_grad_(False)
    loss = nn.CrossEntropyLoss()
    everything = SGD(network.parameters(), lr=0.1)
    assert verdict(network, rows, loss, optimizer=everything) == ["warning params_frozen"]
    free = SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    assert verdict(network, rows, loss, optimizer=free) == [], "frozen on purpose, and left out"
    assert verdict(network, rows, loss) == []


def test_an_optimizer_that_maximises_is_a_warning(verdict: Any, mlp: Any, rows: Any) -> None:
    network = mlp()
    climbing = SGD(network.parameters(), lr=0.1, maximize=True)
    assert verdict(network, rows, nn.CrossEntropyLoss(), optimizer=climbing) == [
        "warning gradient_sign_flipped"
    ]


def test_a_network_left_in_evaluation_mode_is_a_warning(
    verdict: Any, mlp: Any, conv_net: Any, rows: Any, images: Any
) -> None:
    assert verdict(conv_net().eval(), images, nn.CrossEntropyLoss()) == [
        "warning eval_mode_in_training"
    ]
    assert verdict(conv_net().train(), images, nn.CrossEntropyLoss()) == []
    assert verdict(mlp().eval(), rows, nn.CrossEntropyLoss()) == [], "nothing in it knows the mode"


def test_a_backbone_that_is_frozen_in_evaluation_mode_is_healthy(
    verdict: Any, conv_net: Any, images: Any
) -> None:
    network = conv_net().train()
    network[1].eval()  # as fine-tuning does
    assert verdict(network, images, nn.CrossEntropyLoss()) == []
