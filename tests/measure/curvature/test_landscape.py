"""Tests of the landscape: quadratic losses in closed form, ends, filters, norms, tied weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError, UnknownNameError
from leadline.core.seeds import capture_random_state
from leadline.measure.curvature.landscape import (
    LossLine,
    filter_normalised,
    loss_along,
    loss_between,
    loss_on_plane,
)


def regression() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    return model, (torch.randn(10, 4).double(), torch.randn(10, 3).double())


def classifier(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)
    )


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 1, 6, 6, generator=generator), torch.arange(8) % 3


def test_a_quadratic_loss_is_its_closed_form_on_the_line() -> None:
    """L(w + a d) = L + a <g, d> + a^2 / (N C) sum (X d)^2, for the mean squared error."""
    model, (x, y) = regression()
    direction = {"weight": torch.randn(3, 4).double(), "bias": torch.randn(3).double()}
    loss = functional.mse_loss(model(x), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    slope = sum((g * d).sum() for g, d in zip(gradients, direction.values(), strict=True))
    curvature = functional.linear(x, direction["weight"], direction["bias"]).square().mean()
    line = loss_along(
        model, (x, y), loss=functional.mse_loss, direction=direction, distance=2.0, points=9
    )
    assert line.steps == pytest.approx([-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0])
    for step, found in zip(line.steps, line.losses, strict=True):
        expected = (loss + step * slope + step**2 * curvature).item()
        assert found == pytest.approx(expected, rel=1e-10)


def test_the_gradient_has_the_length_of_the_weights_and_goes_uphill() -> None:
    model, batch = regression()
    loss = functional.mse_loss(model(batch[0]), batch[1])
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    lengths = [
        math.sqrt(sum(float(t.detach().square().sum()) for t in tensors))
        for tensors in (model.parameters(), gradients)
    ]
    direction = {
        name: gradient * (lengths[0] / lengths[1])
        for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True)
    }
    arguments: dict[str, Any] = {"loss": functional.mse_loss, "distance": 0.01, "points": 3}
    found = loss_along(model, batch, direction="gradient", **arguments)
    assert found.losses == pytest.approx(
        loss_along(model, batch, direction=direction, **arguments).losses, rel=1e-10
    )
    assert found.losses[0] < found.losses[1] < found.losses[2]


def test_every_filter_is_as_long_as_the_weights_own() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 3, 3, 3), (5, 7)):
        weight = torch.randn(shape, generator=generator)
        drawn = torch.randn(shape, generator=generator)
        found = filter_normalised(drawn, like=weight)
        assert torch.allclose(found.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
        cosine = functional.cosine_similarity(found.flatten(1), drawn.flatten(1))
        assert torch.allclose(cosine, torch.ones(shape[0]))
    vector = torch.randn(9, generator=generator)
    found = filter_normalised(torch.randn(9, generator=generator), like=vector)
    assert found.norm().item() == pytest.approx(vector.norm().item(), rel=1e-6)


def test_the_scale_of_a_layer_before_a_norm_does_not_matter() -> None:
    """What filter normalisation is for (Li et al. 2018, section 3): the same function, the same
    picture."""
    model, batch = classifier(), images()
    arguments: dict[str, Any] = {"loss": functional.cross_entropy, "points": 5}
    before = loss_along(model, batch, **arguments).losses
    with torch.no_grad():
        model[0].weight.mul_(100.0)
        model[0].bias.mul_(100.0)
    assert loss_along(model, batch, **arguments).losses == pytest.approx(before, rel=1e-3)


def test_vectors_stay_unless_they_are_asked_to_move() -> None:
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    batch = (torch.ones(3, 2), torch.zeros(3, 2))
    still = loss_along(model, batch, loss=functional.mse_loss, points=3)
    assert len(set(still.losses)) == 1  # the filters have length 0, the bias does not move
    moved = loss_along(model, batch, loss=functional.mse_loss, points=3, vectors="scale")
    assert len(set(moved.losses)) == 3


def test_the_middle_and_the_ends_are_the_losses_of_the_weights_themselves() -> None:
    first, last, batch = classifier(0).eval(), classifier(1).eval(), images()
    with torch.no_grad():
        last[1].running_mean.fill_(0.3)
        expected = [
            functional.cross_entropy(model(batch[0]), batch[1]).item() for model in (first, last)
        ]
    along = loss_along(first, batch, loss=functional.cross_entropy, points=3)
    assert along.steps[1] == 0.0
    assert along.losses[1] == expected[0]
    line = loss_between(
        classifier(2).eval(),
        batch,
        start=first.state_dict(),
        end=last.state_dict(),
        loss=functional.cross_entropy,
    )
    assert line.steps[0] == 0.0 and line.steps[-1] == 1.0
    assert [line.losses[0], line.losses[-1]] == expected


def test_running_statistics_are_interpolated_between_checkpoints() -> None:
    model = nn.BatchNorm1d(1, affine=True, eps=0.0).eval()
    states = []
    for mean in (0.0, 2.0):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        state["running_mean"].fill_(mean)
        states.append(state)
    line = loss_between(
        model,
        torch.zeros(2, 1),
        start=states[0],
        end=states[1],
        loss=lambda outputs, targets: outputs.mean(),
        points=5,
    )
    assert line.losses == pytest.approx((0.0, -0.5, -1.0, -1.5, -2.0))


def test_the_barrier_is_the_height_above_the_chord() -> None:
    assert LossLine(steps=(0.0, 0.5, 1.0), losses=(1.0, 4.0, 3.0)).barrier == 2.0
    assert LossLine(steps=(0.0, 0.25, 1.0), losses=(0.0, 1.0, 4.0)).barrier == 0.0
    assert LossLine(steps=(0.0, 0.5, 1.0), losses=(1.0, 0.0, 1.0)).barrier == 0.0
    assert math.isnan(LossLine(steps=(0.0, 0.5, 1.0), losses=(1.0, math.nan, 1.0)).barrier)


def test_permuted_units_compute_the_same_and_lie_behind_a_barrier() -> None:
    """Entezari et al. 2021 (arXiv:2110.06296): the same function with its units renumbered."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(50, 3)
    batch = (x, model(x).detach())
    order = torch.randperm(16)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    end = {
        "0.weight": start["0.weight"][order],
        "0.bias": start["0.bias"][order],
        "2.weight": start["2.weight"][:, order],
        "2.bias": start["2.bias"],
    }
    line = loss_between(model, batch, start=start, end=end, loss=functional.mse_loss)
    assert line.losses[0] == pytest.approx(0.0, abs=1e-10)
    assert line.losses[-1] == pytest.approx(0.0, abs=1e-10)
    assert line.barrier > 0.01


def test_a_quadratic_loss_is_a_paraboloid_on_the_plane() -> None:
    """Second differences are constant, also the mixed one."""
    model, batch = regression()
    plane = loss_on_plane(model, batch, loss=functional.mse_loss, points=5, distance=2.0)
    losses = torch.tensor(plane.losses, dtype=torch.float64)
    assert losses.shape == (5, 5)
    assert losses[2, 2].item() == pytest.approx(
        functional.mse_loss(model(batch[0]), batch[1]).item(), rel=1e-12
    )
    for differences in (
        losses.diff(n=2, dim=0),
        losses.diff(n=2, dim=1),
        losses.diff(dim=0).diff(dim=1),
    ):
        assert torch.allclose(differences, differences[0, 0].expand_as(differences), atol=1e-9)
    row = loss_along(model, batch, loss=functional.mse_loss, points=5, distance=2.0)
    assert losses[:, 2].tolist() == pytest.approx(row.losses)
    assert plane.first_steps == plane.second_steps == row.steps


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.embed(tokens))}


def test_tied_weights_move_together() -> None:
    torch.manual_seed(0)
    model, tokens = Tied(), torch.tensor([0, 1, 2])

    def loss(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        return outputs["logits"].square().mean()

    state = {name: value.clone() for name, value in model.state_dict().items()}
    zero = {name: torch.zeros_like(value) for name, value in state.items()}
    line = loss_between(model, tokens, start=zero, end=state, loss=loss, points=3)
    assert line.losses[1] == pytest.approx(line.losses[2] / 16, rel=1e-5)  # (w/2)^4


def test_names_of_wrapped_checkpoints_fit() -> None:
    model, batch = regression()
    wrapped = {f"module._orig_mod.{name}": value for name, value in model.state_dict().items()}
    line = loss_between(
        model, batch, start=wrapped, end=model.state_dict(), loss=functional.mse_loss, points=2
    )
    assert line.losses[0] == line.losses[1]


def test_dropout_draws_the_same_mask_at_every_point() -> None:
    model = nn.Sequential(nn.Linear(50, 50), nn.Dropout())
    state = model.state_dict()
    line = loss_between(
        model,
        torch.ones(2, 50),
        start=state,
        end=state,
        loss=lambda outputs, targets: outputs.square().mean(),
        points=4,
    )
    assert len(set(line.losses)) == 1


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model, batch = classifier().train(training), images()
    functional.cross_entropy(model(batch[0]), batch[1]).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = capture_random_state()
    loss_along(model, batch, loss=functional.cross_entropy, direction="gradient", points=2)
    loss_on_plane(model, batch, loss=functional.cross_entropy, points=2)
    loss_between(model, batch, start=before, end=before, loss=functional.cross_entropy, points=2)
    assert torch.equal(capture_random_state().torch, random.torch)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.equal(parameter.grad, gradients[name])
    assert model.training is training


def test_a_loss_that_grows_past_all_numbers_is_infinite_and_no_error() -> None:
    model, batch = regression()
    line = loss_along(
        model.float(),
        tuple(tensor.float() for tensor in batch),
        loss=functional.mse_loss,
        distance=1e30,
        points=3,
    )
    assert math.isinf(line.losses[0]) and math.isfinite(line.losses[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": 1}, "2 points or more"),
        ({"distance": 0.0}, "a distance above 0"),
        ({"direction": "gradiant"}, "'random', 'gradient', or tensors"),
        ({"direction": {"wait": torch.ones(3, 4)}}, "did you mean 'weight'"),
        ({"direction": {"weight": torch.ones(4, 3)}}, r"direction\['weight'\] of shape \(4, 3\)"),
        ({"loss": lambda outputs, targets: outputs}, "a loss that is one number"),
        ({"direction": "gradient", "loss": lambda o, t: 0.0 * o.sum()}, "one of length 0.0"),
    ],
)
def test_bad_arguments_are_described(arguments: dict[str, Any], message: str) -> None:
    model, batch = regression()
    with pytest.raises(MeasurementError, match=message):
        loss_along(model, batch, **{"loss": functional.mse_loss, **arguments})


def test_an_unknown_treatment_of_vectors_gets_did_you_mean() -> None:
    model, batch = regression()
    with pytest.raises(UnknownNameError, match="did you mean 'ignore'"):
        loss_along(model, batch, loss=functional.mse_loss, vectors="ignored")


def test_models_that_cannot_move_are_described() -> None:
    model, batch = regression()
    with pytest.raises(MeasurementError, match="all frozen"):
        loss_along(model.requires_grad_(False), batch, loss=functional.mse_loss)
    with pytest.raises(MeasurementError, match="no parameters"):
        loss_on_plane(nn.ReLU(), batch, loss=functional.mse_loss)
    with pytest.raises(MeasurementError, match="set vectors='scale'"):
        loss_along(nn.LayerNorm(4).double(), batch[0], loss=lambda o, t: o.sum())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "end: nothing for 'bias'"),
        ({"weight": torch.ones(2, 2)}, r"end: shape \(2, 2\) for 'weight' of \(3, 4\)"),
    ],
)
def test_a_state_of_another_model_is_described(change: dict[str, Any], message: str) -> None:
    model, batch = regression()
    state = model.state_dict()
    other = {name: value for name, value in {**state, **change}.items() if value is not None}
    with pytest.raises(MeasurementError, match=message):
        loss_between(model, batch, start=state, end=other, loss=functional.mse_loss)


@pytest.mark.parametrize("points", [3, 11, 21, 51, 101])
@pytest.mark.parametrize("distance", [1.0, 0.3, 1e-3, 7.7])
def test_steps_are_opposites_and_the_middle_is_the_weights_themselves(
    distance: float, points: int
) -> None:
    model, batch = nn.Linear(1, 1), torch.ones(1, 1)
    line = loss_along(
        model, batch, loss=lambda o, t: o.square().mean(), distance=distance, points=points
    )
    assert line.steps[points // 2] == 0.0
    assert line.steps == tuple(-step for step in reversed(line.steps))
    assert (line.steps[0], line.steps[-1]) == (-distance, distance)
    assert line.losses[points // 2] == model(batch).square().item()


def test_a_loss_that_is_not_finite_at_the_weights_is_said() -> None:
    with pytest.raises(MeasurementError, match="a finite loss"):
        loss_along(nn.Linear(1, 1), torch.ones(1, 1), loss=lambda o, t: o.sum() * math.nan)
