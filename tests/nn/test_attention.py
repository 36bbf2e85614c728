"""Tests of attention, against the formula and torch's own layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from leadline.core.errors import ModelError
from leadline.nn.attention import SelfAttention


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_the_formula(causal: bool) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(12, heads=3, causal=causal).double()
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    queries, keys, values = layer.qkv(tokens).split(12, dim=-1)
    heads = []
    for h in range(3):
        q, k, v = (x[..., 4 * h : 4 * h + 4] for x in (queries, keys, values))
        scores = q @ k.transpose(1, 2) / math.sqrt(4)
        if causal:
            hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, -math.inf)
        heads.append(scores.softmax(dim=-1) @ v)
    torch.testing.assert_close(layer(tokens), layer.proj(torch.cat(heads, dim=-1)))


def test_it_is_torch_s_multihead_attention() -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    ours = SelfAttention(12, heads=3)
    with torch.no_grad():
        ours.qkv.weight.copy_(theirs.in_proj_weight)
        ours.qkv.bias.copy_(theirs.in_proj_bias)
        ours.proj.load_state_dict(theirs.out_proj.state_dict())
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0])


def test_without_a_mask_the_order_of_tokens_means_nothing() -> None:
    torch.manual_seed(0)
    layer, tokens, order = SelfAttention(8, heads=2), torch.randn(1, 6, 8), torch.randperm(6)
    torch.testing.assert_close(layer(tokens)[:, order], layer(tokens[:, order]))


def test_dropout_is_active_in_training_only() -> None:
    layer, tokens = SelfAttention(8, heads=2, dropout=0.5), torch.randn(1, 6, 8)
    assert not torch.equal(layer(tokens), layer(tokens))
    layer.eval()
    assert torch.equal(layer(tokens), layer(tokens))


def test_heads_that_do_not_divide_the_features_are_refused() -> None:
    with pytest.raises(ModelError, match="received 10 features and 3 heads"):
        SelfAttention(10, heads=3)
