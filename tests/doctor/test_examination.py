"""Tests of the evidence: what is gathered, what is left out, and at what cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from leadline.core.errors import MeasurementError
from leadline.doctor.examination import examine, settings, unregistered_parameters

LOSS = nn.CrossEntropyLoss()


def test_everything_is_gathered_for_a_model_a_batch_a_loss_and_an_optimizer(
    mlp: Any, rows: Any
) -> None:
    network = mlp()
    optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9)
    seen = examine(network, rows, loss=LOSS, optimizer=optimizer)
    assert seen.nature is not None and seen.nature.kind == "cross_entropy"
    assert seen.influence is not None and seen.influence.examples == 0.0
    assert seen.determinism is not None and seen.determinism.repeated == 0.0
    assert seen.step is not None and seen.step.before == pytest.approx(seen.survey.loss)
    assert seen.still_in_the_loss == ()
    assert seen.evaluated_loss is None and seen.matched_loss is None
    assert seen.loss_at_start == pytest.approx(math.log(5))
    assert seen.seconds > 0
    assert [group["momentum"] for group in settings(seen)] == [0.9]
    assert all("params" not in group for group in settings(seen))


def test_what_cannot_be_measured_is_none(mlp: Any, rows: Any) -> None:
    one = rows[0][:1], rows[1][:1]
    seen = examine(mlp(), one, loss=LOSS)
    assert seen.influence is None and seen.step is None
    assert settings(seen) == []
    bad = rows[0].clone().fill_(math.nan), rows[1]
    seen = examine(mlp(), bad, loss=LOSS)
    assert math.isnan(seen.survey.loss)
    assert seen.nature is None and seen.determinism is None


def test_class_numbers_leave_out_what_is_ignored(mlp: Any, rows: Any) -> None:
    labels = rows[1].clone()
    labels[:10] = -100
    seen = examine(mlp(), (rows[0], labels), loss=LOSS)
    assert seen.class_numbers is not None
    assert torch.equal(seen.class_numbers, labels[10:])
    numbers = examine(mlp(outputs=1), (rows[0], rows[0][:, :1]), loss=nn.MSELoss())
    assert numbers.class_numbers is None


def test_a_cut_parameter_is_told_from_one_that_has_no_part(rows: Any) -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.spare = nn.Linear(20, 20), nn.Linear(20, 20)
            self.last = nn.Linear(20, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.cut(x).detach())

    seen = examine(Cut(), rows, loss=LOSS)
    assert seen.still_in_the_loss == ("cut.weight", "cut.bias")
    missing = {name for name, gradient in seen.survey.gradients.items() if gradient is None}
    assert missing == {"cut.weight", "cut.bias", "spare.weight", "spare.bias"}


def test_dropout_does_not_make_spare_parameters_look_cut(mlp: Any, rows: Any) -> None:
    """The loss of two passes differs by the dropout alone, unless the noise is the same."""

    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.spare = nn.Sequential(nn.Dropout(0.5), mlp()), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.trunk(x)

    assert examine(Spare(), rows, loss=LOSS).still_in_the_loss == ()


def test_parameters_in_lists_tuples_dictionaries_and_attributes_are_found() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.known = nn.Linear(1, 1, bias=False)
            self.pair = (nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
            self.named = {"a": [nn.Linear(1, 1, bias=False)]}
            self.loose = [torch.zeros(2, requires_grad=True)]
            self.inner = nn.Sequential(nn.ReLU())
            self.inner[0].hidden = [nn.Linear(1, 1, bias=False)]
            self.again = [self.known]

    assert set(unregistered_parameters(Odd())) == {
        "pair.0.weight",
        "pair.1.weight",
        "named.a.0.weight",
        "loose.0",
        "inner.0.hidden.0.weight",
    }


def test_results_that_a_model_keeps_are_no_parameters(mlp: Any) -> None:
    network = mlp()
    network.last_output = network(torch.ones(2, 20))  # on a graph, but no leaf
    network.cache = [torch.ones(3), network.last_output]
    assert unregistered_parameters(network) == {}


def test_running_statistics_are_asked_once_they_have_settled(conv_net: Any, images: Any) -> None:
    network = conv_net()
    assert examine(network, images, loss=LOSS).evaluated_loss is None
    for _ in range(60):
        network(images[0])
    evaluated = examine(network, images, loss=LOSS).evaluated_loss
    network.eval()
    with torch.no_grad():
        assert evaluated == pytest.approx(LOSS(network(images[0]), images[1]).item(), rel=1e-5)


def test_a_loss_of_equal_shapes_is_computed_where_the_shapes_differ(mlp: Any, rows: Any) -> None:
    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs - targets) ** 2).mean()

    network, targets = mlp(outputs=1), rows[0][:, 0]
    seen = examine(network, (rows[0], targets), loss=squared)
    with torch.no_grad():
        expected = squared(network(rows[0])[:, 0], targets).item()
    assert seen.matched_loss == pytest.approx(expected, rel=1e-5)


def test_the_cost_is_a_few_passes(mlp: Any, rows: Any) -> None:
    network, sizes = mlp(), []
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    examine(network, rows, loss=LOSS, optimizer=SGD(network.parameters(), lr=0.1))
    assert sum(size == 64 for size in sizes) == 2, "the survey, and the loss behind the step"
    assert sum(size < 64 for size in sizes) <= 8, "influence and determinism: two to four examples"


def test_a_frozen_model_is_refused(mlp: Any, rows: Any) -> None:
    with pytest.raises(MeasurementError, match="frozen"):
        examine(mlp().requires_grad_(False), rows, loss=LOSS)
