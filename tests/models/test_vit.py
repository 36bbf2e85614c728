"""Tests of the vision transformer: published sizes, tokens, positions, what it cannot do."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ConfigError
from leadline.models.create import create_model
from leadline.models.pretrained import load_pretrained
from leadline.nn.positions import resize_positions

COUNTS = {
    "vit_ti_16": 5_717_416,
    "vit_s_16": 22_050_664,
    "vit_b_16": 86_567_656,
    "vit_b_32": 88_224_232,
    "vit_l_16": 304_326_632,
}


@pytest.mark.parametrize("name", COUNTS)
def test_it_has_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize(
    ("choices", "tokens"),
    [
        ({}, 17),
        ({"registers": 4}, 21),
        ({"pooling": "mean"}, 16),
        ({"pooling": "mean", "registers": 2}, 18),
        ({"patch_size": 4}, 257),
        ({"positions": "sine"}, 17),
    ],
)
def test_the_tokens_are_those_of_the_choices(choices: dict[str, object], tokens: int) -> None:
    torch.manual_seed(0)
    model = create_model("vit_ti_16", num_classes=3, width=8, depth=2, image_size=64, **choices)
    images = torch.randn(2, 3, 64, 64)
    assert model.forward_features(images).shape == (2, tokens, 8)
    model(images).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("positions", ["learned", "sine"])
def test_it_reads_other_sizes_and_sides_that_are_no_multiple(positions: str) -> None:
    model = create_model("vit_ti_16", num_classes=3, width=8, depth=2, positions=positions)
    assert model(torch.randn(2, 3, 100, 57)).shape == (2, 3)


def test_sine_positions_are_no_weights_and_no_part_of_the_state() -> None:
    model = create_model("vit_ti_16", num_classes=3, width=8, depth=2, positions="sine")
    assert "pos_embed" not in model.state_dict()
    learned = create_model("vit_ti_16", num_classes=3, width=8, depth=2)
    assert "pos_embed" in learned.state_dict()


def test_weights_for_another_size_are_taken_with_their_positions_interpolated() -> None:
    torch.manual_seed(0)
    small = create_model("vit_ti_16", num_classes=3, width=8, depth=2, image_size=64)
    large = create_model("vit_ti_16", num_classes=3, width=8, depth=2, image_size=96)
    load_pretrained(large, small.state_dict())
    expected = resize_positions(small.pos_embed, old=(4, 4), new=(6, 6), others=1)
    torch.testing.assert_close(large.pos_embed, expected)
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(large.eval()(images), small.eval()(images))


def test_what_it_cannot_be_asked_for_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("vit_ti_16", width=10, heads=3, norm="batch", patch_size=0)
    assert caught.value.problems == (
        "options: patch_size must be >= 1, received 0",
        "width: 10 features do not fall into 3 heads evenly: use a multiple, or other heads",
        "norm: tokens have layer, rms, none, received 'batch'",
    )
    with pytest.raises(ConfigError, match="sine positions need a multiple of 4, received 6"):
        create_model("vit_ti_16", width=6, positions="sine")
