"""Tests of weights under other names, each library's own model giving the same logits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from original import randomised, timm_model, torchvision_model
from torch import Tensor, nn

from leadline.core.errors import ModelError
from leadline.models.create import create_model, list_models, resolve
from leadline.models.foreign import key_tables, translate
from leadline.models.weights import load_weights


def taken(name: str, state: Mapping[str, Tensor], **choices: object) -> nn.Module:
    model = create_model(name, num_classes=7, image_size=64, **choices)
    tables = key_tables(name, resolve(name))
    load_weights(model, translate(state, model.state_dict(), tables))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("convnext_tiny", "convnext_tiny"),
        ("convnext_small", "convnext_small"),
        ("efficientnet_b0", "efficientnet_b0"),
        ("efficientnet_b3", "efficientnet_b3"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("densenet121", "densenet121"),
        ("vgg11_bn", "vgg11_bn"),
        ("resnet50", "resnet50"),
    ],
)
def test_timm_s_weights_give_timm_s_logits(name: str, theirs: str) -> None:
    original = timm_model(theirs, num_classes=7).eval()
    images = torch.randn(2, 3, 64, 64)
    if theirs.startswith("vgg"):
        images = torch.randn(2, 3, 224, 224)  # timm's needs them, where ours averages
    with torch.no_grad():
        found, expected = taken(name, original.state_dict())(images), original(images)
    assert ((found - expected).abs().max() / expected.abs().max()).item() < 1e-5


@pytest.mark.parametrize(("name", "size"), [("vit_b_16", 64), ("vit_b_32", 64)])
def test_torchvision_s_transformers_give_their_logits(name: str, size: int) -> None:
    original = torchvision_model(name, num_classes=7, image_size=size).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        found, expected = taken(name, original.state_dict())(images), original(images)
    assert ((found - expected).abs().max() / expected.abs().max()).item() < 1e-5


def in_their_names(name: str, library: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model of ours, and its weights as the library would have saved them."""
    torch.manual_seed(0)
    model = randomised(create_model(name, num_classes=7, image_size=64)).eval()
    state: dict[str, Tensor] = {}
    own = model.state_dict()
    for theirs, ours in key_tables(name, resolve(name))[library]:
        plain, _, place = ours.partition("[")
        for key, value in own.items():
            if key == plain or key.startswith(f"{plain}."):
                part = value.chunk(3)[int(place[0])] if place else value
                state[theirs + key[len(plain) :]] = part
    return model, state


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "convnext_tiny", "vit_ti_16"])
def test_hugging_face_s_names_give_the_same_logits(name: str) -> None:
    model, state = in_their_names(name, "transformers")
    assert not set(state) & set(model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(taken(name, state)(images), model(images))


def test_the_names_are_those_of_the_published_files() -> None:
    """A few keys of resnet-50, vit-base-patch16-224 and convnext-tiny-224 on the hub."""
    for name, keys in {
        "resnet50": (
            "resnet.embedder.embedder.convolution",
            "resnet.encoder.stages.0.layers.0.shortcut.normalization",
            "resnet.encoder.stages.3.layers.2.layer.2.convolution",
            "classifier.1",
        ),
        "vit_b_16": (
            "vit.embeddings.patch_embeddings.projection",
            "vit.encoder.layer.11.attention.attention.query",
            "vit.encoder.layer.0.layernorm_before",
            "classifier",
        ),
        "convnext_tiny": (
            "convnext.embeddings.patch_embeddings",
            "convnext.encoder.stages.1.downsampling_layer.0",
            "convnext.encoder.stages.2.layers.8.pwconv2",
            "convnext.layernorm",
        ),
    }.items():
        theirs = {row[0] for row in key_tables(name, resolve(name))["transformers"]}
        assert set(keys) <= theirs


@pytest.mark.parametrize("name", [n for n in list_models() if key_tables(n, resolve(n))])
def test_every_tensor_of_ours_is_in_every_table(name: str) -> None:
    with torch.device("meta"):
        own = create_model(name).state_dict()
    for library, table in key_tables(name, resolve(name)).items():
        ours = {row[1].partition("[")[0] for row in table}
        left = [key for key in own if not any(key == o or key.startswith(f"{o}.") for o in ours)]
        assert left == [], library


def test_a_file_with_a_part_of_a_joined_tensor_is_refused() -> None:
    _, state = in_their_names("vit_ti_16", "transformers")
    del state["vit.encoder.layer.3.attention.attention.key.bias"]
    with pytest.raises(ModelError, match=r"joined to blocks.3.attn.qkv.bias"):
        taken("vit_ti_16", state)


def test_what_no_table_has_is_left_as_it_is() -> None:
    assert list(translate({"strange": torch.zeros(1)}, {"own": torch.zeros(1)}, {})) == ["strange"]
