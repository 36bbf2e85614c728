"""Tests of the remedies within a network: each answers as the network built by hand does."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.remedies.layers import (
    activation_behind,
    dropout_behind,
    dropout_times,
    group_norms,
    norms_behind,
    other_activations,
    other_ending,
    redraw,
    usual_momentum,
    usual_weights,
    without_dropout,
)


def net(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A factory of a chain of layers, each drawn anew."""
    return lambda: nn.Sequential(*(make() for make in layers))


def linear(inputs: int, outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(inputs, outputs)


# ------------------------------------------------------------------------------------ the end of it


def test_a_softmax_at_the_end_becomes_a_sigmoid(make_setup: Any, alike: Any) -> None:
    sick = make_setup(
        model=net(linear(4, 3), lambda: nn.Softmax(dim=1)), loss=lambda o, t: o.square().mean()
    )
    by_hand = replace(sick, model=net(linear(4, 3), nn.Sigmoid))
    alike(other_ending("1", "sigmoid", was="nn.Softmax(dim=1)")(sick), by_hand)


def test_an_activation_at_the_end_is_taken_away(make_setup: Any, alike: Any) -> None:
    sick = make_setup(model=net(linear(4, 3), nn.ReLU))
    remedy = other_ending("1", None, was="nn.ReLU()")
    alike(remedy(sick), replace(sick, model=linear(4, 3)))
    assert remedy.lines == ("- nn.ReLU()",)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_softmax_is_put_at_the_end_along_the_classes(make_setup: Any, axis: int) -> None:
    model = other_ending(None, "softmax", axis=axis)(make_setup(model=nn.Identity)).model()
    x = torch.randn(2, 3, 5)
    torch.testing.assert_close(model(x), x.exp() / x.exp().sum(dim=axis, keepdim=True))


# ---------------------------------------------------------------------------- activations inside it


def test_other_activations_stand_where_the_old_ones_were(make_setup: Any) -> None:
    sick = make_setup(model=net(linear(4, 6), nn.Sigmoid, linear(6, 6), nn.Sigmoid, linear(6, 3)))
    remedy = other_activations(["1", "3"], "relu", was="Sigmoid")
    model = remedy(sick).model()
    assert [type(m).__name__ for m in model] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]  # type: ignore[attr-defined]
    assert remedy.lines == ("- nn.Sigmoid()", "+ nn.ReLU()")
    assert all(not m.bias.any() for m in model.modules() if isinstance(m, nn.Linear))


def test_an_activation_is_put_behind_each_layer_named(make_setup: Any, alike: Any) -> None:
    sick = make_setup(model=net(linear(4, 6), linear(6, 6), linear(6, 3)))
    by_hand = replace(sick, model=net(linear(4, 6), nn.ReLU, linear(6, 6), nn.ReLU, linear(6, 3)))
    remedy = activation_behind(["0", "1"])
    alike(remedy(sick), by_hand)
    assert remedy.lines == ("+ nn.ReLU()  # behind 0", "+ nn.ReLU()  # behind 1")
    assert list(remedy(sick).model().state_dict()) == list(sick.model().state_dict())


# ------------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.2])
def test_dropout_rates_are_scaled(make_setup: Any, factor: float) -> None:
    sick = make_setup(model=net(lambda: nn.Dropout(0.8), lambda: nn.Dropout2d(0.4), linear(4, 3)))
    remedy = dropout_times(factor)
    rates = [m.p for m in remedy(sick).model() if hasattr(m, "p")]  # type: ignore[attr-defined]
    assert rates == pytest.approx([0.8 * factor, 0.4 * factor])
    assert remedy.settings == ({"model.dropout": 0.0} if factor == 0 else {})


def test_without_dropout_the_training_is_that_of_the_network_without(
    make_setup: Any, alike: Any
) -> None:
    sick = make_setup(model=net(linear(4, 6), nn.ReLU, lambda: nn.Dropout(0.9), linear(6, 3)))
    alike(dropout_times(0.0)(sick), replace(sick, model=net(linear(4, 6), nn.ReLU, linear(6, 3))))


def test_without_dropout_of_the_answers_the_others_stay(make_setup: Any, alike: Any) -> None:
    hidden = (linear(4, 6), lambda: nn.Dropout(0.2), linear(6, 3))
    sick = make_setup(model=net(*hidden, lambda: nn.Dropout(0.5)))
    alike(without_dropout("3")(sick), replace(sick, model=net(*hidden)))


def test_a_dropout_behind_a_layer_drops_in_training_only(make_setup: Any, alike: Any) -> None:
    sick = make_setup()
    by_hand = replace(sick, model=net(linear(4, 6), nn.ReLU, lambda: nn.Dropout(0.5), linear(6, 3)))
    mended = dropout_behind("1", 0.5)(sick)
    alike(mended, by_hand)
    model, inputs = mended.model().eval(), torch.randn(5, 4)
    torch.testing.assert_close(model(inputs), model(inputs))
    plain = sick.model()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(inputs), plain(inputs))


def test_a_copy_of_the_model_has_a_dropout_of_its_own(make_setup: Any) -> None:
    """A running average is such a copy: it evaluates while the original goes on training."""
    model = dropout_behind("1", 0.99)(make_setup()).model().train()
    other = copy.deepcopy(model).eval()
    inputs = torch.randn(50, 4)
    assert torch.equal(other(inputs), other(inputs))
    assert not torch.equal(model(inputs), model(inputs))


# -------------------------------------------------------------------------------------------- norms


def test_a_batch_norm_without_momentum_is_given_the_usual_one(make_setup: Any) -> None:
    sick = make_setup(
        model=net(
            lambda: nn.BatchNorm1d(4, momentum=0.0),
            lambda: nn.BatchNorm1d(4, momentum=0.3),
            linear(4, 3),
        )
    )
    model = usual_momentum()(sick).model()
    inputs = torch.randn(64, 4) + 5
    model(inputs)
    torch.testing.assert_close(model[0].running_mean, 0.1 * inputs.mean(0))  # type: ignore[index]
    assert model[1].momentum == 0.3  # type: ignore[index]


@pytest.mark.parametrize("channels", [6, 8, 16])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_a_group_norm_takes_the_place_of_a_batch_norm(
    make_setup: Any, kind: Any, channels: int
) -> None:
    model = group_norms()(make_setup(model=net(lambda: kind(channels)))).model()
    x = torch.randn(3, channels, *[4] * (int(kind.__name__[-2]) - (kind is nn.BatchNorm1d)))
    groups = 1 if kind is nn.BatchNorm1d else math.gcd(8, channels)
    rows = x.reshape(3, groups, -1)
    expected = (rows - rows.mean(2, keepdim=True)) / (
        rows.var(2, keepdim=True, unbiased=False) + 1e-5
    ).sqrt()
    torch.testing.assert_close(model(x), expected.reshape(x.shape), rtol=1e-4, atol=1e-5)


def test_a_norm_is_put_behind_each_layer_named(make_setup: Any, alike: Any) -> None:
    sick = make_setup()
    by_hand = replace(sick, model=net(linear(4, 6), lambda: nn.LayerNorm(6), nn.ReLU, linear(6, 3)))
    outputs = norms_behind(["0"])
    alike_in_names = outputs(sick).model().state_dict()
    assert {"0.leadline_norm.weight", "0.leadline_norm.bias"} < set(alike_in_names)
    torch.manual_seed(3)
    mended = outputs(sick).model()
    torch.manual_seed(3)
    other = by_hand.model()
    inputs = torch.randn(5, 4)
    torch.testing.assert_close(mended(inputs), other(inputs))
    mended(inputs).sum().backward()
    assert mended[0].leadline_norm.weight.grad is not None  # type: ignore[index, union-attr]


def test_channels_of_images_are_normed_in_groups(make_setup: Any) -> None:
    model = norms_behind(["0"])(make_setup(model=net(lambda: nn.Conv2d(3, 12, 3)))).model()
    answers = model(torch.randn(2, 3, 8, 8)).reshape(2, 4, -1)  # 4 = gcd(8, 12) groups
    torch.testing.assert_close(answers.mean(2), torch.zeros(2, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        answers.var(2, unbiased=False), torch.ones(2, 4), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (net(linear(4, 4)), norms_behind(["0"])),
        (net(lambda: nn.BatchNorm1d(4)), group_norms()),
    ],
)
def test_a_new_norm_has_the_precision_of_its_layer(make_setup: Any, make: Any, remedy: Any) -> None:
    model = remedy(make_setup(model=lambda: make().double())).model()
    assert model(torch.randn(5, 4, dtype=torch.float64)).dtype == torch.float64


# -------------------------------------------------------------------------------- the first weights


def test_weights_are_drawn_by_hes_rule_before_a_rectifier_and_glorots_at_the_end() -> None:
    model = nn.Sequential(nn.Linear(500, 400), nn.ReLU(), nn.Linear(400, 300))
    nn.init.constant_(model[0].weight, 0.3)  # type: ignore[arg-type]
    redraw(model)
    first, last = model[0].weight, model[2].weight
    assert first.std().item() == pytest.approx(math.sqrt(2 / 500), rel=0.02)
    assert last.abs().max().item() == pytest.approx(math.sqrt(6 / 700), rel=0.02)
    assert not model[0].bias.any() and not model[2].bias.any()


def test_the_weights_of_a_convolution_count_its_window() -> None:
    model = nn.Sequential(nn.Conv2d(32, 64, 5), nn.ReLU(), nn.Conv2d(64, 8, 3))
    redraw(model)
    assert model[0].weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 25)), rel=0.02)


def test_before_a_tanh_all_weights_are_glorots() -> None:
    model = nn.Sequential(nn.Linear(500, 400), nn.Tanh(), nn.Linear(400, 300))
    redraw(model, activation="tanh")
    assert model[0].weight.abs().max().item() == pytest.approx(math.sqrt(6 / 900), rel=0.02)


def test_frozen_tied_and_norm_weights_stay_as_they_are() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.frozen = nn.Embedding(7, 5), nn.Linear(5, 5)
            self.norm, self.head = nn.LayerNorm(5), nn.Linear(5, 7)
            self.frozen.requires_grad_(False)
            self.head.weight = self.tokens.weight

    model = Tied()
    before = {name: p.clone() for name, p in model.named_parameters()}
    redraw(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(
    ("activation", "rule"), [("relu", "kaiming_normal_"), ("tanh", "xavier_uniform_")]
)
def test_the_remedy_names_the_rule(make_setup: Any, activation: str, rule: str) -> None:
    remedy = usual_weights(activation)
    assert rule in remedy.title and rule in remedy.diff
    sick = make_setup(model=lambda: nn.Linear(4, 3))
    weight = remedy(sick).model().weight
    assert isinstance(weight, Tensor)
    assert weight.abs().max().item() <= math.sqrt(6 / 7)  # one layer is the last: Glorot's
