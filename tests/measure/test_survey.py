"""Tests of the survey against what hooks and autograd say by themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from leadline.core.errors import MeasurementError
from leadline.measure.gradients.gradients import gradient_flow, parameter_gradients
from leadline.measure.survey import is_activation, survey


class Net(nn.Module):
    """Two convolutions, a functional activation, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.first(x)), inplace=True)
        x = x + self.second(x)
        return self.last(x.mean(dim=(2, 3)))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Sixteen pictures of four classes."""
    torch.manual_seed(0)
    return torch.randn(16, 3, 8, 8), torch.arange(16) % 4


def test_the_figures_of_every_layer_are_those_of_the_tensors(batch: Any) -> None:
    torch.manual_seed(0)
    model = Net().double()
    inputs, labels = batch[0].double(), batch[1]
    kept: dict[str, Tensor] = {}

    def keep(name: str, tensor: Tensor) -> Tensor:
        tensor.retain_grad()
        kept[name] = tensor
        return tensor

    first = keep("first", model.first(inputs))
    normed = keep("norm", model.norm(first))
    active = keep("relu", functional.relu(normed))
    second = keep("second", model.second(active))
    added = keep("add", active + second)
    output = keep("last", model.last(added.mean(dim=(2, 3))))
    loss = functional.cross_entropy(output, labels)
    loss.backward()

    model.norm.reset_running_stats()
    seen = survey(model, (inputs, labels), loss=functional.cross_entropy)
    assert [layer.name for layer in seen.layers] == list(kept)
    assert seen.loss == pytest.approx(loss.item(), rel=1e-6)
    for layer in seen.layers:
        tensor = kept[layer.name]
        assert tensor.grad is not None
        assert layer.shape == tuple(tensor.shape)
        assert layer.mean == pytest.approx(tensor.mean().item(), rel=1e-4, abs=1e-7)
        assert layer.std == pytest.approx(tensor.std(correction=0).item(), rel=1e-5)
        wanted = tensor.grad.square().mean().sqrt().item()
        assert layer.gradient == pytest.approx(wanted, rel=1e-5)
    relu = seen.layers[2]
    assert relu.zeros == pytest.approx((active == 0).double().mean().item(), rel=1e-6)
    assert math.isnan(seen.layers[0].zeros)


def test_the_gradients_and_norms_of_the_parameters_are_autograds(batch: Any) -> None:
    torch.manual_seed(0)
    model = Net()
    seen = survey(model, batch, loss=functional.cross_entropy)
    model.norm.reset_running_stats()
    functional.cross_entropy(model(batch[0]), batch[1]).backward()
    for record in seen.parameters:
        parameter = model.get_parameter(record.name)
        assert record.shape == tuple(parameter.shape)
        assert record.norm == pytest.approx(parameter.detach().norm().item(), rel=1e-5)
        found = seen.gradients[record.name]
        assert found is not None and parameter.grad is not None
        assert torch.allclose(found, parameter.grad, rtol=1e-5, atol=1e-8)
        assert record.gradient == pytest.approx(parameter.grad.norm().item(), rel=1e-4)
    constants = {record.name for record in seen.parameters if record.constant}
    assert constants == {"norm.weight", "norm.bias"}


def test_silent_units_are_those_that_never_change() -> None:
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2))
    with torch.no_grad():
        model[0].bias[:3] = -100.0
    seen = survey(model, (torch.randn(32, 4), torch.arange(32) % 2), loss=functional.cross_entropy)
    assert seen.layers[1].silent == pytest.approx(0.3)
    assert math.isnan(seen.layers[0].silent)


def test_silent_channels_of_a_picture_are_counted_as_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2))
    with torch.no_grad():
        model[0].bias[:2] = -100.0
    batch = torch.randn(4, 3, 4, 4), torch.arange(4) % 2
    seen = survey(model, batch, loss=functional.cross_entropy)
    assert seen.layers[1].silent == pytest.approx(0.25)


def test_one_look_at_a_unit_says_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2))
    seen = survey(model, (torch.randn(1, 4), torch.zeros(1).long()), loss=functional.cross_entropy)
    assert math.isnan(seen.layers[1].silent)


@pytest.mark.parametrize(("kind", "end"), [(nn.Sigmoid, 3.89), (nn.Tanh, 1.94)])
def test_an_output_is_saturated_within_2_percent_of_an_end(kind: Any, end: float) -> None:
    """The 2 % begin at sigmoid⁻¹(0.98) = 3.89 and at tanh⁻¹(0.96) = 1.95."""
    model = nn.Sequential(nn.Linear(1, 1), kind())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.zero_()
    inputs = torch.tensor([[-9.0], [-end * 0.97], [0.0], [end * 0.97], [end * 1.03]])
    seen = survey(model, (inputs, torch.zeros(5, 1)), loss=functional.mse_loss)
    assert seen.layers[1].saturated == pytest.approx(0.4)


def test_the_operations_between_loss_and_output_are_listed() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
    batch = torch.randn(8, 4), torch.arange(8) % 3
    seen = survey(model, batch, loss=functional.cross_entropy)
    assert seen.graph == ("NllLossBackward0", "LogSoftmaxBackward0", "SoftmaxBackward0")


@pytest.mark.parametrize(
    "shape",
    [
        lambda x: x.squeeze(-1),
        lambda x: x.view(-1),
        lambda x: x.t().reshape(-1),
        lambda x: x[:, 0],
        lambda x: x.clamp(0.01, 0.99).double().squeeze(1).clone(),
    ],
)
def test_shapes_and_clamps_behind_the_last_operation_are_looked_through(shape: Any) -> None:
    model = nn.Linear(4, 1)
    linear = model.forward
    model.forward = lambda x: shape(torch.sigmoid(linear(x)))
    batch = torch.randn(8, 4), torch.zeros(8)
    seen = survey(model, batch, loss=lambda o, t: functional.mse_loss(o, t.to(o)))
    assert seen.graph[0] == "MseLossBackward0"
    assert seen.graph[-1] == "SigmoidBackward0"


def test_a_parameter_that_is_the_output_ends_the_way_through_its_views() -> None:
    model = nn.Linear(4, 8, bias=False)
    model.forward = lambda x: model.weight.t()[0]
    seen = survey(model, (torch.randn(8, 4), torch.zeros(8)), loss=functional.mse_loss)
    assert seen.graph[-1].startswith(("T", "Select"))


def test_a_parameter_that_no_gradient_reaches_has_none() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model.spare = nn.Linear(1, 1)
    model.forward = lambda x: model[1](model[0](x).detach())
    batch = torch.randn(8, 4), torch.arange(8) % 2
    seen = survey(model, batch, loss=functional.cross_entropy)
    assert seen.connected
    heard = {name for name, gradient in seen.gradients.items() if gradient is not None}
    assert heard == {"1.weight", "1.bias"}
    first = seen.layers[0]
    assert first.gradient is None
    profile = seen.profile
    assert math.isnan(profile.at("0")["gradient"])


def test_frozen_parameters_are_listed_but_not_asked_for_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    batch = torch.randn(8, 4), torch.arange(8) % 2
    seen = survey(model, batch, loss=functional.cross_entropy)
    trainable = {record.name: record.trainable for record in seen.parameters}
    assert trainable == {"0.weight": False, "0.bias": False, "2.weight": True, "2.bias": True}
    assert set(seen.gradients) == {"2.weight", "2.bias"}


def test_a_loss_without_a_graph_is_unconnected() -> None:
    model = nn.Linear(4, 3)
    batch = torch.randn(8, 4), torch.arange(8) % 3
    seen = survey(model, batch, loss=lambda o, t: functional.cross_entropy(o.detach(), t))
    assert not seen.connected
    assert all(gradient is None for gradient in seen.gradients.values())


def test_hidden_tensors_are_told_to_be_reached_or_not() -> None:
    reached, idle = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    model = nn.Linear(4, 3)
    batch = torch.randn(8, 4), torch.arange(8) % 3

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs * reached, targets)

    seen = survey(model, batch, loss=loss, unregistered={"a": reached, "b": idle})
    assert seen.unregistered == {"a": True, "b": False}


def test_the_mode_of_the_model_is_the_one_measured() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Dropout(0.5), nn.Linear(20, 3))
    batch = torch.randn(64, 20), torch.arange(64) % 3
    model.eval()
    evaluated = survey(model, batch, loss=functional.cross_entropy)
    assert evaluated.layers[0].std == evaluated.layers[1].std
    assert evaluated.loss == survey(model, batch, loss=functional.cross_entropy).loss
    model.train()
    trained = survey(model, batch, loss=functional.cross_entropy)
    assert trained.layers[1].std > 1.2 * trained.layers[0].std


def test_half_precision_is_added_up_in_full() -> None:
    model = nn.Linear(1024, 1024).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1.0)
    batch = torch.ones(4, 1024).bfloat16(), torch.zeros(4, 1024).bfloat16()
    seen = survey(model, batch, loss=functional.mse_loss)
    assert seen.parameters[0].norm == pytest.approx(1024.0, rel=1e-6)


def test_nan_inputs_are_refused_unless_they_are_asked_for() -> None:
    model = nn.Linear(2, 2)
    batch = torch.full((4, 2), math.nan), torch.zeros(4, 2)
    with pytest.raises(MeasurementError, match="NaN"):
        survey(model, batch, loss=functional.mse_loss)
    assert math.isnan(survey(model, batch, loss=functional.mse_loss, finite=False).loss)


def test_names_of_nonlinearities_are_known_in_every_spelling() -> None:
    for kind in ("ReLU", "relu", "LeakyReLU", "leaky_relu", "GELU", "NewGELUActivation", "SiLU"):
        assert is_activation(kind)
    for kind in ("Linear", "add", "LayerNorm", "softmax", "Softmax"):
        assert not is_activation(kind)


def test_everything_is_left_as_found_and_a_second_survey_says_the_same(batch: Any) -> None:
    model = Net()
    model.first.weight.grad = torch.full_like(model.first.weight, 3.0)
    kept = model.first.weight.grad
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    once = survey(model, batch, loss=functional.cross_entropy)
    again = survey(model, batch, loss=functional.cross_entropy)
    assert repr(once.layers) == repr(again.layers)  # NaN is not equal to itself
    assert once.loss == again.loss
    assert model.first.weight.grad is kept and bool((kept == 3.0).all())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_what_enters_the_first_dense_layer_is_measured_there() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.layer = nn.Embedding(5, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.tokens(x) * 100)

    model = Scaled()
    tokens, labels = torch.arange(10) % 5, torch.arange(10) % 2
    seen = survey(model, (tokens, labels), loss=functional.cross_entropy)
    expected = model.tokens(tokens).detach().square().mean().sqrt().item() * 100
    assert seen.entering == pytest.approx(expected, rel=1e-5)
    table = survey(nn.Embedding(5, 3), (tokens, labels), loss=functional.cross_entropy)
    assert table.entering is None


def test_the_positions_that_the_loss_depends_on_are_told() -> None:
    model = nn.Linear(4, 3)
    inputs, labels = torch.randn(2, 5, 4), torch.randint(0, 3, (2, 5))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs[:, 1:-1].flatten(0, 1), targets[:, 1:-1].flatten())

    assert survey(model, (inputs, labels), loss=loss).positions == (False, True, True, True, False)
    flat = survey(model, (inputs[:, 0], labels[:, 0]), loss=functional.cross_entropy)
    assert flat.positions == ()


def test_a_chain_of_sigmoids_is_measured_beyond_the_reach_of_a_square() -> None:
    torch.manual_seed(0)
    blocks = [layer for _ in range(34) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    model = nn.Sequential(*blocks, nn.Linear(8, 1))
    batch = torch.randn(16, 8), torch.randn(16, 1)
    seen = survey(model, batch, loss=functional.mse_loss)
    flow = gradient_flow(model, batch, loss=functional.mse_loss)
    weights = parameter_gradients(model, batch, loss=functional.mse_loss)
    assert 0 < flow.column("root_mean_square")[0] < 1e-24
    for layer in seen.layers:
        assert layer.gradient == pytest.approx(flow.at(layer.name)["root_mean_square"], rel=1e-4)
    for record in seen.parameters:
        assert record.gradient == pytest.approx(weights.at(record.name)["norm"], rel=1e-4)


@pytest.mark.parametrize("size", [1e-35, 1e-25, 1.0, 1e25, 1e35])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spreads_and_norms_of_any_size_are_measured(size: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Identity()).to(dtype)
    with torch.no_grad():
        model[0].weight *= size
    inputs = torch.randn(5, 6, dtype=dtype)
    exact = inputs.double() @ model[0].weight.detach().double().T
    seen = survey(model, inputs, loss=lambda outputs, targets: (outputs / size).mean())
    assert seen.layers[0].std == pytest.approx(exact.std(correction=0).item(), rel=1e-5)
    assert seen.layers[0].mean == pytest.approx(exact.mean().item(), rel=1e-4)
    norm = model[0].weight.detach().double().norm().item()
    assert seen.parameters[0].norm == pytest.approx(norm, rel=1e-5)


def test_numbers_that_are_not_finite_are_no_finite_figures() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(math.inf)
    seen = survey(model, torch.ones(3, 2), loss=lambda outputs, targets: outputs.mean())
    assert not math.isfinite(seen.layers[0].std)
    assert math.isinf(seen.parameters[0].norm)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("behind", [True, False])
def test_reentrant_checkpoints_are_refused_with_a_word_on_what_to_do(
    reentrant: bool, behind: bool
) -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 1)
            if behind:
                self.before = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x) if behind else x.requires_grad_()
            hidden = checkpoint(self.first, x, use_reentrant=reentrant)
            answer: Tensor = self.last(hidden)
            return answer

    model, batch = Saving(), (torch.ones(4, 2), torch.ones(4, 1))
    if not reentrant:
        seen = survey(model, batch, loss=functional.mse_loss)
        assert all(record.gradient for record in seen.parameters)
        return
    with pytest.raises(MeasurementError, match="reentrant") as caught:
        survey(model, batch, loss=functional.mse_loss)
    assert "use_reentrant=False" in caught.value.remedy
