"""Augmentation as batched tensor code on the device: every picture its own luck, no loop.

The order: what moves pixels works on bytes (crop and flip are one gather by rows and one by
columns), then they become floats, then rotation and colour, then normalisation, then cut-out (to
0, the mean after normalisation), and last what mixes two examples.

- pad-crop: reflect `crop` pixels at each edge, cut the original size at a random place.
- cut-out: a square at a random centre, cut at the edges (DeVries & Taylor 2017, arXiv:1708.04552).
- mixup: x = l x_i + (1 - l) x_j, the targets alike, l ~ Beta(a, a) for each picture
  (Zhang et al. 2018, arXiv:1710.09412).
- cutmix: a box of picture j in picture i; l is 1 minus the box's *actual* share of the pixels
  (Yun et al. 2019, arXiv:1905.04899). With mixup and cutmix both on, a coin decides per batch.

The surprising choice: all random numbers are drawn on the CPU, a few per picture, and sent to the
device. The same seed gives the same pictures on every device, and no device waits for the host.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from leadline.core.config import check, config_error, in_range

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # luma of red, green, blue (ITU-R BT.601)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training pictures are varied; every default is off.

    >>> Augmentation(flip=True, crop=4).mixes
    False
    """

    flip: bool = False
    """mirror left and right, with probability 1/2"""
    crop: int = 0
    """pixels of reflected padding on each side before a random crop"""
    rotation: float = 0.0
    """largest angle in degrees, either way"""
    color_jitter: float = 0.0
    """largest relative change of brightness, contrast and saturation"""
    cutout: int = 0
    """side in pixels of the square that is set to the mean"""
    mixup: float = 0.0
    """blend two pictures and their targets: alpha of the Beta distribution (0.2 is usual)"""
    cutmix: float = 0.0
    """paste a box of one picture into another: alpha of the Beta distribution (1 is usual)"""

    def __post_init__(self) -> None:
        check(
            self,
            in_range("crop", self.crop, 0),
            in_range("rotation", self.rotation, 0, 180),
            in_range("color_jitter", self.color_jitter, 0, 1),
            in_range("cutout", self.cutout, 0),
            in_range("mixup", self.mixup, 0),
            in_range("cutmix", self.cutmix, 0),
        )

    @property
    def mixes(self) -> bool:
        """Whether targets become probabilities because examples are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def check_fits(self, shape: tuple[int, int, int]) -> None:
        """Raise `ConfigError` when a picture of `shape` (C, H, W) is too small for the options."""
        smallest = min(shape[1:])
        problems = []
        if self.crop >= smallest:
            problems.append(f"crop must be < {smallest}, the side of a picture: {self.crop}")
        if self.cutout > 2 * smallest:
            problems.append(f"cutout must be <= {2 * smallest}, two sides of one: {self.cutout}")
        if problems:
            raise config_error("Augmentation", problems, source=f"pictures of shape {shape}")


def augment(
    inputs: Shaped[Tensor, "B C H W"],
    targets: Int64[Tensor, "B"],
    *,
    options: Augmentation,
    num_classes: int,
    generator: torch.Generator,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[Float[Tensor, "B C H W"], Shaped[Tensor, "B ..."]]:
    """A batch (B pictures, C channels, H x W pixels) varied and normalised, with its targets.

    `inputs` are uint8 (0..255) or floats and stay untouched. `mean` and `std` normalise each
    channel, in units of the full scale for uint8; without them the values are only converted.
    `generator` is one of the CPU's. The targets come back as class numbers `[B]`, or as
    probabilities `[B, K]` when examples are mixed.

    >>> pixels = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    >>> generator = torch.Generator().manual_seed(0)
    >>> same, _ = augment(pixels, torch.tensor([1]), options=Augmentation(), num_classes=2,
    ...                   generator=generator, mean=[0.0], std=[1 / 255])
    >>> same.flatten().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    options.check_fits((inputs.shape[1], inputs.shape[2], inputs.shape[3]))
    full = 255.0 if inputs.dtype == torch.uint8 else None
    moved = _crop_and_flip(inputs, options, generator)
    pictures = moved.to(torch.float32, copy=moved is inputs)
    if options.rotation:
        pictures = _rotate(pictures, options.rotation, generator)
    if options.color_jitter:
        pictures = _jitter(pictures, options.color_jitter, generator, full=full)
    pictures = normalise(pictures, mean=mean, std=std, full=full or 1.0)
    if options.cutout:
        pictures = _cut_out(pictures, options.cutout, generator)
    if not options.mixes:
        return pictures, targets
    return _mix(pictures, targets, options, generator, num_classes=num_classes)


def normalise(
    pictures: Float[Tensor, "B C H W"],
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    full: float,
) -> Float[Tensor, "B C H W"]:
    """(x / full - mean) / std for each channel, in place; only x / full without mean and std."""
    channels = pictures.shape[1]
    centre, spread = mean or (0.0,) * channels, std or (1.0,) * channels
    factors = [1 / (full * value) for value in spread]
    shifts = [-middle / value for middle, value in zip(centre, spread, strict=True)]
    table = torch.tensor([factors, shifts]).to(pictures.device, non_blocking=True)
    return pictures.mul_(table[0].view(1, -1, 1, 1)).add_(table[1].view(1, -1, 1, 1))


def _crop_and_flip(images: Tensor, options: Augmentation, generator: torch.Generator) -> Tensor:
    """One gather by rows and one by columns: index_select copies whole rows, so rows are cheap."""
    count, channels, height, width = images.shape
    columns = torch.arange(width).expand(count, width)
    if options.crop:
        corner = torch.randint(0, 2 * options.crop + 1, (2, count, 1), generator=generator)
        down, right = corner - options.crop
        rows = _reflect(torch.arange(height) + down, height)
        first = (torch.arange(count * channels) * height).view(count, channels, 1)
        places = (first + rows[:, None, :]).flatten().to(images.device, non_blocking=True)
        images = images.reshape(-1, width).index_select(0, places)
        images = images.view(count, channels, height, width)
        columns = _reflect(columns + right, width)
    if options.flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if options.crop or options.flip:
        places = columns.to(images.device, non_blocking=True)[:, None, None, :]
        images = images.gather(3, places.expand(-1, channels, height, -1))
    return images


def _reflect(places: Tensor, size: int) -> Tensor:
    """Places beyond the edges mirrored at the edge pixel: -1 is 1, size is size - 2."""
    folded: Tensor = size - 1 - (size - 1 - places.abs()).abs()
    return folded


def _rotate(pictures: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Turn each picture about its centre by up to `degrees`; what comes in is the reflection."""
    count, _, height, width = pictures.shape
    angle = (2 * torch.rand(count, generator=generator) - 1) * math.radians(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(count)
    # Coordinates run from -1 to 1 along both sides, so a turn must know how long the sides are.
    across = torch.stack([cos, -sin * height / width, zero], dim=1)
    down = torch.stack([sin * width / height, cos, zero], dim=1)
    turn = torch.stack([across, down], dim=1).to(pictures.device, non_blocking=True)
    grid = F.affine_grid(turn, list(pictures.shape), align_corners=False)
    turned: Tensor = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    return turned


def _jitter(
    pictures: Tensor, strength: float, generator: torch.Generator, *, full: float | None
) -> Tensor:
    """Brightness, contrast, saturation, each by a factor in 1 -+ strength, in this order."""
    count, channels = pictures.shape[:2]
    factors = 1 + strength * (2 * torch.rand(3, count, 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors.to(pictures.device, non_blocking=True)

    def kept_in_range(values: Tensor) -> Tensor:
        return values if full is None else values.clamp_(0, full)

    pictures = kept_in_range(pictures * brightness)
    middle = _grey(pictures).mean(dim=(1, 2, 3), keepdim=True)
    pictures = kept_in_range(torch.lerp(middle.expand_as(pictures), pictures, contrast))
    if channels != 3:
        return pictures
    grey = _grey(pictures).expand_as(pictures)
    return kept_in_range(torch.lerp(grey, pictures, saturation))


def _grey(pictures: Tensor) -> Tensor:
    if pictures.shape[1] != 3:
        return pictures.mean(dim=1, keepdim=True)
    red, green, blue = pictures.split(1, dim=1)
    luma: Tensor = red * GREY_WEIGHTS[0] + green * GREY_WEIGHTS[1] + blue * GREY_WEIGHTS[2]
    return luma


def _cut_out(pictures: Tensor, side: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = pictures.shape
    top = torch.randint(0, height, (count,), generator=generator) - side // 2
    left = torch.randint(0, width, (count,), generator=generator) - side // 2
    inside = _boxes(top, top + side, left, left + side, height=height, width=width)
    return pictures.mul_(~inside.to(pictures.device, non_blocking=True))


def _boxes(
    top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, *, height: int, width: int
) -> Tensor:
    """Masks `[B, 1, H, W]`, true inside each picture's box (bottom and right are outside)."""
    rows, columns = torch.arange(height), torch.arange(width)
    within = (rows >= top[:, None]) & (rows < bottom[:, None])
    beside = (columns >= left[:, None]) & (columns < right[:, None])
    return (within[:, :, None] & beside[:, None, :])[:, None]


def _mix(
    pictures: Tensor,
    targets: Tensor,
    options: Augmentation,
    generator: torch.Generator,
    *,
    num_classes: int,
) -> tuple[Tensor, Tensor]:
    """Mix each picture with a partner: by mixup, by cutmix, or by whichever the coin says."""
    count, _, height, width = pictures.shape
    device = pictures.device
    partner = torch.randperm(count, generator=generator)
    heads = float(torch.rand((), generator=generator)) < 0.5
    boxed = options.cutmix > 0 and (options.mixup == 0 or heads)
    alpha = options.cutmix if boxed else options.mixup
    # numpy's Beta is exact for small alpha too, where a ratio of two gammas would be 0 / 0
    luck = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
    share = torch.from_numpy(luck.beta(alpha, alpha, size=count)).to(torch.float32)
    others = pictures.index_select(0, partner.to(device, non_blocking=True))
    if boxed:
        across = ((1 - share).sqrt() * torch.tensor([[height], [width]])).long() // 2
        middle = torch.stack(
            [torch.randint(0, side, (count,), generator=generator) for side in (height, width)]
        )
        low, high = middle - across, middle + across
        inside = _boxes(low[0], high[0], low[1], high[1], height=height, width=width)
        share = 1 - inside.sum(dim=(1, 2, 3)) / (height * width)
        pictures = torch.where(inside.to(device, non_blocking=True), others, pictures)
    else:
        weight = share.to(device, non_blocking=True).view(-1, 1, 1, 1)
        pictures = torch.lerp(others, pictures, weight)
    share = share.to(device, non_blocking=True)[:, None]
    kinds = F.one_hot(targets, num_classes).to(torch.float32)
    partners = kinds.index_select(0, partner.to(device, non_blocking=True))
    return pictures, share * kinds + (1 - share) * partners
