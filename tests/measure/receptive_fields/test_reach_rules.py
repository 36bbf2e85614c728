"""Tests of what mixes units, against the support of each output's gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.measure.receptive_fields.reach import Reach, ReachMode
from leadline.measure.receptive_fields.reach_rules import POINTWISE, over, reach_rules, spread

TOKENS, WIDTH = 6, 4
LOWER = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
WINDOWED = ((i := torch.arange(TOKENS))[:, None] - i[None]).abs() <= 1


class Masked(nn.Module):
    """Attention written out, as nanoGPT's: a mask, a softmax, a product."""

    def __init__(self, mask: Tensor, low: float) -> None:
        super().__init__()
        self.mask, self.low = mask, low
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        logits = (query @ key.transpose(-1, -2)).masked_fill(~self.mask, self.low)
        return functional.dropout(logits.softmax(-1), training=False) @ value


def attend(x: Tensor, **options: Tensor | bool) -> Tensor:
    heads = x.unflatten(-1, (2, 2)).transpose(1, 2)
    out = functional.scaled_dot_product_attention(heads, heads, heads, **options)  # type: ignore[arg-type]
    return out.transpose(1, 2).flatten(2)


def instance(x: Tensor) -> Tensor:
    return functional.instance_norm(x.transpose(1, 2)).transpose(1, 2)


MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": nn.Linear(WIDTH, 3),
    "over the tokens": lambda x: functional.linear(x.transpose(1, 2), torch.rand(5, TOKENS).to(x)),
    "attention": attend,
    "causal attention": lambda x: attend(x, is_causal=True),
    "attention with a boolean mask": lambda x: attend(x, attn_mask=WINDOWED),
    "attention with a mask that is added": lambda x: attend(
        x, attn_mask=torch.zeros(TOKENS, TOKENS).masked_fill(~LOWER, -torch.inf).to(x)
    ),
    "masked attention written out": Masked(LOWER, -torch.inf),
    "windowed attention written out": Masked(WINDOWED, -1e9),
    "multi-head attention": nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True).eval(),
    "softmax over features": lambda x: x.softmax(-1),
    "softmax over tokens": lambda x: x.log_softmax(1),
    "layer norm": nn.LayerNorm(WIDTH),
    "root mean square norm": nn.RMSNorm(WIDTH),
    "group norm": lambda x: nn.GroupNorm(2, TOKENS).to(x)(x),
    "instance norm": instance,
    "batch norm as trained": lambda x: functional.batch_norm(
        x.transpose(1, 2), None, None, training=True
    ),
    "batch norm as used": lambda x: nn.BatchNorm1d(TOKENS).to(x).eval()(x),
    "mean": lambda x: x.mean(1),
    "sum of all": lambda x: x.sum(),
    "standard deviation": lambda x: x.std(dim=1, keepdim=True),
    "largest": lambda x: x.logsumexp(1),
    "running sum": lambda x: x.cumsum(1),
    "gated": lambda x: functional.glu(x.transpose(1, 2), 2),
    "product with itself": lambda x: x @ x.transpose(1, 2),
    "einsum": lambda x: torch.einsum("btc,bsc->bts", x, x[:, 1:3]),
    "joined": lambda x: torch.cat([x, torch.zeros_like(x[:, :1]), x.flip(1)], dim=1) * 2,
    "windows": lambda x: x.reshape(1, 3, 2, WIDTH).softmax(2).reshape(1, TOKENS, WIDTH),
    "rolled": lambda x: x.roll(2, dims=1) + x,
    "picked": lambda x: x[:, torch.tensor([4, 0, 1])],
    "written into": lambda x: written_into(x),
    "scaled by its mean": lambda x: x * x.mean(1, keepdim=True).sigmoid(),
}


def written_into(x: Tensor) -> Tensor:
    target = x.new_zeros(1, TOKENS + 2, WIDTH)
    target[:, 1:-1] = x
    target[:, 3:5].mul_(x[:, :1])
    target[:, 4].zero_()
    return target


@pytest.mark.parametrize("name", MIXING)
def test_every_output_sees_the_tokens_that_its_gradient_reaches(name: str) -> None:
    torch.manual_seed(1)
    function = MIXING[name]
    if isinstance(function, nn.Module):
        function.double()
    inputs = torch.rand(1, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    mode = ReachMode(given := inputs.detach().clone(), [1], reach_rules)
    with torch.no_grad(), mode:
        reach = mode.of(function(given))
    torch.manual_seed(1)
    output = function(inputs)
    assert reach is not None
    assert not reach.unknown
    assert reach.shape == output.shape
    first, last = reach.full(0).flatten(), -reach.full(1).flatten()
    for unit, value in enumerate(output.flatten()):
        tokens: list[int] = []
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
            if gradient is not None:
                tokens = gradient.abs().sum((0, 2)).nonzero().flatten().tolist()
        seen = [first[unit].item(), last[unit].item()]
        assert seen == ([tokens[0], tokens[-1]] if tokens else [torch.inf, -torch.inf])


def test_operations_without_a_rule_make_all_that_follows_unknown() -> None:
    mode = ReachMode(x := torch.rand(1, 2, 8, 8), [2, 3], reach_rules)
    with torch.no_grad(), mode:
        found = torch.fft.fft(x).real
        reach, later = mode.of(found), mode.of((found + 1).sum())
    assert reach is not None
    assert later is not None
    assert "has no rule" in reach.unknown
    assert later.unknown == reach.unknown


def three_units() -> Reach:
    reach = ReachMode(x := torch.zeros(1, 3, 2), [1], reach_rules).of(x)
    assert reach is not None
    return reach


def test_units_taken_together_have_no_place_any_more() -> None:
    together = over(three_units(), [1], keep=False)
    assert [bound.flatten().tolist() for bound in together.bounds] == [[0.0], [-2.0]]
    assert (together.dims, together.jumps, tuple(together.shape)) == ((None,), (0.0,), (1, 2))
    assert over(three_units(), [0], keep=False).dims == (0,)


def test_units_that_see_together_keep_their_place() -> None:
    every = spread(three_units(), [1])
    assert (every.dims, every.jumps, tuple(every.shape)) == ((1,), (1.0,), (1, 3, 2))
    assert every.full(1)[0, :, 0].tolist() == [-2.0, -2.0, -2.0]


def test_the_functions_named_as_pointwise_exist() -> None:
    assert not [name for name in POINTWISE if not hasattr(torch.ops.aten, name)]
