"""What every image model is: features of a picture, then a head that makes logits of them.

    logits = forward_head(forward_features(images))

The features are the last map (B D h w), the last tokens (B N D) or a vector (B D); the head pools
them where that is left to do and ends in one linear layer. Some models (GoogLeNet) have further,
auxiliary heads: `heads` names them all, the main one first.

The surprising choice: a model knows the smallest picture that it can read, so that one that is too
small is refused with that number, and not by a pooling layer far inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from leadline.core.config import check, in_range
from leadline.core.errors import ModelError
from leadline.models.architecture import Images
from leadline.nn.auxiliary import WithAuxiliary


class ImageModel(nn.Module, ABC):
    """Images (B, in_chans, H, W) to logits (B, num_classes).

    `num_features` is the length of the vector that the main head reads, `smallest` the side of the
    smallest picture, in pixels.
    """

    heads: ClassVar[tuple[str, ...]] = ("head",)
    """Dotted names of the linear layers that give logits, the main one first."""

    def __init__(self, images: Images, *, num_features: int) -> None:
        super().__init__()
        self.in_chans = images.in_chans
        self.num_classes = images.num_classes
        self.num_features = num_features
        self.smallest = 1

    @abstractmethod
    def maps(self, images: Tensor) -> Tensor:
        """The features of images that have been checked."""

    @abstractmethod
    def forward_head(self, features: Tensor) -> Tensor:
        """The logits (B, num_classes) of features."""

    def forward_features(self, images: Tensor) -> Tensor:
        """The features of images: the last map (B D h w), the last tokens (B N D) or (B D)."""
        self.check(images)
        return self.maps(images)

    def forward(self, images: Tensor) -> Tensor | WithAuxiliary:
        """The logits; a family with auxiliary heads gives theirs too, in training."""
        return self.forward_head(self.forward_features(images))

    def check(self, images: Tensor) -> None:
        """Raise ModelError unless the model can read these images."""
        check_images(images, in_chans=self.in_chans, smallest=self.smallest)

    def reset_classifier(self, num_classes: int) -> None:
        """Put new heads, drawn as torch draws a linear layer, in place of the old ones.

        With 0 classes the main head goes, and the model gives the `num_features` that it read.
        Raises ConfigError for a number below 0.

        >>> from leadline.models.create import create_model
        >>> model = create_model("resnet20", num_classes=10, image_size=32)
        >>> model.reset_classifier(3)
        >>> model.linear
        Linear(in_features=64, out_features=3, bias=True)
        """
        check(self, in_range("num_classes", num_classes, 0))
        for name in self.heads:
            old = self.get_submodule(name) if _has(self, name) else None
            if old is None:
                continue
            new: nn.Module = nn.Identity()
            if num_classes:
                like = next(self.parameters())
                inputs = old.in_features if isinstance(old, nn.Linear) else self.num_features
                new = nn.Linear(inputs, num_classes, device=like.device, dtype=like.dtype)
            parent, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(parent), attribute, new)
        self.num_classes = num_classes


def _has(model: nn.Module, name: str) -> bool:
    """Whether a head is there: auxiliary ones can be left out."""
    return any(name == other for other, _ in model.named_modules())


def check_images(images: Tensor, *, in_chans: int, smallest: int = 1) -> None:
    """Raise ModelError unless `images` is a batch of float maps that the model can read."""
    if not images.is_floating_point():
        raise ModelError(
            expected="images of a floating-point type, normalised",
            received=f"{images.dtype}",
            remedy="convert them with images.float() / 255 and normalise them as in training",
        )
    if images.ndim != 4 or images.shape[1] != in_chans:
        raise ModelError(
            expected=f"images of shape (batch, {in_chans}, height, width)",
            received=f"shape {tuple(images.shape)}",
            remedy=f"convert the images to {in_chans} channels, or build the model with "
            "in_chans as the data have it",
        )
    if images.shape[2] < smallest or images.shape[3] < smallest:
        raise ModelError(
            expected=f"images of at least {smallest} x {smallest} pixels: the model halves them "
            "until less than one would be left",
            received=f"shape {tuple(images.shape)}",
            remedy="enlarge the images, or take a model that halves them less, such as convnet",
        )
