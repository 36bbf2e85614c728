"""Tests of augmentation against slow loops over single pictures, in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as vision

from leadline.core.errors import ConfigError
from leadline.data.augment import Augmentation, augment

SHAPE = (64, 3, 8, 10)


def pictures(*shape: int, seed: int = 0) -> Tensor:
    luck = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape or SHAPE, generator=luck, dtype=torch.uint8)


def vary(inputs: Tensor, options: Augmentation, *, seed: int = 1, **normal: object) -> Tensor:
    varied, _ = both(inputs, options, seed=seed, **normal)
    return varied


def both(
    inputs: Tensor, options: Augmentation, *, seed: int = 1, **normal: object
) -> tuple[Tensor, Tensor]:
    targets = torch.arange(len(inputs)) % 10
    generator = torch.Generator().manual_seed(seed)
    return augment(inputs, targets, options=options, num_classes=10, generator=generator, **normal)  # type: ignore[arg-type]  # mean and std, or nothing


def as_bytes(varied: Tensor) -> np.ndarray:
    return (varied * 255).round().to(torch.uint8).numpy()


def test_nothing_asked_for_is_only_normalised() -> None:
    inputs = pictures()
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    found = vary(inputs, Augmentation(), mean=mean, std=std).numpy()
    scaled = inputs.numpy().astype(np.float64) / 255
    expected = (scaled - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_floats_are_normalised_in_their_own_scale() -> None:
    inputs = pictures().float() * 7
    found = vary(inputs, Augmentation(), mean=(900.0,) * 3, std=(500.0,) * 3)
    torch.testing.assert_close(found, (inputs - 900) / 500, rtol=1e-5, atol=1e-6)


def test_about_half_of_the_pictures_are_mirrored_and_none_else_changed() -> None:
    inputs = pictures(1000, 1, 4, 5)
    found = as_bytes(vary(inputs, Augmentation(flip=True)))
    original = inputs.numpy()
    mirrored = sum(
        np.array_equal(new, old[:, :, ::-1]) for new, old in zip(found, original, strict=True)
    )
    same = sum(np.array_equal(new, old) for new, old in zip(found, original, strict=True))
    assert mirrored + same == 1000
    assert 440 < mirrored < 560  # 500 expected, standard deviation 16


def test_flipping_twice_gives_the_image_back() -> None:
    inputs = pictures()
    once = vary(inputs, Augmentation(flip=True))
    twice = vary(once, Augmentation(flip=True))
    assert torch.equal(twice, inputs / 255) or torch.allclose(twice, inputs / 255, atol=1e-6)


def test_every_crop_is_a_window_of_the_reflected_picture() -> None:
    inputs = pictures(400, 2, 6, 5)
    found = as_bytes(vary(inputs, Augmentation(crop=3)))
    places = []
    for new, old in zip(found, inputs.numpy(), strict=True):
        padded = np.pad(old, ((0, 0), (3, 3), (3, 3)), mode="reflect")
        windows = [
            (down, right)
            for down in range(7)
            for right in range(7)
            if np.array_equal(new, padded[:, down : down + 6, right : right + 5])
        ]
        assert len(windows) == 1
        places += windows
    for axis in (0, 1):
        counts = np.bincount([place[axis] for place in places], minlength=7)
        assert counts.min() > 25  # 57 expected, standard deviation 7


def test_crop_and_flip_together_mirror_a_window() -> None:
    inputs = pictures(50, 1, 6, 6)
    found = as_bytes(vary(inputs, Augmentation(crop=2, flip=True)))
    for new, old in zip(found, inputs.numpy(), strict=True):
        padded = np.pad(old, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        windows = [padded[:, y : y + 6, x : x + 6] for y in range(5) for x in range(5)]
        assert any(
            np.array_equal(new, window) or np.array_equal(new, window[:, :, ::-1])
            for window in windows
        )


def test_cut_out_zeroes_one_square_clipped_at_the_edges() -> None:
    inputs = pictures(300, 3, 9, 9)
    side = 4
    normal = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    plain = vary(inputs, Augmentation(), **normal)
    found = vary(inputs, Augmentation(cutout=side), **normal)
    centres = np.zeros((9, 9), dtype=int)
    for new, old in zip(found.numpy(), plain.numpy(), strict=True):
        fits = []
        for y in range(9):
            for x in range(9):
                expected = old.copy()
                top, left = max(0, y - side // 2), max(0, x - side // 2)
                expected[:, top : y + side // 2, left : x + side // 2] = 0
                if np.array_equal(new, expected):
                    fits.append((y, x))
        assert len(fits) == 1
        centres[fits[0]] += 1
    assert (centres.sum(0) > 10).all()  # 33 expected
    assert (centres.sum(1) > 10).all()


def test_rotation_by_a_right_angle_moves_every_pixel_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.ones(*size))
    square = pictures(4, 2, 7, 7)
    found = vary(square, Augmentation(rotation=90.0))
    expected = torch.rot90(square, 1, (2, 3)) / 255
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    oblong = pictures(4, 1, 6, 9)
    found = vary(oblong, Augmentation(rotation=180.0))
    torch.testing.assert_close(found, oblong.flip(2, 3) / 255, rtol=0, atol=1e-4)


def test_rotation_agrees_with_a_loop_over_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.ones(*size))
    rows, columns = np.mgrid[0:9, 0:13].astype(np.float64)
    plane = torch.from_numpy((rows * 3 + columns * 2)[None, None]).float()
    found = vary(plane, Augmentation(rotation=20.0))[0, 0].numpy()
    angle = math.radians(20.0)
    for y in range(3, 6):
        for x in range(4, 9):
            down, right = y - 4, x - 6
            from_x = math.cos(angle) * right - math.sin(angle) * down + 6
            from_y = math.sin(angle) * right + math.cos(angle) * down + 4
            assert found[y, x] == pytest.approx(3 * from_y + 2 * from_x, abs=1e-3)


def test_small_angles_move_pictures_little_and_each_otherwise() -> None:
    one = pictures(1, 3, 16, 16).expand(50, -1, -1, -1)
    found = vary(one, Augmentation(rotation=10.0))
    assert len({picture.numpy().tobytes() for picture in found}) == 50
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-6


def test_colour_jitter_agrees_with_torchvision() -> None:
    inputs = pictures(20, 3, 6, 6)
    found = vary(inputs, Augmentation(color_jitter=0.4), seed=5)
    luck = torch.rand(3, 20, 1, 1, 1, generator=torch.Generator().manual_seed(5))
    factors = (1 + 0.4 * (2 * luck - 1)).flatten(1)
    for index, picture in enumerate(inputs / 255):
        brightness, contrast, saturation = factors[:, index].tolist()
        expected = vision.adjust_brightness(picture, brightness)
        expected = vision.adjust_contrast(expected, contrast)
        expected = vision.adjust_saturation(expected, saturation)
        torch.testing.assert_close(found[index], expected, rtol=0, atol=2e-3)


def test_colour_jitter_of_grey_keeps_it_grey_and_floats_unclipped() -> None:
    grey = pictures(20, 1, 6, 6)
    found = vary(grey, Augmentation(color_jitter=0.5))
    assert found.shape == grey.shape
    assert float(found.max()) <= 1
    floats = grey.float() * 100
    assert float(vary(floats, Augmentation(color_jitter=0.5)).max()) > 255


def test_mixup_is_a_weighted_sum_of_pictures_and_targets() -> None:
    inputs = pictures(40, 1, 4, 4)
    found, shares = both(inputs, Augmentation(mixup=1.0))
    plain = inputs.flatten(1).double().numpy() / 255
    for index in range(40):
        fits = []
        for partner in range(40):
            step = plain[index] - plain[partner]
            rest = found[index].flatten().double().numpy() - plain[partner]
            weight = float(rest @ step / max(step @ step, 1e-9))
            if np.abs(rest - weight * step).max() < 1e-5:
                fits.append((partner, weight if partner != index else 1.0))
        mixed = [fit for fit in fits if fit[0] != index]
        partner, weight = mixed[0] if mixed else fits[0]
        expected = np.zeros(10)
        expected[index % 10] += weight
        expected[partner % 10] += 1 - weight
        np.testing.assert_allclose(shares[index].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_weights_follow_their_beta_distribution(alpha: float) -> None:
    ones = torch.arange(4000) % 2
    generator = torch.Generator().manual_seed(0)
    _, shares = augment(
        torch.zeros(4000, 1, 1, 1),
        ones,
        options=Augmentation(mixup=alpha),
        num_classes=2,
        generator=generator,
    )
    assert torch.allclose(shares.sum(1), torch.ones(4000), atol=1e-6)
    own = shares[torch.arange(4000), ones]
    between = own[own < 1 - 1e-6]  # partners of another class: half of them
    assert float(between.mean()) == pytest.approx(0.5, abs=0.03)
    variance = 1 / (4 * (2 * alpha + 1))  # of Beta(alpha, alpha)
    assert float(between.var()) == pytest.approx(variance, rel=0.12)


def test_the_share_of_a_pasted_box_is_its_exact_area() -> None:
    count, height, width = 200, 7, 11
    inputs = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 2, height, width)
    generator = torch.Generator().manual_seed(3)
    found, shares = augment(
        inputs,
        torch.arange(count),
        options=Augmentation(cutmix=1.0),
        num_classes=count,
        generator=generator,
    )
    sizes = []
    for index in range(count):
        foreign = found[index] != index
        assert torch.equal(foreign[0], foreign[1])
        area = int(foreign[0].sum())
        sizes.append(area / (height * width))
        if area:
            rows, columns = foreign[0].any(1), foreign[0].any(0)
            assert int(rows.sum()) * int(columns.sum()) == area  # one box, nothing else
            partner = int(found[index][foreign].unique())
            assert float(shares[index, partner]) == pytest.approx(area / 77, abs=1e-6)
        assert float(shares[index, index]) == pytest.approx(1 - area / 77, abs=1e-6)
    assert torch.allclose(shares.sum(1), torch.ones(count), atol=1e-6)
    assert 0.15 < np.mean(sizes) < 0.45  # 1/2 for l uniform, less what is clipped at the edges


def test_with_mixup_and_cutmix_a_coin_decides_for_the_batch() -> None:
    inputs = torch.arange(8, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    boxed = 0
    for seed in range(60):
        found = vary(inputs, Augmentation(mixup=1.0, cutmix=1.0), seed=seed)
        boxed += bool((found == found.round()).all())
    assert 15 < boxed < 45


@pytest.mark.parametrize(
    "options",
    [
        Augmentation(flip=True, crop=2, cutout=3),
        Augmentation(rotation=30.0, color_jitter=0.3),
        Augmentation(mixup=0.4, cutmix=0.4),
    ],
)
def test_the_same_seed_gives_the_same_pictures_and_leaves_inputs_alone(
    options: Augmentation,
) -> None:
    inputs = pictures()
    before = inputs.clone()
    first, second, other = (both(inputs, options, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(inputs, before)
    floats = inputs.float()
    vary(floats, options)
    assert torch.equal(floats, before.float())


def test_wrong_options_are_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Augmentation(crop=-1, rotation=200.0, color_jitter=2.0, cutout=-3, mixup=-1.0, cutmix=-2.0)
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "crop",
        "rotation",
        "color_jitter",
        "cutout",
        "mixup",
        "cutmix",
    ]


def test_pictures_too_small_for_the_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"crop must be < 4.*: 4(.|\n)*cutout must be <= 8.*: 9"):
        vary(pictures(2, 1, 4, 4), Augmentation(crop=4, cutout=9))
