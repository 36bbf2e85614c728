"""Tests of the transformer's block, against torch's own in both forms."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from leadline.nn.initialisation import initialise
from leadline.nn.transformer_block import TransformerBlock, TransformerChoices

CHOICES = TransformerChoices(features=12, heads=3, hidden=24, norm="layer", activation="gelu")


@pytest.mark.parametrize("pre_norm", [True, False])
def test_it_is_torch_s_encoder_layer(pre_norm: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 24, dropout=0.0, activation="gelu", batch_first=True, norm_first=pre_norm,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    ours = TransformerBlock(dataclasses.replace(CHOICES, pre_norm=pre_norm))
    state = theirs.state_dict()
    names = {
        "attn.qkv.weight": "self_attn.in_proj_weight",
        "attn.qkv.bias": "self_attn.in_proj_bias",
        **{
            f"{our}.{kind}": f"{their}.{kind}"
            for our, their in (
                ("attn.proj", "self_attn.out_proj"),
                ("mlp.fc1", "linear1"),
                ("mlp.fc2", "linear2"),
                ("norm1", "norm1"),
                ("norm2", "norm2"),
            )
            for kind in ("weight", "bias")
        },
    }
    ours.load_state_dict({our: state[their] for our, their in names.items()})
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(tokens), theirs(tokens))


def test_without_residual_paths_the_branches_stand_in_a_row() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(dataclasses.replace(CHOICES, residual=False))
    tokens = torch.randn(2, 5, 12)
    expected = block.mlp(block.norm2(block.attn(block.norm1(tokens))))
    torch.testing.assert_close(block(tokens), expected)


def test_zero_last_makes_it_the_identity_at_first() -> None:
    block = TransformerBlock(CHOICES)
    initialise(block, scheme="zero_last", activation="gelu")
    tokens = torch.randn(2, 5, 12)
    assert torch.equal(block(tokens), tokens)
    assert block.attn.qkv.weight.any()


def test_a_tiny_layer_scale_makes_it_nearly_the_identity() -> None:
    block = TransformerBlock(dataclasses.replace(CHOICES, layer_scale=1e-6))
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(block(tokens), tokens, atol=1e-4, rtol=0)
