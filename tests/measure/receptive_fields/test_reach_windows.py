"""Tests of what slides along an axis, against the support of each output's gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.measure.receptive_fields.reach import NOTHING, ReachMode
from leadline.measure.receptive_fields.reach_rules import reach_rules
from leadline.measure.receptive_fields.reach_windows import NO_TAP, extend, through_windows

WINDOWS: dict[str, Callable[[Tensor], Tensor]] = {
    "convolution": nn.Conv2d(2, 3, 3),
    "padded": nn.Conv2d(2, 3, 5, padding=2),
    "strided": nn.Conv2d(2, 3, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(2, 3, 3, dilation=3, padding=3),
    "even kernel kept in size": nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(2, 3, 4)),
    "of two shapes": nn.Conv2d(2, 3, (1, 7), stride=(1, 3), padding=(0, 2)),
    "grouped": nn.Conv2d(2, 4, 3, groups=2),
    "of one axis": nn.Sequential(nn.Flatten(1, 2), nn.Conv1d(26, 3, 4, stride=2)),
    "transposed": nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1),
    "transposed with holes": nn.ConvTranspose2d(2, 3, 2, stride=3, output_padding=1),
    "transposed and dilated": nn.ConvTranspose2d(2, 3, 3, stride=2, dilation=2, padding=2),
    "average pooling": nn.AvgPool2d(3, stride=2, padding=1),
    "pooling over the end": nn.AvgPool2d(2, ceil_mode=True),
    "adaptive pooling that divides": nn.AdaptiveAvgPool2d((13, 1)),
    "adaptive pooling that does not": nn.AdaptiveAvgPool2d((5, 4)),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest by a fraction": nn.Upsample(size=(20, 9)),
    "nearest exact": nn.Upsample(size=(20, 9), mode="nearest-exact"),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear to corners": nn.Upsample(size=(25, 20), mode="bilinear", align_corners=True),
    "bilinear downwards": nn.Upsample(size=(6, 5), mode="bilinear"),
    "bicubic": nn.Upsample(scale_factor=3, mode="bicubic"),
    "zeros around": nn.ZeroPad2d((1, 2, 3, 0)),
    "cropped": nn.ZeroPad2d((-1, -2, 0, -3)),
    "patches": nn.Unfold(3, stride=2, padding=1),
    "two convolutions": nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(3, 2, 3, padding=1)
    ),
    "down and up": nn.Sequential(
        nn.Conv2d(2, 3, 2, stride=2), nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Conv2d(2, 1, 3)
    ),
    "up and convolved": nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(2, 2, 3, padding=1)
    ),
}


def bounds(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last index that every output sees of axis 2."""
    mode = ReachMode(inputs, [2], reach_rules)
    with torch.no_grad(), mode:
        output = function(inputs)
    reach = mode.of(output)
    assert reach is not None
    assert not reach.unknown
    assert reach.shape == output.shape
    return reach.full(0), -reach.full(1)


@pytest.mark.parametrize("name", WINDOWS)
def test_every_output_sees_the_inputs_that_its_gradient_reaches(name: str) -> None:
    function = WINDOWS[name]
    if isinstance(function, nn.Module):
        function = function.double()
        for parameter in function.parameters():
            nn.init.constant_(parameter, 1.0)  # nothing cancels
    inputs = torch.rand(1, 2, 13, 13, dtype=torch.float64, requires_grad=True)
    first, last = (bound.flatten() for bound in bounds(function, inputs.detach()))
    output = function(inputs).flatten()
    generator = torch.Generator().manual_seed(0)
    exact = 0
    for unit in torch.randperm(len(output), generator=generator)[:80].tolist():
        (gradient,) = torch.autograd.grad(output[unit], inputs, retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
        seen = (first[unit].item(), last[unit].item())
        if rows and seen[0] >= 0 and seen[1] < 13:
            assert seen == (rows[0], rows[-1])
            exact += 1
        elif rows:  # partly in the padding, or in a gap between the taps at the border
            assert seen[0] <= rows[0]
            assert seen[1] >= rows[-1]
    assert exact > 5


def test_max_pooling_sees_what_average_pooling_sees() -> None:
    inputs = torch.rand(1, 2, 13, 13)
    for options in ({"stride": 2, "padding": 1}, {"stride": 3, "ceil_mode": True}):
        most = bounds(nn.MaxPool2d(3, **options), inputs)
        mean = bounds(nn.AvgPool2d(3, **options), inputs)
        for one, other in zip(most, mean, strict=True):
            assert torch.equal(one, other)


def test_new_channels_see_nothing() -> None:
    inputs = torch.rand(1, 2, 13, 13)
    first, _ = bounds(lambda x: functional.pad(x, (0, 0, 0, 0, 1, 2)), inputs)
    assert torch.isinf(first[0, :, 0, 0]).tolist() == [True, False, False, True, True]


def test_a_map_goes_on_in_its_pattern() -> None:
    upsampled = torch.tensor([0.0, 0.0, 8.0, 8.0, 16.0, 16.0])
    expected = [-8.0, 0.0, 0.0, 8.0, 8.0, 16.0, 16.0, 24.0, 24.0, 32.0]
    assert extend(upsampled, 0, (1, 3), step=0.0).tolist() == expected
    assert extend(torch.tensor([5.0]), 0, (2, 1), step=4.0).tolist() == [-3.0, 1.0, 5.0, 9.0]


def test_beside_units_in_no_pattern_padding_sees_no_more_than_they() -> None:
    bound = torch.tensor([0.0, 1.0, 5.0])
    assert extend(bound, 0, (2, 1), step=1.0).tolist() == [0.0, 0.0, 0.0, 1.0, 5.0, 5.0]


def test_outputs_without_a_tap_see_nothing() -> None:
    mode = ReachMode(image := torch.zeros(1, 1, 4), [2], reach_rules)
    reach = mode.of(image)
    assert reach is not None
    taps = torch.tensor([[0, 1], [NO_TAP, NO_TAP], [3, NO_TAP]])
    seen = through_windows(reach, 2, taps, 2.0)
    assert seen.bounds[0].flatten().tolist() == [0.0, NOTHING, 3.0]
    assert seen.bounds[1].flatten().tolist() == [-1.0, NOTHING, -3.0]
    assert (seen.jumps, seen.dims, tuple(seen.shape)) == ((2.0,), (2,), (1, 1, 3))
