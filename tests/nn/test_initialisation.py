"""Tests of initialisation: the variance of the weights against each paper's formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from leadline.core.errors import ModelError, UnknownNameError
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.nn.activations import ACTIVATIONS, activation_gain
from leadline.nn.initialisation import initialise, weight_layers
from leadline.nn.residual import residual_blocks

FORMULAS: dict[str, Callable[[int, int, float], float]] = {
    "xavier": lambda fan_in, fan_out, gain: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out, gain: gain**2 / fan_in,
    "lecun": lambda fan_in, fan_out, gain: 1 / fan_in,
    "orthogonal": lambda fan_in, fan_out, gain: gain**2 / max(fan_in, fan_out),
    "trunc_normal": lambda fan_in, fan_out, gain: 0.02**2,
}
LAYERS: dict[str, Callable[[], nn.Linear | nn.Conv2d]] = {
    "linear": lambda: nn.Linear(400, 100),
    "convolution": lambda: nn.Conv2d(32, 64, 3),
    "grouped convolution": lambda: nn.Conv2d(64, 64, 5, groups=2),
}


@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("scheme", FORMULAS)
def test_the_variance_of_the_weights_is_the_formula_s(
    scheme: str, activation: str, layer_name: str
) -> None:
    torch.manual_seed(0)
    layer = LAYERS[layer_name]()
    initialise(layer, scheme=scheme, activation=activation)
    weight = layer.weight.detach()
    fan_in = weight[0].numel()
    # of an orthogonal kernel the rows are the outputs; else every pixel of a kernel fans out
    fan_out = weight.shape[0] * (1 if scheme == "orthogonal" else weight[0, 0].numel())
    expected = FORMULAS[scheme](fan_in, fan_out, activation_gain(activation))
    standard_error = (2 / weight.numel()) ** 0.5
    assert abs(weight.square().mean().item() / expected - 1) < 5 * standard_error
    assert layer.bias is not None
    assert not layer.bias.any()


def test_orthogonal_weights_have_every_singular_value_at_the_gain() -> None:
    layer = nn.Conv2d(8, 16, 3)
    initialise(layer, scheme="orthogonal", activation="relu")
    singular = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    torch.testing.assert_close(singular, torch.full((16,), 2**0.5))


@pytest.mark.parametrize(
    ("activation", "depth"),
    # GELU and SiLU bend with the signal's size, so that a small deviation grows with depth
    [("relu", 50), ("leaky_relu", 50), ("selu", 50), ("gelu", 10), ("silu", 10)],
)
def test_he_keeps_the_signal_s_mean_square_through_the_depth(activation: str, depth: int) -> None:
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(512, 512), ACTIVATIONS[activation]())]
    deep = nn.Sequential(*layers[:-1])
    initialise(deep, scheme="he", activation=activation)
    signal = torch.randn(64, 512)
    with torch.no_grad():
        # inputs that are the activation of a unit normal, as those of every later layer
        out = deep(ACTIVATIONS[activation]()(signal))
    assert 0.2 < out.square().mean().item() < 5


def test_default_leaves_what_pytorch_drew() -> None:
    layer = nn.Linear(4, 3)
    before = layer.weight.clone()
    initialise(layer, scheme="default", activation="relu")
    assert torch.equal(layer.weight, before)


def small(model: str = "resnet20", **options: object) -> nn.Module:
    torch.manual_seed(0)
    architecture = Architecture(model=model, **options)  # type: ignore[arg-type]
    return create_model(architecture, num_classes=5, in_chans=3, image_size=16)


def branch_output(block: nn.Module, signal: Tensor) -> Tensor:
    for module in block.branches()[0]:  # type: ignore[operator]
        signal = module(signal)
    return signal


@pytest.mark.parametrize("init", ["fixup", "zero_last"])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("resnet20", {}),
        ("resnet20", {"preactivation": True}),
        ("resnet50", {"width": 8}),
        ("convnet", {"depth": 3, "width": 8}),
        ("mlp", {"depth": 4, "width": 32, "residual": True}),
    ],
)
def test_every_residual_branch_starts_at_zero(
    init: str, model: str, options: dict[str, object]
) -> None:
    network = small(model, init=init, **options)
    blocks = residual_blocks(network)
    assert blocks
    for block in blocks:
        first = weight_layers(block)[0].weight
        inputs = first.shape[1]
        signal = torch.randn(2, inputs) if first.ndim == 2 else torch.randn(2, inputs, 8, 8)
        assert not branch_output(block, signal).any()


def test_fixup_scales_the_other_layers_of_a_branch_by_the_depth() -> None:
    # resnet20: L = 9 branches of m = 2 layers, so 9^(-1/2) = 1/3; resnet50: 16 of 3, 16^(-1/4)
    for model, count, root, width in (("resnet20", 9, 2, 64), ("resnet50", 16, 4, 32)):
        network = small(model, init="fixup", width=width)
        blocks = residual_blocks(network)
        assert len(blocks) == count
        weight = weight_layers(blocks[0])[0].weight.detach()
        expected = 2 / weight[0].numel() * count ** (-2 / root)
        assert weight.square().mean().item() == pytest.approx(expected, rel=0.12)


def test_fixup_zeroes_the_head_so_that_every_class_starts_equally_likely() -> None:
    logits = small(init="fixup")(torch.randn(2, 3, 16, 16))
    assert not logits.any()


def test_fixup_has_one_multiplier_per_branch_and_no_norm() -> None:
    names = [name for name, _ in small(init="fixup").named_parameters()]
    assert sum(name.endswith("join.scale") for name in names) == 9
    assert not any("bn" in name for name in names)


@pytest.mark.parametrize("scheme", ["fixup", "zero_last"])
def test_a_model_without_residual_blocks_is_refused(scheme: str) -> None:
    with pytest.raises(ModelError) as caught:
        initialise(nn.Linear(2, 2), scheme=scheme, activation="relu")
    assert str(caught.value) == (
        f"expected residual blocks for the initialisation '{scheme}'\n"
        "received a Linear without a residual path\n"
        "do this  switch the residual path on, or use the initialisation 'he'"
    )


def test_fixup_refuses_a_branch_with_a_norm_and_leaves_the_weights() -> None:
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelError, match="Fixup takes its place"):
        initialise(model, scheme="fixup", activation="relu")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_unknown_scheme_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'xaver' \(did you mean 'xavier'\?\)"):
        initialise(nn.Linear(2, 2), scheme="xaver", activation="relu")
