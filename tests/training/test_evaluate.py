"""Evaluation sees a whole split in eval mode, and leaves the training as it was."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn

from leadline.tasks.classification import Classification
from leadline.training.evaluate import evaluate, outputs_and_targets
from leadline.training.execution import Execution


def make_batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(25, 4, generator=generator)
    targets = torch.randint(0, 3, (25,), generator=generator)
    return list(zip(inputs.split(10), targets.split(10), strict=True))


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))


def test_outputs_come_in_order_and_as_they_are_without_dropout() -> None:
    model, batches = make_model().train(), make_batches()
    outputs, targets = outputs_and_targets(model, batches, execution=Execution())
    assert torch.equal(targets, torch.cat([y for _, y in batches]))
    with torch.no_grad():
        expected = model.eval()(torch.cat([x for x, _ in batches]))
    assert torch.allclose(outputs, expected, atol=1e-6)
    assert not outputs.requires_grad and outputs.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_the_statistics_and_the_chance_are_left_as_they_were(training: bool) -> None:
    model = make_model().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stream = torch.get_rng_state()
    evaluate(model, make_batches(), task=Classification(3), execution=Execution())
    assert model.training is training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)


def test_the_mode_comes_back_after_an_error_too() -> None:
    model = make_model().train()
    with pytest.raises(RuntimeError, match="shapes"):
        outputs_and_targets(
            model, [(torch.ones(2, 9), torch.zeros(2).long())], execution=Execution()
        )
    assert model.training


def test_the_figures_are_those_of_scikit_learn() -> None:
    model, batches = make_model(), make_batches()
    figures = evaluate(model, batches, task=Classification(3), execution=Execution())
    with torch.no_grad():
        shares = model.eval()(torch.cat([x for x, _ in batches])).double().softmax(dim=1)
    targets = torch.cat([y for _, y in batches])
    assert figures["accuracy"] == pytest.approx(accuracy_score(targets, shares.argmax(1)))
    assert figures["loss"] == pytest.approx(log_loss(targets, shares), rel=1e-5)


def test_a_narrow_execution_gives_outputs_in_float32_near_the_plain_ones() -> None:
    model, batches = make_model(), make_batches()
    plain, _ = outputs_and_targets(model, batches, execution=Execution())
    narrow, _ = outputs_and_targets(model, batches, execution=Execution(precision="bfloat16"))
    assert narrow.dtype == torch.float32
    assert not torch.equal(plain, narrow)
    assert torch.allclose(plain, narrow, atol=0.05)
