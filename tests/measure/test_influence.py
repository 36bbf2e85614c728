"""Tests of influence against the Jacobian, which holds every dependence there is."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.influence import influence


class Apply(nn.Module):
    """A layer, then any function."""

    def __init__(self, function: Any, width: int = 6) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


ACROSS = {
    "softmax": lambda x: x.softmax(dim=0),
    "mean": lambda x: x - x.mean(dim=0),
    "roll": lambda x: x.roll(1, 0),
    "reshape": lambda x: x.T.reshape(x.shape),
    "sum of all": lambda x: x + x.sum(),
    "sort": lambda x: x.sort(dim=0).values,
    "weak": lambda x: x + 1e-4 * x.roll(1, 0),
}
WITHIN = {
    "softmax": lambda x: x.softmax(dim=1),
    "mean": lambda x: x - x.mean(dim=1, keepdim=True),
    "roll": lambda x: x.roll(1, 1),
    "relu": functional.relu,
    "sort": lambda x: x.sort(dim=1).values,
    "times itself": lambda x: x * x.detach(),
}


def dependence(model: nn.Module, inputs: Tensor) -> float:
    """The largest entry of the Jacobian between two examples, by brute force."""
    jacobian: Any = torch.autograd.functional.jacobian(model, inputs)
    return max(
        jacobian[i, ..., j, :].abs().max().item()
        for i in range(len(inputs))
        for j in range(len(inputs))
        if i != j
    )


@pytest.mark.parametrize("kind", ACROSS)
def test_a_dependence_on_other_examples_is_found_where_the_jacobian_has_one(kind: str) -> None:
    torch.manual_seed(0)
    model, inputs = Apply(ACROSS[kind]), torch.randn(3, 6)
    assert dependence(model, inputs) > 0
    found = influence(model, inputs)
    assert found.examples > 1e-6
    assert found.example_layers[0] == "layer"


@pytest.mark.parametrize("kind", WITHIN)
def test_where_the_jacobian_has_none_the_answer_is_exactly_0(kind: str) -> None:
    torch.manual_seed(0)
    model, inputs = Apply(WITHIN[kind]), torch.randn(3, 6)
    assert dependence(model, inputs) == 0
    assert influence(model, inputs).examples == 0.0
    assert influence(model, inputs).example_layers == ()


def test_the_share_is_that_of_the_gradients() -> None:
    """y = x + a·(the neighbour's x): the gradient by the neighbour is a times the own one."""

    class Leak(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.one * x + 0.03 * x.roll(1, 0)

    assert influence(Leak(), torch.randn(3, 5)).examples == pytest.approx(0.03, rel=1e-4)


def test_a_batch_norm_is_asked_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).train()
    assert influence(model, torch.randn(8, 6)).examples == 0.0
    assert model.training and int(model[1].num_batches_tracked) == 0
    without = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False))
    assert influence(without, torch.randn(8, 6)).examples > 0


class Language(nn.Module):
    """Token numbers in, scores of the next token out, with any mixing over time between."""

    def __init__(self, mix: Any, *, flat: bool = False) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(20, 8), nn.Linear(8, 20)
        self.mix, self.flat = mix, flat

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.head(self.mix(self.tokens(tokens)))
        return scores.flatten(0, 1) if self.flat else scores


BACKWARD = {
    "nothing": lambda x: x,
    "sums": lambda x: x.cumsum(dim=1),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
    "shift": lambda x: functional.pad(x, (0, 0, 1, 0))[:, :-1],
}
FORWARD = {
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
    "mean": lambda x: x - x.mean(dim=1, keepdim=True),
    "shift": lambda x: functional.pad(x, (0, 0, 0, 1))[:, 1:],
    "reversed sums": lambda x: x.flip(1).cumsum(dim=1).flip(1),
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", BACKWARD)
def test_a_model_that_looks_back_only_does_not_depend_on_the_future(kind: str, flat: bool) -> None:
    found = influence(Language(BACKWARD[kind], flat=flat), torch.randint(0, 20, (4, 10)))
    assert found.future == 0.0
    assert found.examples == 0.0


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", FORWARD)
def test_a_model_that_looks_ahead_is_found(kind: str, flat: bool) -> None:
    found = influence(Language(FORWARD[kind], flat=flat), torch.randint(0, 20, (4, 10)))
    assert found.future > 0
    assert found.examples == 0.0
    assert found.future_layers == ("tokens",)


def test_the_layer_before_the_leak_is_the_last_that_is_named() -> None:
    class Two(nn.Module):
        def __init__(self, ahead: int) -> None:
            super().__init__()
            self.tokens = nn.Embedding(20, 8)
            self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
            self.ahead = ahead

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.tokens(tokens)
            for number, layer in enumerate((self.first, self.second, self.third)):
                x = layer(x)
                if number == self.ahead:
                    x = FORWARD["shift"](x)
            return x

    tokens = torch.randint(0, 20, (4, 10))
    names = ("tokens", "first", "second", "third")
    for ahead in range(3):
        assert influence(Two(ahead), tokens).future_layers == names[: ahead + 2]


def test_what_has_no_time_axis_has_no_future() -> None:
    assert math.isnan(influence(nn.Linear(4, 2), torch.randn(3, 4)).future)
    pooled = Language(lambda x: x.mean(dim=1))
    assert math.isnan(influence(pooled, torch.randint(0, 20, (4, 10))).future)


def test_one_example_tells_nothing() -> None:
    found = influence(nn.Linear(4, 2), torch.randn(1, 4))
    assert math.isnan(found.examples) and math.isnan(found.future)


def test_an_output_without_a_part_per_example_tells_nothing() -> None:
    pooled = Apply(lambda x: x.mean(dim=0))
    found = influence(pooled, torch.randn(5, 6))
    assert math.isnan(found.examples)


def test_a_model_whose_output_does_not_hang_on_its_input_at_all() -> None:
    constant = Apply(lambda x: x.detach() * 0 + 1)
    assert influence(constant, torch.randn(3, 6)).examples == 0.0


def test_frozen_embeddings_are_followed_too() -> None:
    model = Language(FORWARD["mean"])
    model.tokens.requires_grad_(False)
    found = influence(model, torch.randint(0, 20, (4, 10)))
    assert found.future > 0


def test_everything_is_left_as_found_after_an_error_too() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.layer(x)
            raise RuntimeError("no")

    for model in (Fails(), Apply(ACROSS["mean"], width=4)):
        model.layer.weight.grad = kept = torch.ones(4, 4)
        before = torch.get_rng_state()
        inputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
        with pytest.raises(MeasurementError) if isinstance(model, Fails) else nullcontext():
            influence(model, inputs)
        assert model.training and model.layer.weight.grad is kept
        assert torch.equal(before, torch.get_rng_state())
        assert not inputs.requires_grad
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_tokens_are_followed_although_a_mask_of_floating_numbers_comes_with_them() -> None:
    class Masked(Language):
        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            return self.head(self.mix(self.tokens(tokens) * mask[..., None]))

    batch = (torch.randint(0, 20, (4, 10)), torch.ones(4, 10)), torch.zeros(4)
    assert influence(Masked(FORWARD["attention"]), batch).future > 0
    assert influence(Masked(BACKWARD["attention"]), batch).future == 0.0


def test_a_table_that_is_added_to_in_place_is_followed() -> None:
    class InPlace(Language):
        def forward(self, tokens: Tensor) -> Tensor:
            x = self.tokens(tokens)
            x += torch.ones(8)
            return self.head(self.mix(x))

    model = InPlace(FORWARD["mean"])
    model.tokens.requires_grad_(False)
    assert influence(model, torch.randint(0, 20, (4, 10))).future > 0


def test_a_batch_that_leaks_through_a_frozen_table_is_found() -> None:
    model = Language(lambda x: x.roll(1, 0)).requires_grad_(False)
    assert influence(model, torch.randint(0, 20, (4, 10))).examples > 0


def test_similarities_of_all_pairs_are_no_leak_and_three_classes_are_none_either() -> None:
    pairs = Apply(lambda x: x @ x.T)
    assert math.isnan(influence(pairs, torch.randn(8, 6)).examples)
    leaking = Apply(lambda x: x - x.mean(dim=0), width=3)
    assert influence(leaking, torch.randn(8, 3)).examples > 0


def windows(x: Tensor, size: int) -> Tensor:
    """Each position minus the mean of its window, later positions included."""
    parts = x.reshape(len(x), -1, size, x.shape[-1])
    return (parts - parts.mean(dim=2, keepdim=True)).reshape(x.shape)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("size", "length"), [(2, 16), (4, 16), (8, 16), (8, 64), (16, 128)])
def test_windows_that_end_in_the_middle_are_found_all_the_same(
    size: int, length: int, seed: int
) -> None:
    tokens = torch.randint(0, 20, (4, length))
    found = influence(Language(lambda x: windows(x, size)), tokens, seed=seed)
    assert found.future > 0
    assert found.examples == 0.0
    leaking = Language(lambda x: windows(x, size) + x.roll(1, 0))
    assert influence(leaking, tokens, seed=seed).future > 0


@pytest.mark.parametrize("length", [5, 16, 17, 100])
def test_a_causal_model_stays_at_0_at_every_cut_also_where_the_batch_leaks(length: int) -> None:
    tokens = torch.randint(0, 20, (5, length))
    for kind in BACKWARD:
        assert influence(Language(BACKWARD[kind]), tokens).future == 0.0
        leaking = influence(Language(lambda x, k=kind: BACKWARD[k](x) + x.roll(1, 0)), tokens)
        assert leaking.future == 0.0
        assert leaking.examples > 0


def first_from_last(x: Tensor) -> Tensor:
    """Only the first example depends on another, the last."""
    return torch.cat([x[:1] + x[-1].mean(), x[1:]])


@pytest.mark.parametrize("mix", [first_from_last, lambda x: x + x.roll(3, 0)])
@pytest.mark.parametrize("examples", [4, 5, 8])
def test_a_dependence_of_any_of_the_examples_is_found(mix: Any, examples: int) -> None:
    assert influence(Apply(mix), torch.randn(examples, 6)).examples > 0
