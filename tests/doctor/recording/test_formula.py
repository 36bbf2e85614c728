"""Tests that a loss is followed back to outputs and target, and computed again."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.recording.formula import Derivation, Surroundings, derive
from leadline.doctor.recording.trace import Listening, Trace


def followed(written: object, outputs: Tensor, *batch: Tensor) -> tuple[Derivation, Tensor]:
    """Compute a loss under a trace, and follow it back."""
    trace = Trace()
    trace.add_output(outputs, event=0)
    with Listening(trace.add_call, foreign=lambda: False):
        loss: Tensor = written(outputs, *batch)  # type: ignore[operator]
    around = Surroundings(batch=batch, inputs=(), constants=frozenset(), length=len(outputs))
    return derive(trace, loss, around), loss


def test_a_loss_is_computed_again_for_other_outputs_and_targets() -> None:
    outputs, targets = torch.randn(6, 3, requires_grad=True), torch.randint(0, 3, (6,))
    found, loss = followed(
        lambda o, t: functional.cross_entropy(o.float(), t.long()) / 2, outputs, targets
    )
    assert found.formula is not None and found.target is targets and found.item == 0
    assert found.names[0] in ("div", "__truediv__", "truediv") and "cross_entropy" in found.names
    assert torch.equal(found.formula(outputs, targets), loss)
    others = torch.randn(4, 3), torch.randint(0, 3, (4,))
    assert torch.allclose(found.formula(*others), functional.cross_entropy(*others) / 2)


def test_a_division_by_the_length_of_the_batch_follows_the_batch() -> None:
    outputs, targets = torch.randn(6, 1, requires_grad=True), torch.randn(6, 1)
    found, _ = followed(lambda o, t: (o - t).abs().sum() / len(o), outputs, targets)
    assert found.formula is not None
    others = torch.randn(4, 1), torch.randn(4, 1)
    assert torch.allclose(found.formula(*others), functional.l1_loss(*others))


def test_writing_in_place_is_followed_in_order() -> None:
    def written(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = (outputs - targets).square().mean()
        loss += 1
        loss *= 3
        return loss

    outputs, targets = torch.randn(6, 1, requires_grad=True), torch.randn(6, 1)
    found, loss = followed(written, outputs, targets)
    assert found.formula is not None and torch.equal(found.formula(outputs, targets), loss)


def test_what_stands_in_the_way_is_said() -> None:
    outputs, weight = torch.randn(6, 1, requires_grad=True), nn.Parameter(torch.ones(1))
    none, _ = followed(lambda o: o.square().mean(), outputs)
    weights, _ = followed(lambda o: (o * weight).mean(), outputs)
    apart, _ = followed(lambda o: torch.ones(2, requires_grad=True).sum(), outputs)
    assert "no target" in none.problem
    assert "weights" in weights.problem
    assert "does not depend on any model" in apart.problem
