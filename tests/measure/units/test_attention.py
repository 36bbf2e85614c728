"""Tests of attention in every form: kernels, modules, written out; against whole weights."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.units.attention import attention, attention_heads


def entropies(weights: Tensor, visible: Tensor | None = None) -> list[float]:
    """Each head's mean ratio, from whole weights [N, H, T, S]."""
    count = torch.full(weights.shape[:-1], weights.shape[-1])
    count = count if visible is None else visible.expand(weights.shape).sum(-1)
    entropy = torch.special.entr(weights.double()).sum(-1)
    chosen = count >= 2
    return [
        (entropy[:, h] / count[:, h].log())[chosen[:, h]].mean().item()
        for h in range(weights.shape[1])
    ]


class Module(nn.Module):
    """nn.MultiheadAttention, called as asked."""

    def __init__(self, *, heads: int = 2, **options: Any) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, heads, **options)
        self.call: dict[str, Any] = {}

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        y = x if y is None else y
        return self.attend(x, y, y, **self.call)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True},
        {"batch_first": False},
        {"batch_first": True, "bias": False},
        {"batch_first": True, "add_bias_kv": True},
        {"batch_first": True, "add_zero_attn": True},
        {"batch_first": True, "kdim": 5, "vdim": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("masks", ["none", "boolean", "padding", "both", "of heads"])
@pytest.mark.parametrize("training", [True, False])
def test_a_multi_head_attention_is_read_as_torch_computes_it(
    options: dict[str, Any], masks: str, training: bool
) -> None:
    torch.manual_seed(0)
    model = Module(**options).train(training)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    x, y = torch.randn(4, 6, 8), torch.randn(4, 5, options.get("kdim", 8))
    if not options["batch_first"]:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
    padding = torch.zeros(4, 5, dtype=torch.bool)
    padding[1, 3:] = padding[2, 4:] = True
    if masks in ("boolean", "both"):
        model.call["attn_mask"] = torch.ones(6, 5, dtype=torch.bool).triu(2)
    if masks == "of heads":
        model.call["attn_mask"] = torch.randn(8, 6, 5)
    if masks in ("padding", "both"):
        model.call["key_padding_mask"] = padding
    asked = {**model.call, "need_weights": True, "average_attn_weights": False}
    weights = model.attend(x, y, y, **asked)[1]
    model.call["need_weights"] = False
    profile = attention_heads(model, ((x, y), torch.zeros(4)))
    visible = torch.ones(4, 1, 6, weights.shape[-1], dtype=torch.bool)
    if masks in ("boolean", "both"):
        visible[..., :5] &= ~model.call["attn_mask"]
    if masks in ("padding", "both"):
        visible[..., :5] &= ~padding[:, None, None, :]
    assert profile.layers == ("attend [0]", "attend [1]")
    assert profile.column("ratio") == pytest.approx(entropies(weights, visible), rel=1e-4)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.encoder(x, src_key_padding_mask=padding)


def test_the_fast_path_of_an_encoder_is_off() -> None:
    torch.manual_seed(0)
    model, x = Encoder(), torch.randn(3, 5, 8)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[0, 3:] = True
    trained = attention(model.train(), x)
    assert trained.layers == ("encoder.layers.0.self_attn", "encoder.layers.1.self_attn")
    fast = attention(model.eval(), x)
    for column in ("ratio", "first", "diagonal", "distance"):
        assert fast.column(column) == pytest.approx(trained.column(column), rel=1e-5)
    padded = attention(model, ((x, padding), torch.zeros(3)))
    assert padded.layers == trained.layers


class Kernel(nn.Module):
    """scaled_dot_product_attention, called as asked, or the same written out."""

    def __init__(self, *, written: bool = False, **call: Any) -> None:
        super().__init__()
        self.written, self.call = written, call
        self.dropout = nn.Dropout(0.1)
        self.num_heads = 2

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        if not self.written:
            return functional.scaled_dot_product_attention(q, k, k, **self.call)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if self.call:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = self.dropout(functional.softmax(scores, dim=-1, dtype=torch.float32))
        if q.ndim == 3:
            return torch.bmm(weights, k)
        return weights @ k


@pytest.mark.parametrize("shape", [(3, 2, 6, 4), (6, 6, 4), (5, 3, 2, 6, 4)])
@pytest.mark.parametrize("call", [{}, {"is_causal": True}])
def test_a_kernel_and_the_same_written_out_are_read_alike(
    shape: tuple[int, ...], call: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(shape), torch.randn(shape)
    with_heads = (q, k) if len(shape) > 3 else (q.reshape(3, 2, 6, 4), k.reshape(3, 2, 6, 4))
    kernel = attention_heads(Kernel(**call), (with_heads, torch.zeros(1)))
    written = attention_heads(Kernel(written=True, **call), ((q, k), torch.zeros(1)))
    assert len(kernel.layers) == len(written.layers) == 2
    for column in ("entropy", "ratio", "first", "diagonal", "distance"):
        assert written.column(column) == pytest.approx(kernel.column(column), rel=1e-4)


def test_masks_scale_and_shared_keys_of_a_kernel_are_obeyed() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(3, 4, 6, 8), torch.randn(3, 2, 6, 8)
    mask = torch.rand(6, 6) > 0.3
    mask[:, :2] = True
    model = Kernel(attn_mask=mask, scale=0.9, enable_gqa=True)
    keys = k.repeat_interleave(2, dim=1)
    scores = (0.9 * q @ keys.transpose(-1, -2)).masked_fill(~mask, -torch.inf)
    profile = attention_heads(model, ((q, k), torch.zeros(1)))
    assert profile.column("ratio") == pytest.approx(entropies(scores.softmax(-1), mask), rel=1e-4)
    added = Kernel(attn_mask=torch.zeros(1, 1, 6, 6).masked_fill(~mask, -torch.inf), scale=0.9)
    again = attention_heads(added, ((q, keys), torch.zeros(1)))
    for column, expected in profile.values.items():
        assert again.column(column) == pytest.approx(expected, rel=1e-5)


def test_pointed_uniform_and_duplicate_heads_are_told_apart() -> None:
    torch.manual_seed(0)
    q = torch.randn(2, 6, 9, 9)
    q[:, 0] = 100 * torch.eye(9)  # each token at itself
    q[:, 1] = 0.0
    q[:, 3] = q[:, 2]
    k = torch.eye(9).expand(2, 6, 9, 9)
    profile = attention_heads(Kernel(), ((q, k), torch.zeros(1)))
    assert profile.column("pointed") == (1, 0, 0, 0, 0, 0)
    assert profile.column("uniform") == (0, 1, 0, 0, 0, 0)
    assert profile.column("duplicate") == (0, 0, 1, 1, 0, 0)
    assert profile.column("diagonal")[0] == pytest.approx(1.0, abs=1e-6)
    far = sum(abs(s - t) for s in range(9) for t in range(9)) / 81
    assert profile.column("distance")[:2] == pytest.approx((0.0, far), abs=1e-6)
    layer = attention(Kernel(), ((q, k), torch.zeros(1))).at("scaled_dot_product_attention")
    assert layer["pointed"] == layer["uniform"] == pytest.approx(1 / 6)
    assert layer["duplicate"] == pytest.approx(1 / 3)
    assert layer["heads"] == 6


def test_uniform_heads_are_no_copies_of_each_other() -> None:
    q = torch.zeros(1, 3, 4, 4)
    profile = attention_heads(Kernel(is_causal=True), ((q, q), torch.zeros(1)))
    assert profile.column("uniform") == (1, 1, 1)
    assert profile.column("duplicate") == (0, 0, 0)


class Classifier(nn.Module):
    """A softmax that is no attention: over classes, and over the branches of a block."""

    def forward(self, x: Tensor) -> Tensor:
        gates = functional.softmax(x, dim=-1)
        return (x * gates).sum(1)


def test_a_softmax_that_weights_no_values_is_no_attention() -> None:
    assert attention(Classifier(), torch.randn(2, 3, 4)).layers == ()
    assert attention_heads(nn.Linear(2, 2), torch.randn(2, 2)).layers == ()


def test_a_shared_layer_has_a_row_for_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Module(batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.block(x))

    profile = attention(Twice(), torch.randn(2, 5, 8))
    assert profile.layers == ("block.attend", "block.attend (call 2)")


def test_a_compiled_model_is_read_as_its_original() -> None:
    model = Encoder().eval()
    compiled: nn.Module = torch.compile(model, backend="eager")  # type: ignore[assignment]
    x = torch.randn(2, 5, 8)
    assert attention(compiled, x) == attention(model, x)


def test_the_model_is_left_as_it_was_found() -> None:
    model = Encoder()
    model(torch.randn(2, 5, 8)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad for parameter in model.parameters()]
    stream = torch.get_rng_state()
    attention(model, torch.ones(2, 5, 8))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(stream, torch.get_rng_state())
    assert model.training


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.ones(0, 5, 8), "at least one example"),
        (torch.full((2, 5, 8), torch.nan), "finite inputs"),
        (torch.ones(2, 5, 7), "a model that runs on this batch"),
    ],
)
def test_bad_inputs_are_described(inputs: Tensor, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        attention(Encoder(), inputs)


@pytest.mark.parametrize("fused", [True, False])
def test_timm_transformers_are_read_fused_and_written_out(fused: bool) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed beside the tests")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64).eval()
    for block in model.blocks:
        block.attn.fused_attn = fused
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
    profile = attention_heads(model, torch.randn(2, 3, 64, 64))
    assert len(profile.layers) == 6
    weights: list[Tensor] = []
    for block in model.blocks:
        block.attn.fused_attn = False
        drop = block.attn.attn_drop
        drop.register_forward_hook(lambda module, given, output: weights.append(output))
    with torch.no_grad():
        torch.manual_seed(0)
        inputs = torch.randn(2, 3, 64, 64)
        model(inputs)
    again = attention_heads(model, inputs)
    expected = [ratio for layer in weights[:2] for ratio in entropies(layer)]
    assert again.column("ratio") == pytest.approx(expected, rel=1e-4)
