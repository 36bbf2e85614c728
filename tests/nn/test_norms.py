"""Tests of norms by name, each against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leadline.core.errors import ModelError, UnknownNameError
from leadline.nn.norms import (
    FEATURE_NORMS,
    LAST_AXIS_NORMS,
    MAP_NORMS,
    count_groups,
    make_feature_norm,
    make_map_norm,
)

AXES = {"batch": (0, 2, 3), "layer": (1,), "instance": (2, 3)}


def standardised(signal: Tensor, *, dim: tuple[int, ...]) -> Tensor:
    variance, mean = torch.var_mean(signal, dim=dim, keepdim=True, correction=0)
    return (signal - mean) / variance.sqrt()


@pytest.mark.parametrize("name", AXES)
def test_a_map_norm_standardises_over_its_own_axes(name: str) -> None:
    maps = 3 + 2 * torch.randn(4, 16, 5, 6)
    expected = standardised(maps, dim=AXES[name])
    torch.testing.assert_close(make_map_norm(name, 16)(maps), expected, atol=1e-4, rtol=1e-4)


def test_group_norm_standardises_each_group_over_places_and_its_channels() -> None:
    maps = 3 + 2 * torch.randn(4, 16, 5, 6)
    expected = standardised(maps.reshape(4, 2, 8, 5, 6), dim=(2, 3, 4)).reshape(maps.shape)
    torch.testing.assert_close(make_map_norm("group", 16)(maps), expected, atol=1e-4, rtol=1e-4)


def test_rms_norm_divides_by_the_root_mean_square_over_channels() -> None:
    maps = 3 + 2 * torch.randn(4, 16, 5, 6)
    expected = maps / maps.square().mean(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(make_map_norm("rms", 16)(maps), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FEATURE_NORMS)
def test_a_feature_norm_agrees_with_the_map_norm_on_maps_of_one_pixel(name: str) -> None:
    features = 3 + 2 * torch.randn(8, 32)
    expected = make_map_norm(name, 32)(features[:, :, None, None]).flatten(1)
    torch.testing.assert_close(make_feature_norm(name, 32)(features), expected)


@pytest.mark.parametrize("name", MAP_NORMS)
def test_a_map_norm_keeps_maps_in_channels_last_memory(name: str) -> None:
    maps = torch.randn(2, 16, 4, 4).contiguous(memory_format=torch.channels_last)
    norm = make_map_norm(name, 16)
    assert norm(maps).is_contiguous(memory_format=torch.channels_last)


def test_a_norm_over_channels_applies_the_norm_at_each_place() -> None:
    maps = torch.randn(2, 6, 3, 3)
    for name in LAST_AXIS_NORMS:
        norm, features = make_map_norm(name, 6), make_feature_norm(name, 6)
        torch.testing.assert_close(norm(maps)[1, :, 2, 0], features(maps[1, :, 2, 0]))


def test_groups_divide_the_channels_with_eight_in_each_and_never_more_than_32() -> None:
    for channels in range(1, 600):
        groups = count_groups(channels)
        assert channels % groups == 0
        assert groups <= 32
        assert groups == 1 or channels // groups >= 8


def test_instance_norm_for_features_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError) as caught:
        make_feature_norm("instance", 8)
    assert str(caught.value) == (
        "expected a norm for features without height and width\n"
        "received norm 'instance', which averages over height and width\n"
        "do this  choose one of batch, layer, group, rms, none"
    )


def test_an_unknown_norm_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'bacth' \(did you mean 'batch'\?\)"):
        make_map_norm("bacth", 8)
