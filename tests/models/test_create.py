"""Tests of models by name."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ConfigError, ModelError, UnknownNameError
from leadline.models.architecture import Architecture
from leadline.models.create import create_model, describe_model, list_models, resolve
from leadline.models.resnet_cifar import ResNetCifar


def test_the_list_has_every_family_from_its_smallest_to_its_largest() -> None:
    names = list_models()
    assert len(names) == len(set(names))
    assert names[:5] == ("mlp", "convnet", "alexnet", "vgg11", "vgg13")
    families = (
        ("vgg11", "vgg13", "vgg16", "vgg19"),
        ("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
        ("googlenet", "inception_v3"),
        ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"),
        ("preresnet164", "preresnet1001"),
        ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        ("wide_resnet50_2", "wide_resnet101_2"),
        ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
        ("seresnet18", "seresnet50", "seresnext50_32x4d"),
        ("densenet121", "densenet169", "densenet201", "densenet161"),
    )
    for family in families:
        assert tuple(name for name in names if name in family) == family


def test_a_name_alone_is_an_architecture_with_every_default() -> None:
    by_name = create_model("resnet20", num_classes=10, in_chans=3, image_size=32)
    asked = Architecture(model="resnet20")
    built = create_model(asked, num_classes=10, in_chans=3, image_size=32)
    assert isinstance(by_name, ResNetCifar)
    assert by_name.state_dict().keys() == built.state_dict().keys()
    assert resolve("resnet20") == resolve(asked)


def test_a_name_and_choices_build_the_original_unless_told_otherwise() -> None:
    model = create_model("resnet18")
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_689_512
    chosen = create_model("resnet20", num_classes=10, image_size=8, width=4, norm="group")
    asked = Architecture(model="resnet20", width=4, norm="group")
    built = create_model(asked, num_classes=10, in_chans=3, image_size=8)
    assert chosen.state_dict().keys() == built.state_dict().keys()


def test_a_choice_that_no_one_has_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("resnet20", widht=4)
    assert caught.value.received == "'widht' (did you mean 'width'?)"
    assert caught.value.remedy == "leave it out, or see leadline list resnet20"


def test_weights_come_with_the_model() -> None:
    source = create_model("convnet", num_classes=2, image_size=8)
    model = create_model("convnet", num_classes=2, image_size=8, pretrained=source.state_dict())
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model.eval()(images), source.eval()(images))


def test_a_depth_overrides_the_one_in_the_name() -> None:
    architecture = Architecture(model="resnet20", depth=32)
    deeper = create_model(architecture, num_classes=10, in_chans=3, image_size=32)
    named = create_model("resnet32", num_classes=10, in_chans=3, image_size=32)
    assert deeper.state_dict().keys() == named.state_dict().keys()


def test_building_draws_from_the_global_random_state_alone() -> None:
    def weights() -> torch.Tensor:
        torch.manual_seed(3)
        model = create_model("convnet", num_classes=2, in_chans=1, image_size=8)
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    assert torch.equal(weights(), weights())


def test_an_unknown_model_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        create_model("resnet_20", num_classes=10, in_chans=3, image_size=32)
    assert caught.value.received == "'resnet_20' (did you mean 'resnet20'?)"
    with pytest.raises(UnknownNameError, match=r"did you mean 'convnet'\?"):
        describe_model("convet")


@pytest.mark.parametrize(("name", "side"), [("resnet20", 4), ("resnet18", 32), ("convnet", 1)])
def test_images_too_small_for_instance_norm_are_refused(name: str, side: int) -> None:
    architecture = Architecture(model=name, norm="instance")
    with pytest.raises(ModelError) as caught:
        create_model(architecture, num_classes=2, in_chans=3, image_size=side)
    assert str(caught.value) == (
        f"expected maps larger than one pixel, over which instance norm can average, in {name}: "
        f"images of at least {side + 1} x {side + 1} pixels\n"
        f"received images of {side} x {side} pixels\n"
        f"do this  enlarge them (image_size={side + 1} or more), choose another norm, or take "
        "convnet, which halves them less"
    )
    create_model(architecture, num_classes=2, in_chans=3, image_size=side + 1)


def test_images_without_classes_channels_or_pixels_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_classes must be >= 1, received 0"):
        create_model("mlp", num_classes=0, in_chans=1, image_size=8)


def test_stochastic_depth_reaches_the_last_block_in_full_and_grows_linearly() -> None:
    architecture = Architecture(model="resnet20", drop_path_rate=0.9)
    model = create_model(architecture, num_classes=2, in_chans=3, image_size=8)
    rates = [module.rate for module in model.modules() if hasattr(module, "rate")]
    assert rates == pytest.approx([0.1 * block for block in range(1, 10)])


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet20", "resnet18"])
def test_dropout_is_active_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    architecture = Architecture(model=name, dropout=0.5, norm="layer")
    model = create_model(architecture, num_classes=4, in_chans=3, image_size=8)
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        assert not torch.equal(model(images), model(images))
        model.eval()
        assert torch.equal(model(images), model(images))


NORMS = ("batch", "layer", "group", "rms", "none", "instance")
ACTIVATIONS = ("relu", "leaky_relu", "gelu", "silu", "selu", "tanh", "sigmoid")
REFUSED = {
    ("mlp", "preactivation", True),
    ("convnet", "preactivation", True),
    ("mlp", "norm", "instance"),
}
INITS = ("xavier", "he", "lecun", "orthogonal", "trunc_normal", "fixup", "zero_last", "default")


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet20", "resnet18", "resnet50"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("norm", norm) for norm in NORMS),
        *(("activation", activation) for activation in ACTIVATIONS),
        *(("init", init) for init in INITS),
        ("residual", False),
        ("residual", True),
        ("preactivation", True),
        ("drop_path_rate", 0.5),
    ],
)
def test_every_choice_builds_and_learns_or_is_refused_by_name(
    name: str, option: str, value: str | bool | float
) -> None:
    torch.manual_seed(0)
    options = {"depth": 3} if name in ("mlp", "convnet") else {}
    options |= {"residual": True} if name == "mlp" and option != "residual" else {}
    architecture = Architecture(model=name, width=8, **options, **{option: value})
    if (name, option, value) in REFUSED:
        with pytest.raises(ConfigError) as caught:
            resolve(architecture)
        assert [problem.split(":")[0] for problem in caught.value.problems] == [option]
        return
    model = create_model(architecture, num_classes=3, in_chans=3, image_size=40)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images, targets = torch.randn(6, 3, 40, 40), torch.arange(6) % 3
    loss = torch.nn.functional.cross_entropy(model(images), targets)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert loss.isfinite()
    assert any(gradient is not None and gradient.any() for gradient in gradients)
    optimizer.step()
