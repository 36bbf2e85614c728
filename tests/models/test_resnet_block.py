"""Tests of the ResNet blocks against the papers' formulas, written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, relu

from leadline.models.resnet_block import BasicBlock, Bottleneck, ResNetBlueprint, make_stages


def blueprint(*, preactivation: bool = False, residual: bool = True) -> ResNetBlueprint:
    return ResNetBlueprint(
        depth=20,
        width=8,
        norm="batch",
        activation="relu",
        init="he",
        residual=residual,
        preactivation=preactivation,
    )


def basic(plan: ResNetBlueprint, downsample: nn.Module | None = None) -> BasicBlock:
    torch.manual_seed(0)
    stride = 1 if downsample is None else 2
    block = BasicBlock(
        plan, inputs=8, planes=8, stride=stride, downsample=downsample, drop_path_rate=0.0
    )
    return block.eval()


MAPS = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))


def test_with_the_activation_after_the_sum_the_block_is_he_et_al_2015() -> None:
    block = basic(blueprint())
    branch = relu(block.bn1(conv2d(MAPS, block.conv1.weight, padding=1)))
    branch = block.bn2(conv2d(branch, block.conv2.weight, padding=1))
    torch.testing.assert_close(block(MAPS), relu(MAPS + branch))


def test_with_the_activation_before_the_sum_the_block_is_he_et_al_2016() -> None:
    block = basic(blueprint(preactivation=True))
    branch = conv2d(relu(block.bn1(MAPS)), block.conv1.weight, padding=1)
    branch = conv2d(relu(block.bn2(branch)), block.conv2.weight, padding=1)
    torch.testing.assert_close(block(MAPS), MAPS + branch)


@pytest.mark.parametrize("preactivation", [False, True])
def test_without_the_residual_path_the_branch_is_left(preactivation: bool) -> None:
    block = basic(blueprint(preactivation=preactivation, residual=False))
    signal = MAPS
    for module in block.branches()[0]:
        signal = module(signal)
    torch.testing.assert_close(block(MAPS), signal if preactivation else relu(signal))


def test_a_shortcut_with_weights_reads_the_activated_input_before_and_the_raw_one_after() -> None:
    projection = nn.Conv2d(8, 8, 1, stride=2, bias=False)
    for preactivation in (False, True):
        block = basic(blueprint(preactivation=preactivation), projection)
        branch = MAPS
        for module in block.branches()[0]:
            branch = module(branch)
        source = relu(block.bn1(MAPS)) if preactivation else MAPS
        expected = branch + projection(source)
        torch.testing.assert_close(block(MAPS), expected if preactivation else relu(expected))


def test_a_shortcut_without_weights_reads_the_raw_input_in_both_forms() -> None:
    pooling = nn.AvgPool2d(1, stride=2)
    block = basic(blueprint(preactivation=True), pooling)
    branch = MAPS
    for module in block.branches()[0]:
        branch = module(branch)
    torch.testing.assert_close(block(MAPS), branch + pooling(MAPS))


def test_a_bottleneck_strides_in_its_middle_convolution() -> None:
    block = Bottleneck(
        blueprint(residual=False),
        inputs=8,
        planes=4,
        stride=2,
        downsample=None,
        drop_path_rate=0.0,
    )
    assert [conv.stride for conv in (block.conv1, block.conv2, block.conv3)] == [
        (1, 1),
        (2, 2),
        (1, 1),
    ]
    assert block(MAPS).shape == (2, 16, 3, 3)


def test_stages_double_the_planes_and_halve_the_map_but_for_the_first() -> None:
    stages = make_stages(
        blueprint(residual=False),
        block=BasicBlock,
        inputs=8,
        counts=(2, 1, 1),
        rates=(0.0,) * 4,
        shortcut=lambda *_: nn.Identity(),
    )
    maps, shapes = MAPS, []
    for stage in stages:
        maps = stage(maps)
        shapes.append(tuple(maps.shape[1:]))
    assert shapes == [(8, 6, 6), (16, 3, 3), (32, 2, 2)]


def test_with_the_activation_before_the_gradient_passes_the_shortcuts_unchanged() -> None:
    block = basic(blueprint(preactivation=True))
    nn.init.zeros_(block.conv2.weight)
    maps = MAPS.clone().requires_grad_()
    block(maps).sum().backward()
    assert maps.grad is not None
    assert torch.equal(maps.grad, torch.ones_like(maps))
